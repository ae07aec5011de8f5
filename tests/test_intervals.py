"""Intervals: of a mean by bootstrap, of a statistic of all clips at once by jackknife."""

import math

import numpy as np
import pytest
from scipy import stats

from earmark.reports.intervals import jackknife_interval, mean_with_interval


def named(values):
    """Clip id -> value, and each clip a group of its own."""
    items = {f"{i:04}": value for i, value in enumerate(values)}
    return items, {clip: clip for clip in items}


# --- the mean --------------------------------------------------------------------------------------------


def test_interval_covers_the_truth_about_95_times_in_100():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        sample = {str(i): float(v) for i, v in enumerate(rng.normal(3.0, 1.0, 40))}
        _, low, high, _ = mean_with_interval(sample, dict(zip(sample, sample, strict=True)))
        covered += low <= 3.0 <= high
    assert 180 <= covered <= 198  # 200 draws at .95


@pytest.mark.parametrize(("speakers", "plain"), [(5, 0.83), (10, 0.89)])
def test_interval_of_few_speakers_covers_the_truth_too(speakers, plain):
    """As many as a sampler has. Between the 2.5 % and 97.5 % points of the resamples it does `plain` of the time."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        values = {f"{s}-{i}": v for s in range(speakers) for v in [float(rng.normal(3.0, 1.0))] for i in range(2)}
        _, low, high, method = mean_with_interval(values, {clip: clip[:-2] for clip in values})
        covered += low <= 3.0 <= high
    assert covered / 300 > plain + 0.03
    assert covered / 300 < 0.98
    assert method == f"expanded percentile bootstrap over {speakers} groups of clips, 95 %"


def test_clips_of_one_speaker_are_not_independent():
    """Four speakers, ten equal clips each: forty clips know no more than four."""
    values = {f"{s}-{i}": float(s) for s in range(4) for i in range(10)}
    alone = mean_with_interval(values, {clip: clip for clip in values})
    clustered = mean_with_interval(values, {clip: clip[0] for clip in values})
    assert alone[0] == clustered[0] == 1.5
    assert clustered[2] - clustered[1] > 2 * (alone[2] - alone[1])
    assert "4 groups" in clustered[3]


def test_groups_of_unequal_size_keep_the_mean_over_clips():
    # (1 + 1 + 1 + 5) / 4 = 2, though the groups' means are 1 and 5
    values = {"a1": 1.0, "a2": 1.0, "a3": 1.0, "b1": 5.0}
    assert mean_with_interval(values, {clip: clip[0] for clip in values})[0] == 2.0


def test_one_group_has_no_interval():
    mean, low, _, method = mean_with_interval({"a": 1.0, "b": 2.0}, {"a": "x", "b": "x"})
    assert mean == 1.5
    assert math.isnan(low)
    assert method == "none: one group of clips"


def test_no_clips_have_no_mean():
    assert math.isnan(mean_with_interval({}, {})[0])
    assert math.isnan(mean_with_interval({"a": 1.0}, {"a": "a"}, weights={"a": 0.0})[0])


def test_an_infinite_mean_stays_infinite():
    assert mean_with_interval({"a": math.inf, "b": 3.0}, {"a": "a", "b": "b"})[0] == math.inf


def test_equal_weights_change_nothing():
    values, groups = named(np.random.default_rng(0).normal(size=30))
    plain = mean_with_interval(values, groups)
    weighted = mean_with_interval(values, groups, weights=dict.fromkeys(values, 4.0))
    assert weighted == (pytest.approx(plain[0]), pytest.approx(plain[1]), pytest.approx(plain[2]), plain[3])


def test_a_corpus_rate_is_a_weighted_mean():
    # 1 error in 10 words, 3 in 5, 0 in 25: 4 / 40 = 0.1, though the mean of the rates is 0.233
    values, words = {"a": 0.1, "b": 0.6, "c": 0.0}, {"a": 10, "b": 5, "c": 25}
    mean, low, high, _ = mean_with_interval(values, {clip: clip for clip in values}, weights=words)
    assert mean == pytest.approx(0.1)
    assert 0 <= low < mean < high <= 0.6  # the extremes are the rates of one clip drawn three times


def test_a_weight_counts_as_so_many_equal_clips_of_one_group():
    values, weights = {"a": 1.0, "b": 4.0, "c": 2.0}, {"a": 3.0, "b": 1.0, "c": 2.0}
    copies = {f"{clip}{i}": values[clip] for clip in values for i in range(int(weights[clip]))}
    weighted = mean_with_interval(values, {clip: clip for clip in values}, weights=weights)
    assert weighted[:3] == pytest.approx(mean_with_interval(copies, {clip: clip[0] for clip in copies})[:3])


def test_a_clip_of_no_weight_is_not_there():
    values, groups = {"a": 1.0, "b": 2.0, "c": 3.0, "d": math.inf}, dict(zip("abcd", "abcd", strict=True))
    without = mean_with_interval({clip: values[clip] for clip in "abc"}, groups, weights=dict.fromkeys("abc", 1.0))
    assert mean_with_interval(values, groups, weights={"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0}) == without


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="weights must be finite and not negative"):
        mean_with_interval({"a": 1.0, "b": 2.0}, {"a": "a", "b": "b"}, weights={"a": 1.0, "b": weight})


# --- the jackknife -----------------------------------------------------------------------------------------


def standard_error(interval, blocks):
    """The standard error that an interval was made of."""
    value, low, high, _ = interval
    assert high - value == pytest.approx(value - low)
    return (high - value) / stats.t.ppf(0.975, blocks - 1)


def test_jackknife_of_the_mean_has_the_textbook_standard_error():
    """Leaving out one clip at a time gives s / sqrt(n) exactly, and so Student's interval."""
    values, groups = named(np.random.default_rng(0).normal(size=15))
    found = jackknife_interval(np.mean, values, groups, blocks=20)
    sample = [*values.values()]
    assert standard_error(found, 15) == pytest.approx(stats.sem(sample))
    assert found[1:3] == pytest.approx(stats.t.interval(0.95, 14, np.mean(sample), stats.sem(sample)))
    assert found[3] == "delete-a-block jackknife, 15 blocks of clips, Student t, 95 %"


