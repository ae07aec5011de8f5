"""How well can a quantity be read out of the latents of held-out clips: tempo, arousal, valence?

Names, protocols and baselines are as in test_probe_classification; to say the mean of all clips scores about 0.
"""

import pytest

from earmark.scoring.readings import readings

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("regression")]

PROTOCOLS = [  # of frames first: means are made of those that are stored
    pytest.param("audiocodecbench", marks=pytest.mark.preset("paper")),
    "earmark",
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_quantity(codec, training_set, protocol, store, scores, gate):
    """R2 of held-out clips (higher is better)."""
    found = readings(codec, training_set, "regression", protocol, store)
    gate(*(scores(r.metric, codec, training_set, found=r.found, variant=r.variant, protocol=r.protocol) for r in found))
