"""Distances of distributions: by closed form, by hand, by peer, and what so many embeddings do to them."""

import numpy as np
import pytest
import scipy.linalg
import torch

from earmark.metrics import METRICS, MetricError, distribution
from earmark.metrics.distribution import frechet_distance, kernel_distance

BOTH = pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])


def gaussian(count, dimensions=8, seed=0):
    """float64 [count, dimensions], unit."""
    return np.random.default_rng(seed).standard_normal((count, dimensions))


def exact(count, mean, covariance, seed=0):
    """[count, D] whose sample mean and covariance (over N - 1) are these to the last digits."""
    white = gaussian(count, len(mean), seed)
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    return white @ np.linalg.cholesky(np.asarray(covariance)).T + mean


def textbook_frechet(reference, estimate):
    """The formula as it is written, with scipy's square root of a matrix."""
    first, second = np.cov(reference.T), np.cov(estimate.T)
    root = scipy.linalg.sqrtm(first @ second)
    return np.square(reference.mean(0) - estimate.mean(0)).sum() + np.trace(first + second - 2 * root.real)


def textbook_kernel(reference, estimate):
    """kadtk, written out as sums over pairs."""
    distances = [np.linalg.norm(a - b) for i, a in enumerate(reference) for b in reference[:i]]
    width = float(torch.median(torch.tensor(distances)))

    def mean(first, second, same):
        kernel = [
            np.exp(-np.square(a - b).sum() / (2 * width**2))
            for i, a in enumerate(first) for j, b in enumerate(second) if not (same and i == j)
        ]  # fmt: skip
        return np.mean(kernel)

    within = mean(reference, reference, True) + mean(estimate, estimate, True)
    return 100 * (within - 2 * mean(reference, estimate, False))


# --- Fréchet ---------------------------------------------------------------------------------------------


def test_frechet_of_gaussians_in_closed_form():
    # means apart by (3, 4): 25. Commuting covariances diag(1, 4), diag(9, 16): (3 - 1)^2 + (4 - 2)^2 = 8
    first, second = exact(50, [0, 0], np.diag([1.0, 4.0])), exact(70, [3, 4], np.diag([9.0, 16.0]), seed=1)
    assert frechet_distance(first, second) == pytest.approx(25 + 8)


def test_frechet_of_covariances_that_do_not_commute():
    # S1 = I, S2 = [[2, 1], [1, 2]] has the eigenvalues 1 and 3: tr(I + S2 - 2 S2^.5) = 2 + 4 - 2 (1 + sqrt 3)
    first, second = exact(50, [0, 0], np.eye(2)), exact(50, [0, 0], [[2, 1], [1, 2]], seed=1)
    assert frechet_distance(first, second) == pytest.approx(4 - 2 * np.sqrt(3))
    turned = np.array([[2.0, 1.0], [1.0, 1.0]])  # S1 = diag(2, 1): the trace of the root by scipy
    third = exact(50, [0, 0], np.diag([2.0, 1.0]))
    root = np.trace(scipy.linalg.sqrtm(np.diag([2.0, 1.0]) @ turned))
    assert frechet_distance(third, exact(50, [0, 0], turned, seed=2)) == pytest.approx(3 + 3 - 2 * root)


@pytest.mark.parametrize(("count", "dimensions"), [(200, 4), (200, 64), (1000, 128)])
def test_frechet_agrees_with_the_matrix_square_root(count, dimensions):
    reference, mix = gaussian(count, dimensions), gaussian(dimensions, dimensions, 2) / np.sqrt(dimensions)
    estimate = gaussian(count + 30, dimensions, 1) @ mix + 0.1
    assert frechet_distance(reference, estimate) == pytest.approx(textbook_frechet(reference, estimate), rel=1e-8)


def test_frechet_keeps_its_digits_where_the_square_root_of_a_matrix_does_not():
    """A millionth of change in each embedding: the distance is 1e-12 of the variance, and known to many digits."""
    reference = gaussian(500, 16)
    # by hand: every embedding 1 + 1e-6 times as large: |m|^2 1e-12 + tr(S) 1e-12
    expected = 1e-12 * (np.square(reference.mean(0)).sum() + np.trace(np.cov(reference.T)))
    assert frechet_distance(reference, reference * (1 + 1e-6)) == pytest.approx(expected, rel=1e-6)


def test_frechet_with_fewer_embeddings_than_dimensions_is_real_and_known():
    """Five embeddings in 300 dimensions: both covariances are singular. One is the other turned to new axes, so that
    S1 S2 = 0: what is left is tr(S1) + tr(S2)."""
    few = gaussian(5, 10)
    first, second = np.zeros((5, 300)), np.zeros((5, 300))
    first[:, :10], second[:, 50:60] = few - few.mean(0), few - few.mean(0)
    assert frechet_distance(first, second) == pytest.approx(2 * np.trace(np.cov(few.T)))
    assert frechet_distance(first, first[::-1]) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(first[:2], second) > 0