def test_equal_blocks_of_the_mean_have_the_standard_error_of_their_means():
    values = {f"{block}-{i}": 3.0 * block + i for block in range(5) for i in range(4)}
    found = jackknife_interval(np.mean, values, {clip: clip[0] for clip in values})
    means = [3.0 * block + 1.5 for block in range(5)]
    assert standard_error(found, 5) == pytest.approx(stats.sem(means))
    assert "5 blocks of 5 groups of clips" in found[3]


def test_unequal_blocks_by_hand():
    """Busing et al. 1999, eq. 8. Groups {0, 2}, {3}, {7}: n = 4, mean 3, n_b = 2, 4, 4; without each: 5, 3, 5/3.

    Pseudo-values n_b 3 - (n_b - 1) s_b: 6 - 5 = 1, 12 - 9 = 3, 12 - 5 = 7: the groups' means.
    Centre 3 * 3 - (1/2 * 5 + 3/4 * 3 + 3/4 * 5/3) = 9 - 6 = 3; variance ((1-3)^2 / 1 + 0 + (7-3)^2 / 3) / 3 = 28 / 9.
    """
    values = {"a": 0.0, "b": 2.0, "c": 3.0, "d": 7.0}
    found = jackknife_interval(np.mean, values, {"a": "x", "b": "x", "c": "y", "d": "z"})
    assert found[0] == 3
    assert standard_error(found, 3) == pytest.approx(math.sqrt(28 / 9))


