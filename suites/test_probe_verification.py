"""Do the latents tell speakers apart? By the cosine of the means of two clips alone: nothing is trained.

One half is chance. Names and baselines are as in test_probe_classification.
"""

import pytest

from earmark.scoring.readings import readings
from earmark.scoring.verification import verification_set

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("verification")]


def test_speakers(codec, training_set, store, scores, gate):
    """Equal error rate over pairs of clips (lower is better): all of them, or many that are drawn."""
    clips = verification_set(training_set)
    found = readings(codec, clips, "verification", "earmark", store)
    gate(*(scores(r.metric, codec, clips, found=r.found, variant=r.variant, protocol=r.protocol) for r in found))