def test_frechet_is_zero_for_equal_sets_and_never_negative():
    reference = gaussian(100)
    assert METRICS["fad"].best == 0
    assert frechet_distance(reference, reference) == 0
    assert frechet_distance(reference, reference.copy()) == 0
    assert 0 <= frechet_distance(reference, reference[::-1]) < 1e-20
    assert frechet_distance(reference, reference + 1e-9 * gaussian(100, seed=1)) > 0


def test_frechet_is_symmetric_and_a_squared_distance():
    first, second = gaussian(100), 2 * gaussian(150, seed=1) + 1
    assert METRICS["fad"].symmetric
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-12)
    assert frechet_distance(3 * first, 3 * second) == pytest.approx(9 * frechet_distance(first, second))
    assert frechet_distance(first + 5, second + 5) == pytest.approx(frechet_distance(first, second))
    turn = np.linalg.qr(gaussian(8, seed=3))[0]
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(frechet_distance(first, second))


@pytest.mark.parametrize("dimensions", [4, 16])
def test_frechet_of_few_embeddings_is_too_large_as_the_docstring_says(dimensions):
    """Two samples of one distribution: (2 D + D (D + 1) / 2) / N, so a tenth for ten times as many."""
    for count in (200, 2000):
        found = np.mean([
            frechet_distance(gaussian(count, dimensions, seed), gaussian(count, dimensions, 1000 + seed))
            for seed in range(40)
        ])  # fmt: skip
        expected = (2 * dimensions + dimensions * (dimensions + 1) / 2) / count
        assert found == pytest.approx(expected, rel=0.12)


# --- kernel ----------------------------------------------------------------------------------------------


def test_kernel_by_hand():
    """{0, 1} against {0, 2}: the bandwidth is 1; 100 (e^-.5 + e^-2 - 2 (1 + e^-2 + 2 e^-.5) / 4) = 50 (e^-2 - 1).

    The other way round it is 2: 100 (e^-(4/8) + e^-(1/8) - (1 + e^-(4/8) + 2 e^-(1/8)) / 2) = 50 (e^-.5 - 1).
    """
    first, second = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    assert kernel_distance(first, second) == pytest.approx(50 * (np.exp(-2) - 1))
    assert kernel_distance(second, first) == pytest.approx(50 * (np.exp(-0.5) - 1))
    assert not METRICS["kad"].symmetric


@pytest.mark.parametrize(("count", "shift"), [(20, 0.0), (31, 0.5), (40, 3.0)])
def test_kernel_agrees_with_the_sums_over_pairs(count, shift):
    reference, estimate = gaussian(count, 6), gaussian(count + 7, 6, 1) + shift
    assert kernel_distance(reference, estimate) == pytest.approx(textbook_kernel(reference, estimate), rel=1e-9)


def test_kernel_of_gaussians_in_closed_form():
    """One dimension, unit variance, means apart by m; E k(x, y) = s / sqrt(s^2 + 2) exp(-m^2 / (2 (s^2 + 2))).

    s is the median of |x - y|, x - y having variance 2: .6745 sqrt 2 = .9539.
    """
    reference, estimate = gaussian(3000, 1), gaussian(3000, 1, 1) + 1.0
    width = 0.67449 * np.sqrt(2)
    expected = 200 * width / np.sqrt(width**2 + 2) * (1 - np.exp(-1 / (2 * (width**2 + 2))))
    assert kernel_distance(reference, estimate) == pytest.approx(expected, rel=0.08)


def test_kernel_is_unbiased():
    """Samples of one distribution give 0 on average, however few: half of them below it."""
    for count in (20, 200):
        found = [kernel_distance(gaussian(count, 8, seed), gaussian(count, 8, 1000 + seed)) for seed in range(200)]
        assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)
        assert 60 < np.sum(np.array(found) < 0) < 160  # skewed: the median lies below the mean


