"""Which of several things are in a clip at once? Tags and instruments, read out of the latents of held-out clips.

Average precision and ROC-AUC are means over the labels that are there; names, protocols and baselines are as in
test_probe_classification.
"""

import pytest

from earmark.scoring.readings import readings

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("multi_label")]

PROTOCOLS = [  # of frames first: means are made of those that are stored
    pytest.param("audiocodecbench", marks=pytest.mark.preset("paper")),
    "earmark",
    "xares",
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tags(codec, training_set, protocol, store, scores, gate):
    """Mean average precision and ROC-AUC over the labels of held-out clips (higher is better)."""
    found = readings(codec, training_set, "multi_label", protocol, store)
    gate(*(scores(r.metric, codec, training_set, found=r.found, variant=r.variant, protocol=r.protocol) for r in found))
