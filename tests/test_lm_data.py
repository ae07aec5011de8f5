"""What the language model is given: orderings, packed rows, the split, and n-grams of known entropy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.lm import ngram, packing
from earmark.lm.orderings import ORDERINGS
from earmark.lm.packing import Document, TooFewGroupsError
from earmark.metrics import MetricError
from earmark.tests.lm_sources import documents, markov_documents


def corpus_of(folder, items, sizes, ordering="parallel"):
    return packing.write(folder, items, sizes, ordering)


@pytest.mark.parametrize("name", ORDERINGS)
def test_an_ordering_keeps_every_token_in_its_codebook_and_in_order(name):
    codes = np.random.default_rng(0).integers(0, 9, (3, 20))
    codes[1, 1::2] = codes[2, np.arange(20) % 4 > 0] = -1  # strides 1, 2, 4
    steps = ORDERINGS[name](codes)
    for before, after in zip(codes, steps, strict=True):
        np.testing.assert_array_equal(after[after >= 0], before[before >= 0])


def test_what_each_ordering_lets_a_token_see():
    codes = np.arange(6).reshape(2, 3)  # [[0, 1, 2], [3, 4, 5]]: the token 4 is codebook 1 of frame 1

    def seen_by_4(name):
        steps = ORDERINGS[name](codes)
        place = np.nonzero(steps == 4)[1][0]
        return sorted(int(token) for token in steps[:, :place].ravel() if token >= 0)

    assert seen_by_4("parallel") == [0, 3]
    assert seen_by_4("delay") == [0, 1, 3]
    assert seen_by_4("flattened") == [0, 1, 3]


def test_frames_follow_each_other_in_the_flattened_ordering():
    steps = ORDERINGS["flattened"](np.arange(6).reshape(2, 3))
    assert steps.max(0).tolist() == [0, 3, 1, 4, 2, 5]
    assert ((steps >= 0).sum(0) == 1).all()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    context=st.integers(2, 25),
    ordering=st.sampled_from([*ORDERINGS]),
)
def test_every_token_is_predicted_once_whatever_the_lengths(tmp_path_factory, lengths, context, ordering):
    items = documents(lengths, sizes=(5, 7))
    corpus = corpus_of(tmp_path_factory.mktemp("corpus"), items, (5, 7), ordering)
    rows = [*packing.rows(corpus.pieces(range(len(items)), context), context)]
    batch = packing.collate(corpus, rows)
    for d, item in enumerate(items):
        for k in range(2):
            targets = batch.targets[:, k][(batch.document == d) & (batch.targets[:, k] >= 0)]
            assert sorted(targets) == sorted(item.codes[k])
    assert (batch.targets[:, 0][batch.document < 0] == -1).all()
    assert (batch.targets >= 0).sum() == sum(item.codes.size for item in items) == sum(map(corpus.tokens, rows))
    assert all(sum(piece.stop - piece.start for piece in row) <= context for row in rows)


def test_a_row_by_hand(tmp_path):
    items = [Document("a", "x", np.array([[1, 2, 3]])), Document("b", "y", np.array([[4, 5]]))]
    corpus = corpus_of(tmp_path, items, (9,))
    first, second = packing.rows(corpus.pieces([0, 1], 2), 2), packing.rows(corpus.pieces([0, 1], 6), 6)
    batch = packing.collate(corpus, [*second], width=6)
    assert batch.inputs[0, 0].tolist() == [-1, 1, 2, -1, 4, -1]  # a document begins with nothing, and so does the next
    assert batch.targets[0, 0].tolist() == [1, 2, 3, 4, 5, -1]
    assert batch.document[0].tolist() == [0, 0, 0, 1, 1, -1]
    assert batch.position[0].tolist() == [0, 1, 2, 0, 1, 0]
    cut = packing.collate(corpus, [row for row in first if row[0].document == 0])
    assert cut.inputs[:, 0].tolist() == [[-1, 1], [2, -1]]  # the second piece of a is told what came just before
    assert cut.targets[:, 0].tolist() == [[1, 2], [3, -1]]


def test_the_corpus_is_read_from_disk_and_not_into_memory(tmp_path):
    corpus = corpus_of(tmp_path, documents([10, 20], sizes=(5,)), (5,))
    assert isinstance(corpus.steps, np.memmap)
    again = packing.read(tmp_path)
    np.testing.assert_array_equal(again.steps, corpus.steps)
    assert again.names == ["d0", "d1"]
    assert again.frames == [10, 20]


def test_a_code_outside_its_codebook_is_an_error_that_names_the_clip(tmp_path):
    with pytest.raises(MetricError, match="clip7: a code is not in its codebook"):
        corpus_of(tmp_path, [Document("clip7", "g", np.array([[0, 5]]))], (5,))


def test_rows_are_well_filled():
    rng = np.random.default_rng(0)
    pieces = [packing.Piece(d, 0, int(n), True) for d, n in enumerate(rng.integers(5, 200, 2000))]
    rows = [*packing.rows(pieces, 256)]
    assert sum(piece.stop for piece in pieces) / (256 * len(rows)) > 0.97


def test_batches_are_a_function_of_the_seed_and_cover_every_epoch():
    pieces = [packing.Piece(d, 0, 10, True) for d in range(12)]

    def of(seed, count=6):  # 12 pieces, 2 a row, 2 rows a batch: 3 batches an epoch
        found = packing.training_batches(pieces, 20, 2, seed)
        return [next(found) for _ in range(count)]

    assert of(1) == of(1) != of(2)
    for epoch in (of(1)[:3], of(1)[3:]):
        assert sorted(piece.document for batch in epoch for row in batch for piece in row) == [*range(12)]
    assert of(1)[:3] != of(1)[3:]


@given(seed=st.integers(0, 50), groups=st.lists(st.sampled_from("abcdefgh"), min_size=8, max_size=40))
@settings(max_examples=50, deadline=None)
def test_no_group_is_on_both_sides_of_the_split(seed, groups):
    if len(set(groups)) < 3:
        with pytest.raises(TooFewGroupsError, match="expected at least 3"):
            packing.split(groups, 0.1, seed)
        return
    train, held_out = packing.split(groups, 0.1, seed)
    assert sorted([*train, *held_out]) == [*range(len(groups))]
    sides = [{groups[d] for d in part} for part in (train, held_out)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) >= 2
    assert sides[0]


def test_unused_codebooks_are_found():
    items = [Document("a", "x", np.array([[1, 2], [-1, -1], [0, -1]]))]
    assert packing.used_codebooks(items) == [0, 2]


# -- n-grams ----------------------------------------------------------------------------------------------------------


def ngram_bits(items, sizes, held_out=0.1):
    train, asked = packing.split([item.group for item in items], held_out, 0)
    nats, tokens = ngram.losses([items[d] for d in train], [items[d] for d in asked], sizes)
    return nats.sum(0) / tokens.sum(0) / np.log(2)


def test_ngram_probabilities_sum_to_one():
    items = documents([30] * 12, sizes=(6,))
    seen = ngram._tokens(items, 0, 6)
    model = ngram.fit(seen, 6)
    total = 0.0
    for token in range(6):
        asked = ngram._Tokens(np.full_like(seen.token, token), seen.histories, seen.group, seen.document)
        total += model.probability(asked)
    np.testing.assert_allclose(total, 1, rtol=1e-12)


def test_ngrams_reach_the_entropy_of_a_markov_source():
    items, entropy = markov_documents(entries=16, count=80, length=300)
    assert ngram_bits(items, (16,))[0] == pytest.approx(entropy, rel=0.02)


def test_ngrams_reach_the_entropy_of_a_second_order_source():
    """x(t) = x(t-1) + x(t-2) mod 5, one time in five anything: an order too low would take log2 5 bits."""
    rng, items = np.random.default_rng(0), []
    for d in range(100):
        tokens = [*rng.integers(0, 5, 2)]
        for _ in range(200):
            tokens.append(rng.integers(0, 5) if rng.random() < 0.2 else (tokens[-1] + tokens[-2]) % 5)
        items.append(Document(f"d{d}", f"g{d}", np.array([tokens])))
    likely = 0.8 + 0.2 / 5
    entropy = -(likely * np.log2(likely) + 4 * 0.04 * np.log2(0.04))
    assert ngram_bits(items, (5,), 0.5)[0] == pytest.approx(entropy, rel=0.05)


def test_ngrams_know_nothing_of_random_codes_and_all_of_constant_ones():
    rng = np.random.default_rng(0)
    random = [Document(f"d{d}", f"g{d % 10}", rng.integers(0, 1024, (1, 150))) for d in range(80)]
    assert ngram_bits(random, (1024,))[0] == pytest.approx(10, abs=0.1)
    constant = [item._replace(codes=np.zeros_like(item.codes)) for item in random]
    assert 2 ** ngram_bits(constant, (1024,))[0] == pytest.approx(1, abs=0.01)


def test_ngrams_do_not_believe_the_habits_of_one_recording():
    """Each recording repeats a pair of its own; those of others do not help, and must not hurt."""
    rng = np.random.default_rng(0)
    items = [Document(f"d{g}", f"g{g}", rng.permutation(64)[:8][rng.integers(0, 8, (1, 400))]) for g in range(30)]
    assert ngram_bits(items, (64,))[0] < 6.05


def test_a_codebook_without_a_token_in_a_held_out_clip_has_none():
    items = documents([20] * 6, sizes=(4, 4))
    items[0].codes[1] = -1
    nats, tokens = ngram.losses(items[1:], items[:1], (4, 4))
    assert tokens.tolist() == [[20, 0]]
    assert nats[0, 1] == 0
