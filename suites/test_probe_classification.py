"""What do the latents know of a clip as a whole? A small learner reads its class out of them, clip by held-out clip.

Scores are named by task, protocol and kind of latents; `docs/probes.md` says what each protocol is. Beside every score
stand what is scored without listening and what log-mel scores in the same way; one that is not better says so.
"""

import allure
import pytest

from earmark.reports.plots import heat_map
from earmark.scoring.readings import confusions, readings

pytestmark = [pytest.mark.suite("probe", needs="embed"), pytest.mark.task("classification")]

MOST_CLASSES = 16  # in a picture that can be read
PROTOCOLS = [  # of frames first: means are made of those that are stored
    pytest.param("audiocodecbench", marks=pytest.mark.preset("paper")),
    "earmark",
    "xares",
    "xares-knn",
    "codecbench",
    pytest.param("xares-as-published", marks=pytest.mark.preset("paper")),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_class(codec, training_set, protocol, store, scores, gate):
    """Accuracy and macro F1 of the held-out clips (higher is better)."""
    found = [*readings(codec, training_set, "classification", protocol, store)]
    if not found:
        pytest.skip(f"{training_set.name} has clips to validate by, and X-ARES took them: see the protocol xares")
    for found_of in confusions(found):
        if len(found_of.names) <= MOST_CLASSES:
            title = f"{found_of.task}: what was taken for what"
            picture = heat_map(found_of.shares, title, "taken for", "is", found_of.names)
            allure.attach(picture, title, allure.attachment_type.PNG)
    gate(*(scores(r.metric, codec, training_set, found=r.found, variant=r.variant, protocol=r.protocol) for r in found))
