"""The parts of probes: protocols, folds, targets, learners one by one, optimisers, what predictions are worth."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from earmark.data.cards import cards
from earmark.probes import events, measures, protocol
from earmark.probes.conv import Conv
from earmark.probes.folds import Fold, SplitError, folds
from earmark.probes.knn import votes
from earmark.probes.optimise import Adam, factors
from earmark.probes.protocol import ProtocolError, Recipe
from earmark.probes.segments import padded, segments
from earmark.probes.targets import TargetError, targets
from earmark.probes.verification import MOST_PAIRS, cosines, equal_error_rate, trials
from earmark.reports.published import figures

# -- protocols --------------------------------------------------------------------------------------------------------


def recipe(name, kind="classification", dataset=""):
    return protocol.load(name).recipes[kind].for_set(dataset)


def test_published_settings():
    """PROTOCOLS A4, B and C, and the code of the three benchmarks."""
    xares = recipe("xares")
    assert (xares.learner, xares.optimiser, xares.rates, xares.epochs, xares.batch) == ("mlp", "adam", (1e-3,), 10, 32)
    assert (xares.schedule, xares.by, xares.final, xares.weight_decay) == ("cosine", "epoch", 0.1, 0)
    assert (recipe("xares", dataset="fma_small").epochs, recipe("xares", dataset="asvspoof2015").batch) == (3, 64)
    maestro = recipe("xares", "events", "maestro")
    assert (maestro.batch, maestro.epochs, maestro.options) == (1, 50, {"resolution_s": 0.1, "average": "micro"})
    assert (maestro.positive, recipe("xares", "events", "desed").positive) == (10, 1)  # 88 notes, of which few sound
    linear = recipe("codecbench")
    assert (linear.learner, linear.rates, linear.warmup, linear.batch, linear.epochs) == (
        "linear",
        (1e-3,),
        0.1,
        16,
        20,
    )
    conv = recipe("audiocodecbench", dataset="esc50")
    assert (conv.rates, conv.betas, conv.eps, conv.weight_decay) == ((1e-4,), (0.8, 0.99), 1e-5, 0.08)
    assert (conv.warmup, conv.final, conv.steps, conv.epochs, conv.batch) == (10, 0.2, 10_000, 100, 128)
    assert recipe("audiocodecbench", dataset="esc10").batch == 32  # none of its sets: ESC-50's 128 would be 200 steps
    tags = recipe("audiocodecbench", "multi_label", "magnatagatune")
    assert (tags.epochs, tags.options["dropout"]) == (50, 0)  # its model of several labels never calls its own
    assert recipe("audiocodecbench", dataset="meld").options == {"seconds": 8, "dropout": 0.2}
    assert recipe("xares-knn").options == {"neighbours": 10, "temperature": 0.07}


def test_only_the_published_way_looks_at_the_test_clips_and_says_so():
    for name in protocol.names():
        found = protocol.load(name)
        looks = any(of.select == "test" for of in found.recipes.values())
        assert looks == (name == "xares-as-published")
        assert bool(found.flag) == looks


def test_as_published_differs_by_the_clips_that_choose_alone():
    """All else is as in `xares`, for each dataset of which such a figure is printed."""
    published, ours = protocol.load("xares-as-published").recipes, protocol.load("xares").recipes
    named = {figure.dataset for figure in figures() if "_xares-as-published_" in figure.metric}
    assert {"esc50", "libricount", "vocal_imitation", "desed"} < named
    for kind, of in published.items():
        for name in named:
            assert of.for_set(name).model_copy(update={"select": ours[kind].select}) == ours[kind].for_set(name), name


def test_what_differs_for_a_dataset_is_under_the_name_of_its_card():
    named = {name for of in protocol.names() for recipe in protocol.load(of).recipes.values() for name in recipe.sets}
    assert named <= set(cards())


def test_an_unknown_protocol_suggests_the_nearest():
    with pytest.raises(ProtocolError, match="unknown protocol 'xare'; did you mean xares"):
        protocol.load("xare")


# -- folds ------------------------------------------------------------------------------------------------------------


def check(found, groups):
    for fold in found:
        parts = [fold.train, fold.valid, fold.test]
        assert sorted(np.concatenate(parts)) == list(range(len(groups)))
        names = [{groups[clip] for clip in part} for part in parts]
        assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]  # noqa: PT018


def test_every_fold_is_tested_once_and_the_next_validates():
    groups = ["a", "a", "b", "b", "c", "c", "d", "d"]
    found = folds(["1", "1", "2", "2", "3", "3", "4", "4"], groups, ["x", "y"] * 4)
    check(found, groups)
    assert [fold.test.tolist() for fold in found] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [fold.valid.tolist() for fold in found] == [[2, 3], [4, 5], [6, 7], [0, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_validation_clips_are_set_apart_by_group(seed):
    groups = [f"speaker{clip // 3}" for clip in range(60)]
    side = ["train" if clip < 45 else "test" for clip in range(60)]
    (fold,) = folds(side, groups, [str(clip // 3 % 2) for clip in range(60)], seed)
    check([fold], groups)
    assert 6 <= len(fold.valid) <= 12
    assert fold.test.tolist() == list(range(45, 60))


def test_who_speaks_is_validated_on_other_clips_of_the_same_speakers():
    speakers = [f"speaker{clip % 6}" for clip in range(60)]
    (fold,) = folds(["train" if clip < 40 else "test" for clip in range(60)], speakers, speakers)
    assert {speakers[clip] for clip in fold.train} == {speakers[clip] for clip in fold.test} == set(speakers)
    assert not set(fold.train) & set(fold.valid)


def test_published_sides_are_kept():
    (fold,) = folds(["train", "train", "valid", "test"], list("abcd"), None)
    assert (fold.train.tolist(), fold.valid.tolist(), fold.test.tolist()) == ([0, 1], [2], [3])
    assert fold.poorer().train.tolist() == [0, 1, 2]


@pytest.mark.parametrize("sides", [["train", "train"], ["test", "valid"], ["train", "1", "test"]])
def test_what_cannot_be_divided_says_why(sides):
    with pytest.raises(SplitError, match=r"none may be 0|expected train, valid, test"):
        folds(sides, [*map(str, range(len(sides)))], None)


# -- targets ----------------------------------------------------------------------------------------------------------


def test_targets_of_each_kind():
    assert targets("classification", ["b", "a", "b"]).values.tolist() == [1, 0, 1]
    assert targets("regression", ["1.5", "-2"]).values.tolist() == [[1.5], [-2.0]]
    found = targets("events", ['[{"label": "dog", "onset_s": 0, "offset_s": 1}]', "[]"])
    assert found.names == ("dog",)
    assert found.events[1] == []


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("regression", "fast"),
        ("regression", "nan"),
        ("events", "dog"),
        ("events", '[{"label": "dog"}]'),
        ("events", '[{"label": "dog", "onset_s": 2, "offset_s": 1}]'),
    ],
)
def test_a_label_that_is_none_is_an_error(kind, label):
    with pytest.raises(TargetError):
        targets(kind, [label])


# -- learners ---------------------------------------------------------------------------------------------------------


def test_conv_has_the_published_shape():
    """T 16, D 32, 3 classes. Stage 1: 3 (16 1 + 1 16) + 16 3 + 16 8; stage 2: 3 (8 1 + 1 8) + 8 3 + 8 4; then 32 2 + 2
    and 4 2 3 + 3.
    """
    model = Conv(32, 3, 16)
    assert sum(value.numel() for value in model.parameters()) == 96 + 48 + 128 + 48 + 24 + 32 + 66 + 27
    assert model(torch.zeros(5, 32, 16)).shape == (5, 3)
    with pytest.raises(ValueError, match="at least 4"):
        Conv(32, 3, 3)


def test_neighbours_vote_as_scikit_learn_finds_them():
    generator = torch.Generator().manual_seed(0)
    known, asked = torch.randn(50, 8, generator=generator), torch.randn(7, 8, generator=generator)
    labels = torch.randint(0, 3, (50,), generator=generator)
    distances, index = NearestNeighbors(n_neighbors=10, metric="cosine").fit(known).kneighbors(asked)
    weights = torch.softmax((1 - torch.from_numpy(distances).double()) / 0.07, 1)
    expected = torch.zeros(7, 3, dtype=weights.dtype)
    for row in range(7):
        for neighbour, weight in zip(index[row], weights[row], strict=True):
            expected[row, labels[neighbour]] += weight
    torch.testing.assert_close(votes(known, labels, asked, 3).double(), expected, atol=1e-5, rtol=0)
    scaled = votes(known * torch.rand(50, 1, generator=generator).add(0.1), labels, 9 * asked, 3)
    torch.testing.assert_close(scaled.double(), expected, atol=1e-5, rtol=0)  # a cosine does not know of length


@pytest.mark.parametrize(("name", "decay", "clip"), [("adam", 0.0, None), ("adamw", 0.08, 0.5), ("adam", 0.1, None)])
def test_each_run_is_optimised_as_torch_does(name, decay, clip):
    """Three runs of other rates against three torch optimisers; the second run rests in one step."""
    of = Recipe(learner="", optimiser=name, weight_decay=decay, clip_norm=clip, betas=(0.8, 0.99), eps=1e-5)
    rates, start = torch.tensor([0.1, 0.01, 0.3]), torch.randn(3, 4, 2)
    ours = {"w": start.clone()}
    adam = Adam(ours, of)
    theirs = [torch.nn.Parameter(start[run].clone()) for run in range(3)]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    options = {"betas": of.betas, "eps": of.eps, "weight_decay": decay}
    optimisers = [kind([value], lr=float(rate), **options) for value, rate in zip(theirs, rates, strict=True)]
    for step in range(6):
        gradient = torch.randn(3, 4, 2)
        active = torch.tensor([1.0, float(step != 2), 1.0])
        adam.step({"w": gradient}, rates, active)
        for run in range(3):
            if active[run]:
                theirs[run].grad = gradient[run].clone()
                if clip:
                    torch.nn.utils.clip_grad_norm_([theirs[run]], clip)
                optimisers[run].step()
    torch.testing.assert_close(ours["w"], torch.stack([value.detach() for value in theirs]))


def test_schedules_by_hand():
    linear = recipe("codecbench")  # warm-up over a tenth, then down to 0
    assert factors(linear, [0, 5, 10, 55, 100], [100] * 5, 0) == pytest.approx([0, 0.5, 1, 0.5, 0])
    by_epoch = recipe("xares")  # ignite's cosine: at epoch e of 10, .1 + .9 (1 + cos(pi e / 10)) / 2
    assert factors(by_epoch, [7], [99], 0) == [1]
    assert factors(by_epoch, [7], [99], 5) == pytest.approx([0.55])
    conv = recipe("audiocodecbench")  # ten steps of warm-up, a cosine to 0 over 10 000, cut at .2
    assert factors(conv, [5, 10, 5005, 6670, 8000, 10_000], [300] * 6, 0) == pytest.approx(
        [0.5, 1, 0.5, 0.25, 0.2, 0.2], abs=1e-3
    )


# -- frames and events ------------------------------------------------------------------------------------------------


def test_segments_and_padding():
    clips = [np.ones((2, 10)), np.full((2, 3), 2.0)]
    cut, owners = segments(clips, 4)  # 10 frames are 2.5 segments: the half of one is left out
    assert (cut.shape, owners.tolist()) == ((3, 2, 4), [0, 0, 1])
    assert cut[2, 0].tolist() == [2, 2, 2, 0]
    x, mask = padded(clips)
    assert (x.shape, mask.sum(1).tolist()) == ((2, 10, 2), [10, 3])


def test_events_to_frames_and_back():
    """At 10 frames/s, 0.26 s to 0.64 s covers more than half of the frames 3 to 5."""
    dog = [{"label": "dog", "onset_s": 0.26, "offset_s": 0.64}]
    frames = events.frame_targets(dog, ["cat", "dog"], 8, 10.0)
    assert np.flatnonzero(frames[:, 1]).tolist() == [3, 4, 5]
    assert not frames[:, 0].any()
    assert events.found_events(frames - 0.5, ["cat", "dog"], 10.0) == [
        {"label": "dog", "onset_s": 0.3, "offset_s": 0.6}
    ]


def test_segment_counts_by_hand():
    """Four segments of 1 s: the dog is there in 1 and 2, said in 2 and 3; the cat in 4, never said."""
    truth = [{"label": "dog", "onset_s": 0.2, "offset_s": 1.5}, {"label": "cat", "onset_s": 3.0, "offset_s": 3.5}]
    said = [{"label": "dog", "onset_s": 1.1, "offset_s": 2.4}]
    counts = events.segment_counts(truth, said, ["cat", "dog"], 4.0, 1.0)
    assert counts.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert events.f1(counts) == pytest.approx((0 + 0.5) / 2)
    assert events.f1(counts, "micro") == pytest.approx(2 / (2 + 1 + 2))
    assert events.segment_counts(truth, truth, ["cat", "dog"], 4.0, 1.0)[:, 1:].sum() == 0
    assert math.isnan(events.f1(np.zeros((2, 3))))


@pytest.mark.parametrize("segment", range(10))
def test_an_event_of_one_segment_is_in_that_segment_alone(segment):
    """.3 / .1 is a little less than 3 in floating point, so sed_eval counts the segment before too."""
    on, off = segment * 5 / 50, (segment + 1) * 5 / 50  # as frames of 50 Hz say it
    said = [{"label": "c4", "onset_s": on, "offset_s": off}]
    assert events.segment_counts([], said, ["c4"], 1.0, 0.1).tolist() == [[0, 1, 0]]
    true = [{"label": "c4", "onset_s": on + 0.004, "offset_s": off - 0.004}]
    assert events.segment_counts(true, said, ["c4"], 1.0, 0.1).tolist() == [[1, 0, 0]]


def test_counts_of_clips_sum_to_what_sed_eval_finds_in_all():
    sed_eval, dcase_util = events._libraries()
    rng = np.random.default_rng(0)
    names, total = ["a", "b", "c"], np.zeros((3, 3))
    evaluator = sed_eval.sound_event.SegmentBasedMetrics(names, time_resolution=0.5)

    def drawn():
        starts = rng.uniform(0, 3, 3)
        return [
            {"label": name, "onset_s": float(at), "offset_s": float(at + rng.uniform(0.2, 1))}
            for name, at in zip(names, starts, strict=True)
            if rng.random() < 0.7
        ]

    for _ in range(6):
        truth, said = drawn(), drawn()
        total += events.segment_counts(truth, said, names, 4.0, 0.5)
        lists = [
            dcase_util.containers.MetaDataContainer(
                [{"event_label": e["label"], "onset": e["onset_s"], "offset": e["offset_s"]} for e in found]
            )
            for found in (truth, said)
        ]
        evaluator.evaluate(*lists, evaluated_length_seconds=4.0)
    assert events.f1(total) == pytest.approx(evaluator.results_class_wise_average_metrics()["f_measure"]["f_measure"])
    assert events.f1(total, "micro") == pytest.approx(evaluator.results_overall_metrics()["f_measure"]["f_measure"])


# -- verification and measures ----------------------------------------------------------------------------------------


def test_equal_error_rate():
    """At the threshold 0.5 one of four impostors is let in and one of four speakers turned away."""
    found = np.array([0.9, 0.8, 0.7, 0.3, 0.6, 0.2, 0.1, 0.0])
    same = np.array([True] * 4 + [False] * 4)
    assert equal_error_rate(found, same) == pytest.approx(0.25)
    assert equal_error_rate(-found, same) == pytest.approx(0.75)
    assert equal_error_rate(np.zeros(8), same) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="of different ones"):
        equal_error_rate(found, np.ones(8, bool))


def pairs(held):
    return {tuple(sorted(pair)) for pair in zip(held.first.tolist(), held.second.tolist(), strict=True)}


def test_trials_of_few_clips_are_all_pairs_and_none_of_a_clip_with_itself():
    held = trials("abaab")
    assert pairs(held) == set(itertools.combinations(range(5), 2))
    assert [{"abaab"[a], "abaab"[b]} for a, b in zip(held.first, held.second, strict=True)] == (
        [{"a"}] * 3 + [{"b"}] + [{"a", "b"}] * 6
    )
    assert held.same.tolist() == [True] * 4 + [False] * 6
    assert trials("").of == 0


def test_the_cosine_of_a_pair():
    means = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    means[7] = 0
    held = trials([*"ab" * 50])
    expected = [
        means[a] @ means[b] / max(np.linalg.norm(means[a]) * np.linalg.norm(means[b]), 1e-9)
        for a, b in zip(*held[:2], strict=True)
    ]
    np.testing.assert_allclose(cosines(means, held.first, held.second), expected, atol=1e-6)  # of more than 4096 pairs


def test_trials_of_many_clips_are_drawn_half_of_each_kind_and_each_pair_alike():
    """12 clips of a, 6 of b, 2 of c: 82 pairs of one speaker, 108 of two. 20 of each, drawn 2000 times."""
    speakers = "aaaaaabbbbbbaaaaaacc"
    counts = Counter()
    for seed in range(2000):
        held = trials(speakers, most=40, seed=seed)
        assert (held.same.sum(), len(held.same), len(pairs(held)), held.of) == (20, 40, 40, 190)
        counts.update(pairs(held))
    same = {pair: count for pair, count in counts.items() if speakers[pair[0]] == speakers[pair[1]]}
    for kind, of in ((same, 82), ({pair: counts[pair] for pair in counts.keys() - same.keys()}, 108)):
        assert len(kind) == of
        expected = 2000 * 20 / of
        assert max(abs(count - expected) for count in kind.values()) < 5 * np.sqrt(expected)
    assert trials(speakers, 40, seed=3).first.tolist() == trials(speakers, 40, seed=3).first.tolist()


def test_of_a_hundred_thousand_clips_no_matrix_is_made():
    """VoxCeleb1 whole: 1e10 pairs, of which a matrix would take 90 GB."""
    held = trials(np.arange(153_516) % 1251)
    assert held.of == 153_516 * 153_515 // 2
    assert (held.same.sum(), len(pairs(held))) == (MOST_PAIRS // 2, MOST_PAIRS)
    assert np.array_equal(held.first % 1251 == held.second % 1251, held.same)


def test_drawn_pairs_have_the_error_rate_of_all():
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(40), 30)
    means = rng.standard_normal((40, 16))[speakers] + 1.5 * rng.standard_normal((1200, 16))
    rates = []
    for most in (10**6, 100_000):
        held = trials(speakers, most)
        rates.append(equal_error_rate(cosines(means, held.first, held.second), held.same))
    assert rates[0] == pytest.approx(rates[1], abs=0.006)  # 4 standard errors of 50 000 of each kind


def test_measures_by_hand():
    """Two seeds: the first is right on all, the second on two of four."""
    said = np.array([[[9, 0], [9, 0], [0, 9], [0, 9]], [[9, 0], [0, 9], [0, 9], [9, 0]]], np.float32)
    items = [(label, said[:, at]) for at, label in enumerate([0, 0, 1, 1])]
    assert [measures.correct(item) for item in items] == [1, 0.5, 1, 0.5]
    assert measures.macro_f1(items) == pytest.approx((1 + 0.5) / 2)
    ranked = np.array([[[3.0], [2], [1], [0]]])
    labels = [[1.0], [0], [1], [0]]
    pairs = [(np.array(label), ranked[:, at]) for at, label in enumerate(labels)]
    assert measures.mean_ap(pairs) == pytest.approx((1 + 2 / 3) / 2)  # precision at the first and at the third
    assert measures.roc_auc(pairs) == pytest.approx(3 / 4)
    numbers = [(np.array([float(y)]), np.array([[x]])) for y, x in [(1, 1.5), (2, 2), (3, 2.5)]]
    assert measures.r2(numbers) == pytest.approx(1 - 0.5 / 2)


def test_a_fold_is_three_disjoint_parts():
    fold = Fold(np.array([0]), np.array([1]), np.array([2]))
    assert fold.poorer().valid.size == 0
