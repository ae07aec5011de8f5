"""Retrieval: do latents tell which caption belongs to a clip? Two small towers are trained and tested on other clips.

Scores say which way (a caption found by its sound, a sound by its caption, the mean of both), and among how many.
"""

import pytest

from earmark.scoring.probe_retrieval import recalls

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("retrieval")]


@pytest.fixture
def found(request, codec, training_set, store, scores):
    """`found(protocol)`: every recall of a protocol, recorded."""
    preset = request.config.option.preset

    def measure(protocol):
        for r in recalls(codec, training_set, protocol, preset, store):
            yield scores(r.metric, codec, training_set, found=r.found, variant=r.variant, protocol=r.protocol)

    return measure


def test_caption(found, gate):
    """Recall at 1, 5 and 10, captions read by their words (higher is better)."""
    gate(*found("earmark"))


@pytest.mark.metric("recall_at_1_bert")
def test_caption_with_frozen_text(found, gate):
    """Recall at 1, 5 and 10 as X-ARES measures Clotho, captions read by a frozen BERT (higher is better)."""
    gate(*found("xares"))
