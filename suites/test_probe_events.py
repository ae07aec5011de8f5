"""What happens when? Sound events, read out of every frame of the latents of held-out clips.

Segment-based F1 by sed_eval. Names, protocols and baselines are as in test_probe_classification; to say that everything
happens all the time is what is scored without listening.
"""

import pytest

from earmark.scoring.readings import readings

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("events")]

PROTOCOLS = [
    "earmark",
    "xares",
    pytest.param("xares-as-published", marks=pytest.mark.preset("paper")),
]


@pytest.mark.metric("segment_f1")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_events(codec, training_set, protocol, store, scores, gate):
    """Segment-based F1 (higher is better)."""
    found = [*readings(codec, training_set, "events", protocol, store)]
    if not found:
        pytest.skip(f"{training_set.name} has clips to validate by, and X-ARES took them: see the protocol xares")
    gate(*(scores(r.metric, codec, training_set, found=r.found, variant=r.variant, protocol=r.protocol) for r in found))
