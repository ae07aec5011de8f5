"""How well can a language model predict the tokens? The perplexity dimension of AudioCodecBench.

A small language model is trained from scratch on the codec's tokens of some speakers (recordings) and predicts those of
others; a model that knows nothing has a normalised perplexity of 1024, whatever the codebooks' sizes. `--preset` says
how it is trained, `--ordering` how the codebooks of a frame follow each other. n-grams answer the same in seconds.
docs/perplexity.md says how to read the scores.
"""

import allure
import pytest

from earmark.lm import protocol as protocols
from earmark.lm.packing import TooFewGroupsError
from earmark.metrics import MetricError
from earmark.reports.plots import Curve, curves

pytestmark = pytest.mark.suite("lm", needs="encode")


@pytest.fixture
def protocol(pytestconfig):
    return protocols.find(pytestconfig.getoption("preset"))


@pytest.fixture
def ordering(pytestconfig):
    return pytestconfig.getoption("ordering")


def test_perplexity(codec, training_set, store, protocol, ordering, scores, gate):
    """Perplexity of a language model on the tokens, and the bits it would code them with (lower is better)."""
    from earmark.scoring.perplexity import of_lm

    predicted = answer(of_lm, codec, training_set, store, protocol, ordering)
    attach_curve(predicted.curve, f"{codec.name} on {training_set.name}, {protocol.name}-{ordering}")
    record(predicted, codec, training_set, scores, gate, "lm_", f"{protocol.name}-{ordering}")


def test_ngram_perplexity(codec, training_set, store, protocol, scores, gate):
    """Perplexity of an interpolated trigram model on the tokens: the estimate that takes seconds (lower is better)."""
    from earmark.scoring.perplexity import of_ngrams

    record(
        answer(of_ngrams, codec, training_set, store, protocol), codec, training_set, scores, gate, "ngram_", "trigram"
    )


def answer(of, codec, training_set, *how):
    """What was predicted; a failure in one line where training went wrong, a skip where the data cannot be split."""
    try:
        return of(codec, training_set, *how)
    except TooFewGroupsError as error:
        pytest.skip(f"{training_set.name}: {error}")
    except MetricError as error:
        pytest.fail(f"{codec.name} on {training_set.name}: {error}", pytrace=False)


def record(predicted, codec, training_set, scores, gate, prefix, protocol):
    from earmark.scoring.perplexity import found

    made = []
    for (name, variant), score in found(predicted, codec).items():
        row = name if prefix == "lm_" and name.startswith("perplexity") else prefix + name
        made.append(scores(row, codec, training_set, found=score, variant=variant, protocol=protocol))
    gate(*made)


def attach_curve(curve, title):
    lines = {name: Curve(curve["step"], curve[name]) for name in ("training", "validation")}
    png = curves(lines, title, "optimiser's steps", "loss, nats a token")
    allure.attach(png, "training curve", allure.attachment_type.PNG)
