"""Verification from a dataset to a score: which clips are compared, and an interval that is over speakers."""

from types import SimpleNamespace

import numpy as np
import pytest

from earmark.data import cards
from earmark.data.manifest import Clip
from earmark.data.schema import HeldOut, Task
from earmark.scoring import verification
from earmark.scoring.found import Found
from earmark.scoring.probes import Features, Labelled, labelled
from earmark.scoring.verification import verification_set, verified

TASK = Task(name="who", kind="verification", target="speaker")


def clip(name, **fields):
    return Clip(
        id=name, path=name, sha256=name, group=fields.get("speaker", name), domain="speech", seconds=1, fields=fields
    )


@pytest.fixture
def dataset(monkeypatch):
    """`dataset(clips, limit, **of the card)`: as a run has it, within a limit, of the clips that lie there."""

    def make(clips, limit=None, **card):
        of = cards.cards()["sampler_speech"].model_copy(
            update={"tasks": (TASK,), "columns": {}, "held_out": None} | card
        )
        whole = cards._dataset(of, clips, None)
        monkeypatch.setattr(cards, "load", lambda card, limit=None: cards.at_most(whole, limit))
        return cards.load(of, limit)

    return make


def of_speakers(sizes, **more):
    return [clip(f"{who}-{n}", speaker=who, **more) for who, size in sizes.items() for n in range(size)]


def test_of_a_published_split_the_test_side_is_compared(dataset):
    clips = (
        of_speakers({"a": 3}, split="train")
        + of_speakers({"b": 2}, split="valid")
        + of_speakers({"c": 4}, split="test")
    )
    assert {
        one.fields["speaker"] for one in verification_set(dataset(clips, held_out=HeldOut(column="split"))).clips
    } == {"c"}


def test_of_folds_all_clips_are_compared_and_it_is_the_same_dataset(dataset):
    given = dataset(of_speakers(dict.fromkeys("abcdef", 4)))
    assert verification_set(given).fingerprint == given.fingerprint
    within = dataset(given.clips, limit=100)
    assert verification_set(within).clips == given.clips


def test_a_limit_takes_several_clips_of_a_speaker(dataset):
    """Stratified, 200 clips of 1000 speakers would have no pair of one speaker at all."""
    given = dataset(of_speakers({f"s{n}": 20 for n in range(1000)}), limit=200)
    assert len({one.group for one in given.clips}) == 200
    chosen = verification_set(given)
    assert len(chosen.clips) == 200
    assert sorted(np.unique([one.group for one in chosen.clips], return_counts=True)[1]) == [8] * 25
    few = verification_set(dataset(of_speakers(dict.fromkeys("abcdef", 50)), limit=200))
    counts = np.unique([one.group for one in few.clips], return_counts=True)[1]
    assert (counts.sum(), counts.min()) == (200, 32)  # rounds of eight: four of all six, and eight more of one


@pytest.mark.parametrize("folds", [HeldOut(folds=5), None])
def test_fewer_speakers_than_folds_can_be_compared(dataset, folds):
    """Eight clips of a speaker within a limit of 16 are two speakers."""
    given = dataset(of_speakers(dict.fromkeys("abcdef", 10)), limit=16, held_out=folds)
    chosen = verification_set(given)
    assert len({one.group for one in chosen.clips}) == 2
    items = labelled(chosen, TASK)
    assert (items.clips, set(items.sides)) == (chosen.clips, {"test"})
    few = dataset(of_speakers({"a": 3, "b": 3}), held_out=folds)  # all that there are
    assert verification_set(few).clips == few.clips


def test_voxceleb1_is_compared_by_the_forty_speakers_of_its_test(dataset):
    card = cards.cards()["voxceleb1"]
    names = [f"id1{n:04}" for n in (1, 269, 270, 299, 300, 309, 310, 1251)]
    clips = [cards._with(one, card.columns) for one in of_speakers(dict.fromkeys(names, 2), split="train")]
    chosen = verification_set(dataset(clips, tasks=card.tasks, held_out=card.held_out))
    assert {one.group for one in chosen.clips} == {"id10270", "id10299", "id10300", "id10309"}


