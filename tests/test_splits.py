"""What is held out: nothing of one group is on two sides, and every card says so of every task."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.data import cards, checks, splits
from earmark.data.manifest import Clip
from earmark.data.schema import HeldOut, Task


def clip(name: str, **fields: str) -> Clip:
    return Clip(name, None, name, fields.get("group", name), "speech", None, {"path": name, **fields})


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), min_size=30, max_size=80), st.integers(2, 4))
def test_a_group_is_in_one_fold_and_every_fold_has_some(rows, folds):
    clips = [clip(str(i), group=f"g{group}", label=label) for i, (group, label) in enumerate(rows)]
    if len({c.group for c in clips}) < folds:
        return
    found = splits.grouped_folds(clips, "label", "group", folds)
    where = {c.group: set() for c in clips}
    for c in clips:
        where[c.group].add(found[c.id])
    assert all(len(on) == 1 for on in where.values())
    assert set(found.values()) == {str(fold + 1) for fold in range(folds)}


def test_folds_share_the_labels_out():
    """60 groups of one label each, four labels: 15 of each label over three folds are 5 a fold."""
    clips = [clip(str(i), label="abcd"[i % 4]) for i in range(60)]
    found = splits.grouped_folds(clips, "label", "group", 3)
    assert Counter((found[c.id], c.fields["label"]) for c in clips) == {(f, x): 5 for f in "123" for x in "abcd"}


def test_folds_are_the_same_again_and_others_by_another_seed():
    clips = [clip(str(i), label="ab"[i % 2]) for i in range(40)]
    assert splits.grouped_folds(clips, "label", "group", 4) == splits.grouped_folds(clips[::-1], "label", "group", 4)
    assert splits.grouped_folds(clips, "label", "group", 4) != splits.grouped_folds(clips, "label", "group", 4, seed=1)


def test_too_few_groups_is_an_error():
    with pytest.raises(ValueError, match="5 folds by speaker: there are only 2 of them"):
        splits.grouped_folds([clip("a", speaker="x"), clip("b", speaker="y")], "path", "speaker", 5)


def test_a_target_that_no_clip_has_is_an_error_that_names_the_column_that_may_be_meant():
    """And not one about its folds, of which there are none."""
    card = cards.cards()["sampler_notes"]
    dataset = cards.of(cards.load(card), [clip("a", label="x", speaker="s"), clip("b", label="y", speaker="t")])
    for target, hint in (("lable", "; is 'label' meant\\?$"), ("mood", "'mood'$")):
        task = Task(name="word", kind="classification", target=target, held_out=HeldOut(folds=2, by="speaker"))
        with pytest.raises(ValueError, match=f"no clip has a label in the column .*{hint}"):
            splits.sides(dataset, task)
        asked = replace(dataset, card=card.model_copy(update={"tasks": (task,)}))
        (said,) = [line for line in checks.problems(asked, sound=False) if "word" in line]
        assert "no clip has a label in the column" in said


@pytest.mark.parametrize("rule", [{}, {"column": "fold", "folds": 5}])
def test_a_rule_is_one_of_two(rule):
    with pytest.raises(ValueError, match="expected either `column: split`"):
        HeldOut(**rule)


def test_a_card_s_tasks_have_sides_and_only_identity_shares_groups():
    """Which speaker it is can only be learned from that speaker; every other task holds out whole groups."""
    for card in cards.select(["sampler"]):
        dataset = cards.load(card)
        for task in card.tasks:
            sides = splits.sides(dataset, task)
            assert len(set(sides.values())) >= 2
            assert set(sides) == {c.id for c in dataset.clips if c.fields.get(task.target)}
            assert bool(splits.leaks(dataset, task)) == (task.name == "speaker"), (card.name, task.name)


def test_real_cards_hold_out_speakers_and_recordings(real):
    for name in ("fsdd", "esc10", "librispeech_small", "librispeech_test_other", "librispeech_train_clean_100"):
        dataset = cards.load(cards.cards()[name])
        assert len(dataset.clips) == dataset.card.clips
        for task in dataset.card.tasks:
            labels = {c.fields[task.target] for c in dataset.clips if c.fields.get(task.target)}
            assert task.classes is None or len(labels) == task.classes
            assert bool(splits.leaks(dataset, task)) == (task.name == "speaker"), (name, task.name)


def test_a_group_comes_from_the_column_that_holds_it(real):
    """An ESC file is <fold>-<recording>-<take>-<target>: 304 recordings in 400 clips."""
    clips = cards.load(cards.cards()["esc10"]).clips
    assert len({c.group for c in clips}) == 304
    assert clips[0].group == "100032"


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(KeyError, match="sampler_notes has no task 'sex'; it has instrument, pitch"):
        cards.cards()["sampler_notes"].task("sex")
    assert cards.cards()["sampler_notes"].task("pitch") == Task(name="pitch", kind="classification", target="pitch")
