"""Tokens compared and counted: answers by hand, controls with a known answer, and scikit-learn as the peer."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from earmark.metrics import MetricError, codebook, information, tokens


def drawn(*shape, size=1024, seed=0):
    return np.random.default_rng(seed).integers(size, size=shape)


def partly(x, share, size, seed=1):
    """Tokens of which a share is kept, the others drawn anew."""
    generator = np.random.default_rng(seed)
    return np.where(generator.random(x.shape) < share, x, generator.integers(size, size=x.shape))


# -- same IDs ---------------------------------------------------------------------------------------------------------


def test_what_is_no_token_on_both_sides_is_not_compared_and_on_one_it_has_changed():
    before, after = np.array([[1, -1, 3, -1]]), np.array([[1, -1, -1, 4]])
    assert tokens.same_id_ratio(before, after) == pytest.approx(1 / 3)  # equal, not compared, changed, changed


def test_the_frames_that_both_have_are_compared():
    assert tokens.same_id_ratio(np.array([[1, 2, 3, 4, 5]]), np.array([[1, 2, 9]])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_lag_is_by_how_much_what_came_after_is_late(lag):
    codes = drawn(4, 50)
    late = codes[:, -lag:] if lag < 0 else np.pad(codes, ((0, 0), (lag, 0)))
    assert tokens.same_id_ratio(codes, late, lag=lag) == 1
    assert tokens.same_id_ratio(codes, late, lag=lag + 1) < 0.1


def test_codebooks_weigh_alike_whatever_their_rate():
    """A codebook with a token every fourth frame counts as much as one with a token a frame."""
    before = np.array([[5, -1, -1, -1], [1, 2, 3, 4]])
    after = np.array([[6, -1, -1, -1], [1, 2, 3, 4]])
    assert tokens.same_id_ratio(before, after) == 0.5
    assert tokens.same_id_ratio(before, after, codebook=1) == 1


def test_no_token_is_no_answer():
    nothing = np.full((2, 5), -1)
    for metric in (tokens.same_id_ratio, tokens.token_edit_distance, lambda x, y: tokens.same_id_kappa([(x, y)])):
        with pytest.raises(MetricError, match="no token"):
            metric(nothing, nothing)


def test_kappa_is_that_of_scikit_learn():
    x = drawn(1, 500, size=6)
    y = partly(x, 0.4, 6)
    split = [(x[:, :200], y[:, :200]), (x[:, 200:], y[:, 200:])]  # two clips, counted together
    assert tokens.same_id_kappa(split) == pytest.approx(cohen_kappa_score(x[0], y[0]), abs=1e-12)


def test_a_constant_code_is_perfectly_stable_and_has_no_kappa():
    constant = np.zeros((8, 100), int)
    assert tokens.same_id_ratio(constant, constant) == 1
    with pytest.raises(MetricError, match="one and the same code"):
        tokens.same_id_kappa([(constant, constant)])


def test_a_codebook_that_collapsed_adds_nothing_to_kappa():
    x = drawn(1, 400, size=8)
    y = partly(x, 0.5, 8)
    with_dead = [(np.vstack([x, 0 * x]), np.vstack([y, 0 * y]))]
    assert tokens.same_id_kappa(with_dead) == pytest.approx(tokens.same_id_kappa([(x, y)]), abs=1e-12)
    assert tokens.same_id_ratio(*with_dead[0]) > tokens.same_id_ratio(x, y) + 0.1


def test_random_codes_have_kappa_zero():
    pairs = [(drawn(2, 5000, size=4, seed=i), drawn(2, 5000, size=4, seed=i + 9)) for i in range(2)]
    assert tokens.same_id_ratio(*pairs[0]) == pytest.approx(0.25, abs=0.02)  # one in four by chance
    assert tokens.same_id_kappa(pairs) == pytest.approx(0, abs=0.02)


def test_edit_distance_forgives_a_shift_and_leaves_out_what_is_no_token():
    codes = drawn(3, 100)
    late = np.pad(codes, ((0, 0), (2, 0)), constant_values=-1)[:, :100]  # two fewer at the end
    assert tokens.token_edit_distance(codes, late) == pytest.approx(0.02)
    assert tokens.same_id_ratio(codes, late) < 0.1
    assert tokens.token_edit_distance(codes, codes) == 0
    assert tokens.token_edit_distance(codes, codes + 2000) == 1


def test_abx_by_hand():
    """Speakers s and t read a and b. X = t's a lies 2 from s's a and 1 from s's b: an error; a tie is half of one."""
    apart = np.array([[0, 5, 2, 9], [5, 0, 1, 3], [2, 1, 0, 5], [9, 3, 5, 0]], float)
    errors = tokens.abx_errors(apart, ["a", "b", "a", "b"], ["s", "s", "t", "t"])
    assert errors.tolist() == [0, 1, 1, 0]  # X: s a (2 < 9), s b (3 > 1), t a (2 > 1), t b (3 < 9)
    assert tokens.abx_errors(np.ones((4, 4)), ["a", "b", "a", "b"], ["s", "s", "t", "t"]).tolist() == [0.5] * 4


def test_abx_of_chance_is_a_half():
    texts, speakers = zip(*[(text, speaker) for text in range(8) for speaker in range(8)], strict=True)
    apart = np.random.default_rng(0).random((64, 64))
    assert np.mean(tokens.abx_errors(apart + apart.T, texts, speakers)) == pytest.approx(0.5, abs=0.03)


# -- information ------------------------------------------------------------------------------------------------------


