"""What do the latents know of a clip as a whole? A small learner reads its class out of them, clip by held-out clip.

Scores are named by task, protocol and kind of latents; `docs/probes.md` says what each protocol is. Beside every score
stand what is scored without listening and what log-mel scores in the same way; one that is not better says so.
"""

import pytest

from earmark.scoring.readings import readings

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("classification")]

PROTOCOLS = [
    "earmark",
    "xares",
    "xares-knn",
    "codecbench",
    pytest.param("audiocodecbench", marks=pytest.mark.preset("paper")),
    pytest.param("xares-as-published", marks=pytest.mark.preset("paper")),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_class(codec, training_set, protocol, store, scores, gate):
    """Accuracy and macro F1 of the held-out clips (higher is better)."""
    found = readings(codec, training_set, "classification", protocol, store)
    gate(*(scores(r.metric, codec, training_set, found=r.found, variant=r.variant, protocol=r.protocol) for r in found))