def test_kernel_of_a_set_against_itself_is_negative_as_the_docstring_says():
    """-(200 / N) (1 - k): of its N^2 pairs across, N are of an embedding with itself."""
    reference = gaussian(50)
    assert METRICS["kad"].best is None
    squares = np.square(reference[:, None] - reference).sum(-1)
    off = squares[~np.eye(50, dtype=bool)]
    width = np.sort(off)[::2][(50 * 49 // 2 - 1) // 2]
    expected = -200 / 50 * (1 - np.exp(-off / (2 * width)).mean())
    assert expected < 0
    assert kernel_distance(reference, reference) == pytest.approx(expected)
    assert kernel_distance(reference, reference.copy()) == kernel_distance(reference, reference)


def test_kernel_does_not_see_scale_shift_and_rotation():
    first, second = gaussian(60), gaussian(80, seed=1) + 0.5
    value, turn = kernel_distance(first, second), np.linalg.qr(gaussian(8, seed=3))[0]
    for change in (lambda x: 1e-6 * x, lambda x: 1e6 * x, lambda x: x + 1e3, lambda x: x @ turn):
        assert kernel_distance(change(first), change(second)) == pytest.approx(value, rel=1e-6)


def test_kernel_of_clusters_far_apart_is_at_most_200():
    value = kernel_distance(np.repeat(np.eye(2), 2, 0), 1e6 + gaussian(4, 2))
    assert value < 200
    close = 1e-6 * gaussian(30, 2)
    assert kernel_distance(np.concatenate([close, close + 1, close + 3]), close + 100) > 100


def test_tiles_and_the_sample_of_the_bandwidth_change_next_to_nothing(monkeypatch):
    reference, estimate = gaussian(700, 4), gaussian(500, 4, 1) + 0.3
    value = kernel_distance(reference, estimate)
    monkeypatch.setattr(distribution, "TILE", 64)
    assert kernel_distance(reference, estimate) == pytest.approx(value, rel=1e-12)
    monkeypatch.setattr(distribution, "BANDWIDTH_SAMPLE", 350)
    assert kernel_distance(reference, estimate) == pytest.approx(value, rel=0.05)


def test_a_reference_of_equal_embeddings_has_no_kernel():
    for level in (0.0, 1e3):
        reference = np.full((9, 4), level)
        reference[0] += 1
        with pytest.raises(MetricError, match="half of the distances between reference embeddings are 0"):
            kernel_distance(reference, gaussian(9, 4))


# --- both ------------------------------------------------------------------------------------------------


@BOTH
def test_it_grows_as_the_estimate_moves_away(distance):
    reference, other = gaussian(300), gaussian(300, seed=1)
    moved = [distance(reference, other + shift) for shift in (0, 0.25, 0.5, 1, 2, 4)]
    assert (np.diff(moved) > 0).all()
    noisy = [distance(reference, reference + level * other) for level in (0, 0.25, 0.5, 1, 2, 4)]
    assert (np.diff(noisy) > 0).all()
    narrowed = [distance(reference, gain * reference) for gain in (1, 0.8, 0.5, 0.2, 0.05)]
    assert (np.diff(narrowed) > 0).all()


@BOTH
def test_the_order_of_the_embeddings_is_of_no_consequence(distance):
    reference, estimate = gaussian(50), gaussian(60, seed=1) + 1
    mixed = np.random.default_rng(5).permutation(estimate)
    assert distance(reference, mixed) == pytest.approx(distance(reference, estimate), rel=1e-10)


@BOTH
def test_torch_numpy_and_precision(distance):
    reference, estimate = gaussian(50).astype(np.float32), (gaussian(60, seed=1) + 1).astype(np.float32)
    value = distance(reference, estimate)
    assert isinstance(value, float)
    assert distance(torch.from_numpy(reference), torch.from_numpy(estimate)) == value
    assert distance(reference.astype(np.float64), estimate.astype(np.float64)) == value
    assert distance(reference, estimate) == value


@BOTH
def test_nothing_is_written_to_the_input(distance):
    reference, estimate = gaussian(20), gaussian(20, seed=1)
    kept = reference.copy(), estimate.copy()
    distance(reference, estimate)
    assert (reference == kept[0]).all()
    assert (estimate == kept[1]).all()


@BOTH
@pytest.mark.parametrize(
    ("reference", "estimate", "error", "message"),
    [
        (gaussian(1), gaussian(9), MetricError, "reference has 1 embeddings; a distribution needs at least 2"),
        (gaussian(9), gaussian(0), MetricError, "estimate has 0 embeddings"),
        (gaussian(9), gaussian(9) * np.nan, MetricError, "estimate holds NaN or infinite embeddings"),
        (gaussian(9), gaussian(9, 7), ValueError, r"not \(9, 8\) and \(9, 7\)"),
        (gaussian(9)[0], gaussian(9), ValueError, r"expected embeddings \[N, D\]"),
    ],
)
def test_bad_input_says_why(distance, reference, estimate, error, message):
    with pytest.raises(error, match=message):
        distance(reference, estimate)


@pytest.mark.parametrize("name", ["fad", "kad"])
def test_its_row_names_it(name):
    row = METRICS[name]
    assert row.kind == "embedding"
    assert row.load() is {"fad": frechet_distance, "kad": kernel_distance}[name]
    assert not row.higher_is_better
