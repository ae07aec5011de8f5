"""Proof of the speech probes: what carries the words is read without error, what does not is not, and nothing leaks."""

import math

import numpy as np
import pytest
import torch

from earmark.metrics.content import word_errors
from earmark.probes import protocol as protocols
from earmark.probes.folds import Fold
from earmark.probes.lm_recogniser import GatedAdapter, LmRecogniser
from earmark.probes.protocol import Recipe
from earmark.probes.recognition import CtcLearner, Speech, always, error_rate, recognise, scale
from earmark.probes.sequences import NO_CODE, padded

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ["boat", "bay", "fog", "cat", "sun", "hill", "rain", "lake"]
CTC = Recipe(
    learner="bilstm_ctc",
    optimiser="adamw",
    rates=(0.01,),
    clip_norm=5,
    epochs=100,
    steps=130,
    batch=8,
    options={"width": 32, "embedding": 16, "layers": 1},
)
TRAINED = Fold(np.arange(16), np.arange(16, 20), np.arange(20, 28))


def sentences(count=28, seed=0):
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, 3)) for _ in range(count)]


def spoken(texts, seed=0):
    """Latents that carry the words: of each character 2 or 3 frames near a vector of its own."""
    chance = np.random.default_rng(seed)
    of = {character: chance.standard_normal(12) for character in " abcdefghijklmnopqrstuvwxyz"}
    made = []
    for text in texts:
        frames = [of[character] for character in text for _ in range(chance.integers(2, 4))]
        made.append((np.stack(frames) + 0.1 * chance.standard_normal((len(frames), 12))).astype(np.float32))
    return made