def test_whole_groups_are_left_out_and_no_more_than_the_blocks():
    left_out = []

    def spy(part):
        left_out.append(len(part))
        return float(np.mean(part))

    values = {f"{group:03}-{i}": float(group) for group in range(60) for i in range(1 + group % 3)}
    found = jackknife_interval(spy, values, {clip: clip[:3] for clip in values}, blocks=20)
    assert len(left_out) == 21
    assert left_out[0] == len(values) == 120
    assert set(left_out[1:]) == {114}  # twenty blocks of 3 + 2 + 1
    assert "20 blocks of 60 groups of clips" in found[3]


def test_the_order_of_the_clips_is_of_no_consequence():
    values, groups = named(np.random.default_rng(0).normal(size=50))
    backwards = dict(reversed(values.items()))
    assert jackknife_interval(np.var, values, groups)[:3] == pytest.approx(
        jackknife_interval(np.var, backwards, groups)[:3]
    )


@pytest.mark.parametrize(
    ("statistic", "truth", "draw"),
    [
        (np.mean, 3.0, lambda rng: rng.normal(3, 1, 60)),
        (lambda part: math.log(np.mean(part)), 0.0, lambda rng: rng.exponential(1.0, 60)),
        (lambda part: np.var(part, ddof=1), 1 / 12, lambda rng: rng.uniform(size=60)),
    ],
    ids=["mean", "log of the mean", "variance"],
)
def test_jackknife_covers_the_truth_about_95_times_in_100(statistic, truth, draw):
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        _, low, high, _ = jackknife_interval(statistic, *named(draw(rng)))
        covered += low <= truth <= high
    assert 366 <= covered <= 394  # 400 draws at .95: 380, deviation 4.4; three of them


def test_jackknife_of_speakers_covers_where_that_of_clips_does_not():
    """Twenty-five speakers of ten clips whose speakers differ as much as their clips."""
    rng, covered = np.random.default_rng(0), {"speakers": 0, "clips": 0}
    for _ in range(200):
        clips = rng.normal(size=(25, 1)) + rng.normal(size=(25, 10))
        items = {f"{s:02}-{i}": float(clips[s, i]) for s in range(25) for i in range(10)}
        for name, of in (("speakers", lambda clip: clip[:2]), ("clips", lambda clip: clip)):
            _, low, high, _ = jackknife_interval(np.mean, items, {clip: of(clip) for clip in items})
            covered[name] += low <= 0 <= high
    assert 181 <= covered["speakers"] <= 199
    assert covered["clips"] < 150


@pytest.mark.parametrize(("count", "method"), [(1, "none: 1 group of clips"), (2, "none: 2 groups of clips")])
def test_fewer_than_three_groups_have_no_interval(count, method):
    values, groups = named([1.0, 2.0, 4.0][:count])
    value, low, high, found = jackknife_interval(np.mean, values, groups)
    assert value == np.mean([1.0, 2.0][:count])
    assert math.isnan(low)
    assert math.isnan(high)
    assert found == method


def test_no_clips_have_no_statistic():
    value, *_, method = jackknife_interval(np.mean, {}, {})
    assert math.isnan(value)
    assert method == "no clips"


def test_a_statistic_that_does_not_vary_has_an_interval_of_no_width():
    assert jackknife_interval(lambda part: 7.0, *named(range(9)))[:3] == (7.0, 7.0, 7.0)


def test_a_statistic_that_is_not_finite_has_no_interval():
    value, low, high, _ = jackknife_interval(lambda part: math.inf, *named(range(9)))
    assert value == low == high == math.inf
    assert math.isnan(jackknife_interval(lambda part: math.nan, *named(range(9)))[1])


def test_what_the_statistic_raises_is_raised():
    def picky(part):
        if len(part) < 9:
            raise ValueError("too few")
        return 0.0

    with pytest.raises(ValueError, match="too few"):
        jackknife_interval(picky, *named(range(9)))