def test_what_is_only_renamed_keeps_all_information():
    x = drawn(8000, size=64)
    assert information.shared_information(x, np.random.default_rng(0).permutation(64)[x]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("size", [16, 256])
def test_independent_codes_share_nothing(size):
    """Counted alone, 2400 tokens of 256 codes would seem to share more than half of their entropy."""
    found = [information.shared_information(drawn(2400, size=size, seed=i), drawn(2400, size=size, seed=i + 50), 1.0)
             for i in range(10)]  # fmt: skip
    assert np.mean(found) == pytest.approx(0, abs=0.003)
    x, y = drawn(2400, size=256), drawn(2400, size=256, seed=50)
    assert information.mutual_information(x, y) > 0.5 * information.entropy(x)


def test_mutual_information_and_its_chance_are_those_of_scikit_learn():
    x = drawn(3000, size=24)
    y = partly(x, 0.5, 24)
    table, nats = contingency_matrix(x, y), np.log(2)
    assert information.mutual_information(x, y) == pytest.approx(mutual_info_score(x, y) / nats, abs=1e-9)
    chance = expected_mutual_information(table.astype(np.int64), len(x)) / nats
    own = information.entropy(x)
    exact = (information.mutual_information(x, y) - chance) / (own - chance)
    assert information.shared_information(x, y) == pytest.approx(exact, abs=0.005)


def test_a_channel_of_known_information():
    """Half of 64 equal codes kept, the others drawn anew: I = 6 - H(Y|X) bits, with P(same) = .5 + .5/64."""
    same, other = 0.5 + 0.5 / 64, 0.5 / 64
    truth = (6 + same * np.log2(same) + 63 * other * np.log2(other)) / 6
    x = drawn(20000, size=64)
    assert information.shared_information(x, partly(x, 0.5, 64)) == pytest.approx(truth, abs=0.02)


def test_too_few_tokens_are_said_to_be():
    with pytest.raises(MetricError, match=r"not enough tokens: 600, .* 60% is allowed"):
        information.shared_information(drawn(600), drawn(600, seed=1))
    with pytest.raises(MetricError, match="not enough tokens: there is none"):
        information.shared_information(np.full(3, -1), np.zeros(3, int))
    with pytest.raises(MetricError, match="holds no information"):
        information.shared_information(np.zeros(600, int), drawn(600))


def test_clips_are_counted_together_and_no_token_is_left_out():
    x = drawn(1, 4000, size=8)
    y = partly(x, 0.7, 8)
    gaps = np.where(np.arange(4000) % 4 == 0, -1, y)
    whole = information.information_kept([(x[:, :1000], gaps[:, :1000]), (x[:, 1000:], gaps[:, 1000:])], 0)
    there = gaps[0] >= 0
    assert whole == information.shared_information(x[0, there], y[0, there])


# -- codebooks --------------------------------------------------------------------------------------------------------


def test_codes_that_are_never_used_are_dead():
    clips = [np.array([[0, 1, -1], [7, 7, 7]]), np.array([[1, 2], [7, 6]])]
    assert codebook.usage(clips, 0, 4).tolist() == [1, 2, 1, 0]
    assert (codebook.utilisation(clips, 0, 4), codebook.dead_codes(clips, 0, 4)) == (0.75, 1)
    assert (codebook.utilisation(clips, 1, 8), codebook.dead_codes(clips, 1, 8)) == (0.25, 6)


def test_entropy_is_one_where_codes_are_used_alike_and_zero_where_one_is():
    assert codebook.relative_entropy([drawn(1, 50000, size=256)], 0, 256) == pytest.approx(1, abs=1e-3)
    assert codebook.relative_entropy([drawn(1, 50000, size=16)], 0, 256) == pytest.approx(0.5, abs=1e-3)  # 4 of 8 bits
    assert codebook.relative_entropy([np.zeros((1, 9), int)], 0, 256) == 0


def markov(length, stay, size, seed=0):
    generator = np.random.default_rng(seed)
    moved = generator.integers(1, size, size=length) * (generator.random(length) >= stay)
    return np.cumsum(moved)[None] % size


def test_a_markov_chain_of_known_entropy():
    """It stays with probability .9, else goes to one of 7 others: H = h(.1) + .1 log2 7; its runs are 10 long."""
    chain = markov(40000, 0.9, 8)
    known = -0.9 * np.log2(0.9) - 0.1 * np.log2(0.1) + 0.1 * np.log2(7)
    assert codebook.bigram_entropy([chain], 0, 8) == pytest.approx(known, rel=0.02)
    assert codebook.mean_run_length([chain], 0, 8) == pytest.approx(10, rel=0.05)
    ordered, mixed = (codebook.block_entropies([chain], 0, shuffle=shuffle) for shuffle in (False, True))
    assert ordered[1] - ordered[0] == pytest.approx(known, rel=0.02)
    assert mixed[1] - mixed[0] == pytest.approx(3, rel=0.01)  # in any order, 8 equal codes


def test_bigrams_of_independent_tokens_cost_their_entropy():
    assert codebook.bigram_entropy([drawn(1, 3000, size=32)], 0, 32) == pytest.approx(5, abs=0.03)
    assert codebook.bigram_entropy([np.zeros((1, 50), int)], 0, 32) == 0


def test_a_sequence_does_not_run_on_from_clip_to_clip():
    clips = [np.array([[1, 1]]), np.array([[1, 1]])]
    assert codebook.mean_run_length(clips, 0, 2) == 2
    assert codebook.block_entropies([np.array([[0]]), np.array([[1]])], 0)[1:] == [0, 0, 0]  # no clip has two


def test_nothing_to_count_is_said():
    nothing = [np.full((1, 3), -1)]
    for of in (codebook.utilisation, codebook.mean_run_length, codebook.bigram_entropy, codebook.relative_entropy):
        with pytest.raises(MetricError, match="no"):
            of(nothing, 0, 4)