def coded(texts):
    """Codes that carry the words: two frames of each character's place in the alphabet, then one of none."""
    numbers = ([(" abcdefghijklmnopqrstuvwxyz".index(c)) for c in text] for text in texts)
    return [np.array([pair for n in of for pair in [(n % 6, n // 6)] * 2 + [(NO_CODE, NO_CODE)]]) for of in numbers]


def noise(texts, seed=0):
    chance = np.random.default_rng(seed)
    return [chance.standard_normal((3 * len(text), 12)).astype(np.float32) for text in texts]


def wer(texts, heard):
    found = [word_errors(texts[clip], text, str) for clip, text in heard.texts.items()]
    return sum(errors for errors, _ in found) / sum(count for _, count in found)


# -- CTC --------------------------------------------------------------------------------------------------------------


def test_latents_that_carry_the_words_are_read_without_error():
    texts = sentences()
    heard = recognise(CTC, Speech(spoken(texts), texts), TRAINED)
    assert sorted(heard.texts) == TRAINED.test.tolist()
    assert wer(texts, heard) == 0


def test_codes_that_carry_the_words_are_read_without_error():
    texts = sentences()
    assert wer(texts, recognise(CTC, Speech(coded(texts), texts, (6, 6)), TRAINED)) == 0


@pytest.mark.parametrize(
    ("learner", "options"),
    [
        ("conformer_ctc", {"width": 32, "layers": 1, "heads": 2, "ffn": 64, "kernel": 7}),
        ("wide_conformer_ctc", {"width": 32, "layers": 1, "heads": 2, "kernel": 7}),
    ],
)
def test_conformers_read_them_too(learner, options):
    texts = sentences()
    recipe = CTC.model_copy(update={"learner": learner, "options": options, "rates": (0.003,)})
    assert wer(texts, recognise(recipe, Speech(spoken(texts), texts), TRAINED)) <= 0.1


def test_random_latents_and_shuffled_words_are_no_better_than_one_text():
    texts = sentences()
    baseline = error_rate([texts[i] for i in TRAINED.test], [always([texts[i] for i in TRAINED.train])] * 8)
    wrong = texts[1:20] + texts[:1] + texts[20:]  # of those to learn from, each has another's
    for frames, told in ((noise(texts), texts), (spoken(texts), wrong)):
        heard = recognise(CTC, Speech(frames, told), TRAINED)
        assert error_rate([texts[i] for i in heard.texts], [*heard.texts.values()]) > baseline - 0.05


def test_no_word_of_a_test_clip_is_looked_at():
    texts = sentences()
    other = [text if clip < 20 else "zzz 0 qqq" for clip, text in enumerate(texts)]
    quick = CTC.model_copy(update={"steps": 15, "select": "metric"})
    frames = spoken(texts)
    assert recognise(quick, Speech(frames, texts), TRAINED) == recognise(quick, Speech(frames, other), TRAINED)


def test_no_frame_of_a_test_clip_is_looked_at_before_it_is_heard():
    """What is learned from is scaled by itself: the untrained probe is the same, whatever is to be heard."""
    texts = sentences()
    frames, scaled = spoken(texts), CTC.model_copy(update={"standardise": True})
    louder = [100 * of if clip >= 16 else of for clip, of in enumerate(frames)]
    one, other = (
        CtcLearner(scaled, Speech(of, texts), TRAINED, 0, "cpu").model.state_dict() for of in (frames, louder)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_seed_decides():
    texts = sentences()
    quick = CTC.model_copy(update={"steps": 40})
    speech = Speech(spoken(texts), texts)
    once, again, other = (recognise(quick, speech, TRAINED, seed).texts for seed in (0, 0, 1))
    assert once == again
    assert once != other


def test_texts_too_long_for_their_frames_are_counted_and_named():
    texts = sentences()
    frames = spoken(texts)
    frames[3] = frames[3][:4]
    texts[5], frames[5] = "aab", frames[5][:3]  # three frames, and a blank between the two a
    heard = recognise(CTC.model_copy(update={"steps": 2}), Speech(frames, texts), TRAINED)
    assert set(heard.left_out) == {3, 5}
    assert heard.left_out[5] == "its 3 symbols need 4 frames, and it has 3"
    short = Speech([frame[:2] for frame in frames], texts)
    with pytest.raises(ValueError, match="no clip to learn from, of 20"):
        recognise(CTC.model_copy(update={"steps": 2}), short, TRAINED)


def test_of_several_rates_the_best_on_validation_is_taken():
    texts = sentences()
    speech = Speech(spoken(texts), texts)
    several = CTC.model_copy(update={"rates": (1e-7, 0.01), "select": "metric", "epochs": 60})
    assert wer(texts, recognise(several, speech, TRAINED)) <= 0.1


def test_clips_that_choose_nothing_are_learned_from():
    """With one rate and the last step, the validation clips are training clips: their characters are known."""
    texts = sentences()
    texts[17] = "jazz"
    learner = CtcLearner(CTC, Speech(spoken(texts), texts), TRAINED.poorer(), 0, "cpu")
    assert learner.why_not(17) is None
    assert "'j'" in CtcLearner(CTC, Speech(spoken(texts), texts), TRAINED, 0, "cpu").why_not(17)


def test_scaling_is_by_the_training_frames_alone():
    frames = [np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[5.0, 5.0]]), np.array([[99.0, 99.0]])]
    mean, deviation = scale(frames, [0, 1])
    assert mean.tolist() == [3.0, 5.0]
    assert deviation.tolist() == pytest.approx([math.sqrt(8 / 3), 1.0])  # what never changes is left alone


def test_the_constant_text_is_the_one_that_errs_least():
    assert always(["a cat", "a cat", "a dog sat there"]) == "a cat"
    assert always(["ab", "cd", "efgh"]) == "ab"  # 0 + 2 + 4 errors; the next as many; the long one 4 + 4
    assert always(["a b c d", "e f g", "h f j"], word_errors) == "e f g"  # 4 + 0 + 2 errors; the last as many


def test_characters_stand_in_for_absent_subwords_and_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    texts = sentences()
    recipe = CTC.model_copy(update={"steps": 1, "options": CTC.options | {"vocabulary": "speech2text"}})
    heard = recognise(recipe, Speech(spoken(texts), texts), TRAINED)
    assert heard.vocabulary == "characters"
    assert "hf download facebook/s2t-small-librispeech-asr" in heard.notes[0]


def test_an_unknown_learner_is_named():
    texts = sentences()
    with pytest.raises(ValueError, match="'gru_ctc'"):
        recognise(CTC.model_copy(update={"learner": "gru_ctc"}), Speech(spoken(texts), texts), TRAINED)


@pytest.mark.parametrize("protocol", ["audiocodecbench", "codecbench", "earmark", "earmark-conformer"])
def test_the_protocols_learners_can_be_built(protocol):
    """As published, but narrow: every option of the YAML is one that the learner knows."""
    texts = sentences(8)
    for name, recipe in protocols.load(protocol).recipes.items():
        if name.startswith("asr"):
            narrow = {"width": 16, "embedding": 4} | ({"ffn": 8} if "ffn" in recipe.options else {})
            recipe = recipe.model_copy(update={"steps": 1, "options": recipe.options | narrow, "rates": (0.001,)})
            tokens = name.startswith("asr_tokens")
            speech = Speech(coded(texts) if tokens else spoken(texts), texts, (6, 6) if tokens else ())
            fold = Fold(np.arange(4), np.arange(4, 6), np.arange(6, 8))
            assert len(recognise(recipe, speech, fold).texts) == 2


def test_published_sizes():
    """AudioCodecBench: 1024 wide, 3 layers, 8 heads of 128, 31 frames, twice as wide in the convolution."""
    recipe = protocols.load("audiocodecbench").recipes["asr_tokens"]
    texts = sentences(3)
    with torch.device("meta"):
        learner = CtcLearner(recipe, Speech(coded(texts), texts, (6, 6)), Fold(*np.arange(3)[:, None]), 0, "meta")
    block = learner.model.body.net.layers[0]
    assert len(learner.model.body.net.layers) == 3
    assert (block.attn.fn.heads, block.attn.fn.to_q.weight.shape) == (8, (1024, 1024))
    assert tuple(block.conv.net[4].conv.weight.shape) == (2048, 1, 31)
    assert tuple(learner.model.way_in.project.weight.shape) == (1024, 2048)
    assert learner.model.way_in.books[0].num_embeddings == 7


# -- a language model -------------------------------------------------------------------------------------------------

NAMES = "abcdefgh"


@pytest.fixture(scope="module")
def language_model():
    """A Qwen2 of two layers, taught here to write again what it reads before the separator; and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    vocabulary = {word: at for at, word in enumerate(["<unk>", "<end>", "<say>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", additional_special_tokens=["<say>"]
    )
    config = Qwen2Config(
        vocab_size=len(vocabulary), hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = Qwen2ForCausalLM(config)
        optimizer = torch.optim.Adam(lm.parameters(), lr=3e-3)
        for _ in range(250):
            said = torch.randint(3, len(vocabulary), (48, 3))
            row = torch.cat([said, torch.full((48, 1), 2), said, torch.ones(48, 1, dtype=torch.long)], 1)
            labels = row.clone()
            labels[:, :4] = -100
            optimizer.zero_grad()
            lm(input_ids=row, labels=labels).loss.backward()
            optimizer.step()
    return lm, wrapped


def one_frame_a_word(texts):
    chance = np.random.default_rng(3)
    of = {word: chance.standard_normal(10).astype(np.float32) for word in WORDS}
    return [np.stack([of[word] for word in text.split()]) for text in texts]


LM = Recipe(learner="lm", optimiser="adam", rates=(0.003,), epochs=50, batch=8, select="last")


def test_a_frozen_language_model_reads_latents_that_carry_the_words(language_model, monkeypatch):
    """16 utterances to word error rate 0, and the language model is as it was."""
    from earmark.probes import lm_recogniser

    monkeypatch.setattr(lm_recogniser, "language_model", lambda repo: language_model)
    before = [weight.clone() for weight in language_model[0].parameters()]
    texts = sentences(16)
    recipe = LM.model_copy(update={"options": {"separator": "<say>", "limit": 8, "penalty": 1.0}})
    everything = Fold(np.arange(16), np.arange(0), np.arange(16))
    assert wer(texts, recognise(recipe, Speech(one_frame_a_word(texts), texts), everything)) == 0
    assert all(torch.equal(*pair) for pair in zip(before, language_model[0].parameters(), strict=True))
    with pytest.raises(ValueError, match="takes latents, not codes"):
        recognise(recipe, Speech(coded(texts), texts, (6, 6)), everything)


def test_padding_changes_nothing_for_the_language_model(language_model):
    torch.manual_seed(0)
    model = LmRecogniser(*language_model, 10, separator="<say>", limit=5, penalty=1.0)
    texts = ["boat", "bay fog sun hill", "cat rain"]
    clips = one_frame_a_word(texts)
    together = [model.loss(*padded(clips), texts).item()]
    alone = [model.loss(*padded([clip]), [text]).item() for clip, text in zip(clips, texts, strict=True)]
    tokens = [len(model.tokens(text)) for text in texts]
    assert together[0] == pytest.approx(sum(a * n for a, n in zip(alone, tokens, strict=True)) / sum(tokens), rel=1e-4)
    assert model.transcribe(*padded(clips)) == [model.transcribe(*padded([clip]))[0] for clip in clips]
    x, lengths = padded(clips)
    dirty = torch.cat([torch.where(x == 0, torch.full_like(x, 9.0), x), torch.full((3, 4, 10), 9.0)], 1)
    assert model.loss(dirty, lengths, texts).item() == pytest.approx(together[0], rel=1e-5)


def test_the_adapter_is_gated():
    """silu(a x) * (b x), through one more linear map: X-ARES, asr.py."""
    adapter, x = GatedAdapter(3, 4, 5), torch.randn(2, 3)
    a, b = x @ adapter.gate.weight.T + adapter.gate.bias, x @ adapter.value.weight.T + adapter.value.bias
    expected = (a * a.sigmoid() * b) @ adapter.out.weight.T + adapter.out.bias
    torch.testing.assert_close(adapter(x), expected)


def test_a_clip_too_long_for_the_language_model_is_named(language_model, monkeypatch):
    from earmark.probes import lm_recogniser

    monkeypatch.setattr(lm_recogniser, "language_model", lambda repo: language_model)
    texts = sentences(4)
    frames = [*one_frame_a_word(texts[:3]), np.zeros((70, 10), np.float32)]
    recipe = LM.model_copy(update={"steps": 1, "options": {"separator": "<say>", "limit": 2}})
    heard = recognise(recipe, Speech(frames, texts), Fold(np.arange(1, 4), np.arange(0), np.arange(1)))
    assert heard.left_out == {3: "its frames and text need 75 places, and the language model has 64"}
