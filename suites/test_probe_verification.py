"""Do the latents tell speakers apart? By the cosine of the means of two clips alone: nothing is trained.

One half is chance. Names and baselines are as in test_probe_classification.
"""

import pytest

from earmark.scoring.readings import readings

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("verification")]


def test_speakers(codec, training_set, store, scores, gate):
    """Equal error rate over all pairs of clips (lower is better)."""
    found = readings(codec, training_set, "verification", "earmark", store)
    gate(*(scores(r.metric, codec, training_set, found=r.found, variant=r.variant, protocol=r.protocol) for r in found))
