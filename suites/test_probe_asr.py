"""Speech probes: how much of what was said can be read from a codec's latents and tokens by a small recogniser.

The recogniser is trained on some speakers' clips with their words and tested on other speakers'. On a small dataset it
learns little: then the score says that it is not above its baseline, the one text that errs least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from earmark.scoring.probe_asr import TOKENS, beside, modes, words

if TYPE_CHECKING:
    from earmark.codecs.registry import Entry
    from earmark.data.cards import Dataset
    from earmark.reports.scores import Score

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("asr")]
ON_TOKENS = pytest.mark.suite("probe", needs="encode")
PAPER = pytest.mark.preset("paper")


@pytest.fixture
def heard(request, codec: Entry, training_set: Dataset, store, scores):
    """`heard(protocol, modes)`: the error rates of each mode (by default of all kinds of latents), recorded."""
    preset = request.config.option.preset

    def measure(protocol: str, kinds: Sequence[str] = (), head: str = "ctc") -> Iterator[Score]:
        for task in training_set.card.tasks:
            for mode in (kinds or modes(codec, preset)) if task.kind == "asr" else ():
                of_task = (training_set, task, protocol, preset, store)
                found = words(codec, mode, *of_task)
                others = beside(codec, preset, *of_task)
                variant = f"{task.name}_{found.protocol}_{mode.replace(':', '')}"
                for metric in found.metrics:
                    how = {"found": found.found(metric, head, others), "variant": variant, "protocol": found.title}
                    yield scores(f"{metric}_{head}", codec, training_set, **how)

    return measure


def test_words_in_latents(heard, gate):
    """Error rates of a recurrent CTC probe on latents: ours, the same budget for every codec."""
    gate(*heard("earmark"))


@ON_TOKENS
def test_words_in_tokens(heard, gate):
    """Error rates of a recurrent CTC probe on tokens: ours, the same budget for every codec."""
    gate(*heard("earmark", [TOKENS]))


@PAPER
def test_words_in_latents_conformer(heard, gate):
    """Error rates of a Conformer CTC probe on latents."""
    gate(*heard("earmark-conformer"))


@PAPER
@ON_TOKENS
def test_words_in_tokens_conformer(heard, gate):
    """Error rates of a Conformer CTC probe on tokens."""
    gate(*heard("earmark-conformer", [TOKENS]))


@PAPER
@ON_TOKENS
def test_words_in_tokens_audiocodecbench(heard, gate):
    """Error rates as AudioCodecBench measures them: a Conformer on token IDs, subwords, CTC."""
    gate(*heard("audiocodecbench", [TOKENS]))


@PAPER
def test_words_in_latents_audiocodecbench(heard, gate):
    """Error rates of AudioCodecBench's Conformer on latents, as it has them of HuBERT."""
    gate(*heard("audiocodecbench"))


@PAPER
def test_words_in_latents_codecbench(heard, gate):
    """Error rates as CodecBench measures them: two recurrent layers on latents, characters, CTC."""
    gate(*heard("codecbench"))


@PAPER
@ON_TOKENS
def test_words_in_tokens_codecbench(heard, gate):
    """Error rates of CodecBench's recurrent probe on tokens."""
    gate(*heard("codecbench", [TOKENS]))


@PAPER
@pytest.mark.metric("wer_lm")
def test_words_in_latents_xares(heard, gate):
    """Error rates as X-ARES measures them: a frozen language model that reads adapted latents."""
    gate(*heard("xares", head="lm"))
