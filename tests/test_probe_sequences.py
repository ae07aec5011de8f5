"""Proof of what speech probes are made of: rates, masks, CTC, vocabularies, training."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.metrics.content import character_errors, plain, unspaced, word_errors
from earmark.probes.ctc import CtcProbe, frames_needed
from earmark.probes.encoders import BiLstm, CodesIn, Conformer, LatentsIn, WideConformer
from earmark.probes.fitting import fit, steps_of
from earmark.probes.protocol import Recipe
from earmark.probes.sequences import NO_CODE, at_least, at_most, held, inside, masked_mean, padded
from earmark.probes.vocabulary import Characters, Subwords

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = torch.tensor([31, 44, 7])
BODIES = {
    "bilstm": lambda: BiLstm(16, 12, layers=2),
    "conformer": lambda: Conformer(16, layers=2, heads=2, ffn=32, kernel=15),
    "wide_conformer": lambda: WideConformer(16, layers=2, heads=2, kernel=15),
}


# -- rates ------------------------------------------------------------------------------------------------------------


def test_a_slow_rate_that_divides_is_repeated_evenly():
    assert at_least(np.array([[1], [2], [3]]), 12.5, 50).ravel().tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


def test_a_slow_rate_that_does_not_divide():
    """40 to 50 Hz: new frame i starts at i / 50 s, in the old frame floor(i * 0.8): 0 0.8 1.6 2.4 3.2 4.0 4.8."""
    assert at_least(np.arange(6)[:, None], 40, 50).ravel().tolist() == [0, 0, 1, 2, 3, 4, 4, 5]


@pytest.mark.parametrize("rate", [50.0, 75.0, 86.1328125])
def test_a_fast_rate_is_left_alone(rate):
    frames = np.arange(6)[:, None]
    assert at_least(frames, rate, 50) is frames


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.floats(1, 49.9), st.booleans())
def test_no_frame_is_lost_and_none_out_of_order(count, rate, interpolate):
    frames = np.arange(count, dtype=float)[:, None]
    slow = at_least(frames, rate, 50, interpolate).ravel()
    assert len(slow) == math.ceil(count * 50 / rate - 1e-9)
    assert (np.diff(slow) >= 0).all()
    if not interpolate:
        assert set(slow) == set(range(count))


def test_interpolation_of_a_ramp_is_a_ramp():
    """Frame t of 12.5 Hz has its centre at (t + .5) / 12.5 s; a value that is its centre's time stays it."""
    centres = ((np.arange(8) + 0.5) / 12.5)[:, None]
    found = at_least(centres, 12.5, 50, interpolate=True).ravel()
    expected = (np.arange(32) + 0.5) / 50
    assert found[2:-2] == pytest.approx(expected[2:-2])
    assert found[:2] == pytest.approx([centres[0, 0]] * 2)  # nothing before the first centre


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), rate=st.sampled_from([12.5, 50.0, 86.13, 100.0, 149.9, 150.0, 200.0]))
def test_fast_frames_side_by_side_are_all_there_in_order(count, rate):
    frames = np.arange(2.0 * count).reshape(count, 2)
    made = at_most(frames, rate, 50.0)
    beside = max(1, int(rate // 50))
    assert made.shape == (-(-count // beside), 2 * beside)
    assert made.reshape(-1, 2)[:count].tolist() == frames.tolist()
    assert (made.reshape(-1, 2)[count:] == frames[-1]).all()


def test_codes_are_not_interpolated():
    with pytest.raises(ValueError, match="codes have nothing between them"):
        at_least(np.array([[1], [2]]), 25, 50, interpolate=True)


def test_a_rate_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        at_least(np.zeros((2, 1)), 0, 50)
    with pytest.raises(ValueError, match="must be positive"):
        at_most(np.zeros((2, 1)), 50, 0)


def test_a_token_of_several_frames_is_in_each():
    codes = np.array([[0, 5, 9], [1, -1, -1], [2, 6, -1], [3, -1, -1], [4, 7, 8]])
    assert held(codes, (1, 2, 4)).tolist() == [[0, 5, 9], [1, 5, 9], [2, 6, 9], [3, 6, 9], [4, 7, 8]]


def test_padding_is_marked_as_none():
    codes, lengths = padded([np.array([[1, 2]]), np.array([[3, 4], [5, 6]])])
    assert codes.tolist() == [[[1, 2], [NO_CODE, NO_CODE]], [[3, 4], [5, 6]]]
    assert lengths.tolist() == [1, 2]


def test_the_masked_mean_is_of_each_clips_own_frames():
    x = torch.tensor([[[1.0], [3.0], [99.0]], [[1.0], [2.0], [6.0]]])
    assert masked_mean(x, torch.tensor([2, 3])).ravel().tolist() == [2.0, 3.0]


# -- bodies -----------------------------------------------------------------------------------------------------------


def probe(body, way_in=None, seed=0):
    torch.manual_seed(seed)
    return CtcProbe(way_in or LatentsIn(10, 16), BODIES[body](), 9)


def batch(seed=1):
    return torch.randn(3, 44, 10, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("body", BODIES)
def test_a_batch_of_different_lengths_is_the_clips_one_by_one(body, inference):
    model, x = probe(body).eval(), batch()
    together = model(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(x[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("body", BODIES)
def test_what_lies_in_the_padding_changes_nothing_in_training(body):
    """Loss and every gradient, with batch statistics, whatever is beyond the clips and however far it goes."""
    targets, x = [[1, 2, 2], [3], [4, 5]], batch()
    dirty = torch.where(inside(LENGTHS, 44)[..., None], x, torch.full_like(x, 50.0))
    dirty = torch.cat([dirty, torch.full((3, 9, 10), -7.0)], 1)
    found = []
    for wav in (x, dirty):
        model = probe(body).train()
        loss = model.loss(wav, LENGTHS, targets)
        loss.backward()
        found.append((loss.item(), [weight.grad for weight in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("body", BODIES)
def test_codes_in_a_batch_are_the_codes_one_by_one(body, inference):
    model = probe(body, CodesIn((5, 7), 6, 16)).eval()
    clips = [np.random.default_rng(i).integers(0, 5, (length, 2)) for i, length in enumerate(LENGTHS.tolist())]
    together = model(*padded(clips))
    for row, clip in enumerate(clips):
        torch.testing.assert_close(together[row, : len(clip)], model(*padded([clip]))[0], atol=1e-5, rtol=1e-5)


def test_the_bilstm_is_the_librarys_on_packed_sequences():
    """nn.LSTM, 2 layers, both ways, with the same weights."""
    ours, theirs = BiLstm(10, 8, layers=2), torch.nn.LSTM(10, 8, 2, batch_first=True, bidirectional=True)
    weights = {
        f"{name.removesuffix('_l0')}_l{layer}{way}": value
        for layer in range(2)
        for way, nets in (("", ours.ahead), ("_reverse", ours.back))
        for name, value in nets[layer].state_dict().items()
    }
    theirs.load_state_dict(weights)
    packed = torch.nn.utils.rnn.pack_padded_sequence(batch(), LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    kept = inside(LENGTHS, 44)
    torch.testing.assert_close(ours(batch(), LENGTHS)[kept], expected[kept], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_without_padding_the_conformers_are_their_libraries(training):
    import conformer
    from torchaudio.models import Conformer as Torchaudio

    x, full = torch.randn(3, 20, 16), torch.tensor([20, 20, 20])
    wide, narrow = WideConformer(16, layers=2, heads=2, kernel=15), Conformer(16, 2, 2, 32, kernel=15)
    peers = [
        conformer.Conformer(16, depth=2, dim_head=8, heads=2, conv_kernel_size=15),
        Torchaudio(16, 2, 32, 2, 15),
    ]
    for ours, theirs in zip((wide, narrow), peers, strict=True):
        theirs.load_state_dict(ours.net.state_dict())
        said = theirs.train(training)(x) if ours is wide else theirs.train(training)(x, full)[0]
        torch.testing.assert_close(ours.train(training)(x, full), said, atol=1e-5, rtol=1e-5)


def test_latents_are_scaled_by_what_was_given():
    way_in = LatentsIn(2, 3, mean=torch.tensor([1.0, 2.0]), deviation=torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(way_in(torch.tensor([[3.0, 6.0]])), way_in.project(torch.tensor([[1.0, 1.0]])))


# -- CTC --------------------------------------------------------------------------------------------------------------


def collapsed(path):
    return [symbol for symbol, _ in itertools.groupby(path) if symbol]


@pytest.mark.parametrize("target", [[1], [1, 1], [1, 2], [1, 2, 2], [1, 1, 1], [2, 1, 2]])
def test_frames_needed_is_the_shortest_path(target):
    """All paths of symbols 0 (blank), 1 and 2, by length, until one reads as the target."""
    shortest = next(
        n for n in range(1, 7) if any(collapsed(p) == target for p in itertools.product(range(3), repeat=n))
    )
    assert frames_needed(target) == shortest


def test_the_loss_is_the_likelihood_of_all_paths():
    """Two symbols in three frames: the sum over every path that reads as the target, over the 2 symbols."""
    model = CtcProbe(torch.nn.Identity(), BiLstm(3, 4, 1), 3)
    x, target = torch.randn(1, 3, 3), [1, 2]
    with torch.no_grad():
        p = model(x, torch.tensor([3]))[0].exp()
        total = sum(
            float(p[0, a] * p[1, b] * p[2, c])
            for a, b, c in itertools.product(range(3), repeat=3)
            if collapsed((a, b, c)) == target
        )
        assert float(model.loss(x, torch.tensor([3]), [target])) == pytest.approx(-math.log(total) / 2, rel=1e-5)


def test_a_target_that_does_not_fit_is_an_error_and_not_infinite():
    with pytest.raises(ValueError, match="3 symbols in 4 frames"):
        probe("bilstm").loss(torch.randn(1, 4, 10), torch.tensor([4]), [[1, 1, 1]])


def test_greedy_reading_stops_at_the_clips_end(inference):
    class Fixed(torch.nn.Module):
        width = 3

        def forward(self, x, lengths):
            return x

    model = CtcProbe(torch.nn.Identity(), Fixed(), 3)
    model.head = torch.nn.Identity()
    said = torch.nn.functional.one_hot(torch.tensor([[1, 1, 0, 1, 2], [2, 0, 0, 1, 1]]), 3).float()
    assert model.transcribe(said, torch.tensor([5, 3])) == [[1, 1, 2], [2]]


# -- text -------------------------------------------------------------------------------------------------------------


def test_characters_are_those_of_the_training_texts():
    vocabulary = Characters(["cab", "a b"])
    assert (len(vocabulary), vocabulary.blank) == (5, 0)
    assert vocabulary.decode(vocabulary.encode("bac a")) == "bac a"
    assert vocabulary.decode([0, *vocabulary.encode("a"), 0]) == "a"
    with pytest.raises(ValueError, match="'x'"):
        vocabulary.encode("ax")


def test_chinese_is_spelt_in_characters_and_has_no_word_errors():
    texts = [plain("今天,天气 很好。", "zh"), plain("你好 吗?", "zh")]
    vocabulary = Characters(texts)
    assert [vocabulary.decode(vocabulary.encode(text)) for text in texts] == ["今天天气很好", "你好吗"]
    assert unspaced("zh-CN")
    assert unspaced("cmn")
    assert not unspaced("en")
    assert character_errors("今天 天气", "今日天气", lambda text: plain(text, "zh")) == (1, 4)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_the_plain_form_of_a_plain_text_is_itself(text):
    for language in ("en", "zh"):
        assert plain(plain(text, language), language) == plain(text, language)


def test_errors_are_counted_in_the_normal_form_that_is_asked_for():
    assert word_errors("twenty-five", "25") == (0, 1)  # Whisper's, by default
    assert word_errors("Twenty-Five!", "25", plain) == (2, 2)


def test_subwords(tmp_path):
    """Speech2Text's tokenizer, on pieces learned here; its padding is the blank."""
    import json

    import sentencepiece
    from transformers import Speech2TextTokenizer

    texts = ["the boat left the bay", "seven large boxes", "a warm wind blows", "the thick fog came down"] * 20
    (tmp_path / "texts").write_text("\n".join(texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts"), model_prefix=str(tmp_path / "pieces"), vocab_size=32, minloglevel=2
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "pieces.model"))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(model.id_to_piece(i) for i in range(3, model.get_piece_size()))]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: at for at, piece in enumerate(pieces)}))
    vocabulary = Subwords(Speech2TextTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "pieces.model")))
    symbols = vocabulary.encode("the warm boat")
    assert vocabulary.blank == 1
    assert vocabulary.blank not in symbols
    assert len(symbols) < len("the warm boat")
    assert vocabulary.decode([1, *symbols, 1]) == "the warm boat"


def test_absent_subwords_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert Subwords.missing() == "hf download facebook/s2t-small-librispeech-asr"
    with pytest.raises(FileNotFoundError, match="hf download"):
        Subwords.published()


# -- training ---------------------------------------------------------------------------------------------------------


def line(**changes):
    return Recipe(learner="none", rates=(0.1,), batch=2, **changes)


def fitted(recipe, validate=None, seed=0):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    x, y = torch.arange(6.0)[:, None], 3 * torch.arange(6.0)[:, None]
    losses = fit(model, lambda at: ((model(x[at]) - y[at]) ** 2).mean(), 6, recipe, 0.1, seed, validate)
    return model.weight.item(), losses


def test_a_line_is_learned():
    weight, losses = fitted(line(epochs=60))
    assert weight == pytest.approx(3, abs=0.05)
    assert len(losses) == 180


def test_steps_are_the_fewer():
    assert steps_of(line(epochs=2), 5) == 6
    assert steps_of(line(epochs=2, steps=4), 5) == 4


def test_the_same_seed_trains_the_same():
    assert fitted(line(epochs=3), seed=1) == fitted(line(epochs=3), seed=1)
    assert fitted(line(epochs=3), seed=1) != fitted(line(epochs=3), seed=2)


def test_the_best_check_is_kept_and_not_the_last():
    errors = iter([5.0, 1.0, 4.0])
    kept, _ = fitted(line(epochs=3, select="metric"), validate=lambda: next(errors))
    assert kept == fitted(line(epochs=2))[0]
    assert kept != fitted(line(epochs=3))[0]


def test_frozen_weights_are_not_copied():
    """Half a gigabyte of a language model's embeddings, which have two names, at every check."""
    from earmark.probes.fitting import _Best

    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2, bias=False) for name in ("lm", "head", "adapter")})
    model["lm"].requires_grad_(False)
    model["head"].weight = model["lm"].weight
    best = _Best(model, lambda: 1.0)
    best.check()
    assert set(best.state) == {"adapter.weight"}


def test_a_loss_that_is_not_finite_ends_the_training():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="smaller learning rate"):
        fit(model, lambda at: model.weight.sum() * float("nan"), 2, line(epochs=1), 0.1, 0)
