"""The contract on an adapter of thin random weights, which the suite itself, that asks what is ready, never meets."""

from collections.abc import Sequence
from typing import Any

from earmark.codecs.contract import capabilities_of
from earmark.codecs.registry import Entry
from earmark.contract import CHECKS, Subject, examine

# What needs a row to build the codec from; what takes seconds, and is asked of lengths, rates and bits in each family's
# own tests.
LEFT_OUT = {"fresh_process", "global_state", "fewer_codebooks"}
LEFT_OUT |= {"memory", "any_length", "frame_rate", "bitrate_is_declared", "codes"}


def failures(adapter: Any, kinds: Sequence[str]) -> dict[str, str]:
    """The messages of the checks that an adapter fails, by their names; `kinds` of latents, where it has any."""
    can = capabilities_of(type(adapter))
    found = {"capabilities": can, "latent_kinds": tuple(kinds) if "embed" in can else ()}
    info = adapter.info.model_copy(update=found)
    subject = Subject(Entry(info=info, adapter="unused:Unused"), "cpu", lambda: adapter)
    asked = tuple(sorted({*CHECKS} - LEFT_OUT))
    return {result.check.name: result.message for result in examine(subject, asked) if result.verdict == "failed"}