# -- the score --------------------------------------------------------------------------------------------------------


@pytest.fixture
def score(monkeypatch):
    """`score(means, speakers, errors)`: what is found of clips whose latents have these means."""

    def of(means, speakers, errors=()) -> Found:
        clips = tuple(clip(str(at), speaker=str(who)) for at, who in enumerate(speakers))
        data = SimpleNamespace(fingerprint="", clips=clips)
        items = Labelled(data, TASK, clips, tuple(map(str, speakers)), ("1",) * len(clips))
        kept = [one.id not in errors for one in clips]
        left = [mean for mean, keep in zip(means, kept, strict=True) if keep]
        found = Features(items.of(kept), left, dict.fromkeys(errors, "codec failed: no"))
        monkeypatch.setattr(verification, "features", lambda *of, **how: found)
        return verified(None, "unquantized", items, None)

    return of


def drawn(rng, speakers, clips):
    """Means of clips of speakers, some of whom vary more than others: what one is like says much of all her pairs."""
    who, varies = np.repeat(np.arange(speakers), clips), np.exp(0.7 * rng.standard_normal(speakers))
    return rng.standard_normal((speakers, 8))[who] + varies[who, None] * rng.standard_normal((len(who), 8)), who


def test_the_interval_holds_the_truth_as_often_as_it_says(score):
    """Twenty speakers of eight clips, 80 times; the truth from 500 speakers. Over clips it would hold it 79 in 100."""
    truth = score(*drawn(np.random.default_rng(99), 500, 4)).value
    rng = np.random.default_rng(0)
    found = [score(*drawn(rng, 20, 8)) for _ in range(80)]
    assert np.mean([one.low <= truth <= one.high for one in found]) == pytest.approx(0.95, abs=0.06)
    half = np.mean([(one.high - one.low) / 2 for one in found])
    assert half == pytest.approx(2.09 * np.std([one.value for one in found]), rel=0.25)  # t(19)
    assert found[0].method == "delete-a-block jackknife, 20 blocks of 20 groups of clips, Student t, 95 %"


def test_means_that_tell_the_speaker_never_err_and_others_do_as_a_coin(score):
    who, rng = np.repeat(np.arange(8), 10), np.random.default_rng(3)
    assert score(np.eye(8)[who], who).value == 0
    assert score(rng.standard_normal((80, 16)), who).value == pytest.approx(0.5, abs=0.05)
    assert score(np.eye(8)[rng.permutation(who)], who).value == pytest.approx(0.5, abs=0.05)


def test_clips_that_failed_are_in_no_pair(score):
    means, who = drawn(np.random.default_rng(1), 5, 4)
    spoilt = means.copy()
    spoilt[[0, 7]] = np.nan
    found, kept = score(spoilt, who, errors=("0", "7")), [at for at in range(20) if at not in (0, 7)]
    assert (found.n, set(found.errors)) == (18, {"0", "7"})
    assert found.value == score(means[kept], who[kept]).value
    assert found.notes == ["24 pairs of one speaker, 129 of two"]
    assert score(means, who, errors=[str(at) for at in range(20)]).n == 0


def test_many_pairs_are_said_to_be_drawn(score):
    found = score(*drawn(np.random.default_rng(2), 40, 20))
    assert found.notes == ["7600 pairs of one speaker, 100000 of two, drawn from 319600"]
    assert found.low < found.value < found.high


def test_without_two_clips_of_one_speaker_there_is_no_answer(score):
    found = score(np.eye(4), range(4))
    assert (found.n, set(found.no_answer)) == (0, {"0", "1", "2", "3"})
    assert "needs pairs of the same speaker and of different ones; use more clips" in found.notes[0]
    once = score(np.eye(4), "aabc")
    assert "none: without some of the clips" in once.method
