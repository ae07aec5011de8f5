"""Proof of the content metrics: the normaliser, the counts of errors, the recognisers.

Whisper's weights cannot be had here, so it is proved with a random one of one layer, whose tokenizer knows bytes alone,
read from a cache like the hub's. PocketSphinx is heard on recordings (EARMARK_DATA).
"""

import csv
import os
import re
import shutil
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from earmark.data import audio
from earmark.metrics import MetricError, find
from earmark.metrics.asr import Pocketsphinx, Whisper
from earmark.metrics.content import character_errors, normalise, word_errors
from earmark.metrics.registry import Checkpoint
from earmark.tests.helpers import voice

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 16_000
REVISION = "a" * 40


# --- the normaliser ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("He won't go.", "he will not go"),
        ("They're Mr. Hale's", "they are mister hale is"),
        ("twenty-five dollars", "$25"),
        ("nineteen eighty four", "1984"),
        ("three point five percent", "3.5%"),
        ("the twenty first", "the 21st"),
        ("double o seven", "007"),  # one pass of Whisper's normaliser leaves these two apart
        ("a  naïve\tcafé!", "A naive, cafe"),
        ("um, yes [noise] (laughs)", "Yes"),
    ],
)
def test_two_ways_to_write_the_same_become_one(one, other):
    assert normalise(one) == normalise(other)


def test_british_spelling_stays():
    assert normalise("Colour") == "colour"


WORDS = "one two five ten twenty hundred thousand million oh zero double triple point and half minus percent dollars"
WORDS += " cent first seconds 7 007 21 3.5 $5 ¢5 1st he's won't mr st uh o'clock . ' % café ½"


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=30), st.lists(st.sampled_from(WORDS.split()), max_size=8).map(" ".join)))
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()


# --- counting errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoken", "heard", "words", "characters"),
    [
        # 'the' -> 'a' one replaced, 'down' one put: 2 of 3. t-h-e -> a: two left out, one replaced; ' down': 5
        ("The cat sat.", "a cat sat down", (2, 3), (8, 11)),
        ("the cat", "", (2, 2), (7, 7)),
        ("the cat", "the cat", (0, 2), (0, 7)),
        ("The CAT!", "the, cat", (0, 2), (0, 7)),
        ("cat", "the fat cats ran", (4, 1), None),  # the rate is 4: more was put than was spoken
        ("ab", "ba", (1, 1), (2, 2)),
        ("an ice cream", "a nice cream", (2, 3), (2, 12)),  # one space left out, one put: spaces count
    ],
)
def test_errors_by_hand(spoken, heard, words, characters):
    assert word_errors(spoken, heard) == words
    if characters:
        assert character_errors(spoken, heard) == characters


@pytest.mark.parametrize("errors", [word_errors, character_errors])
@pytest.mark.parametrize("spoken", ["", "  ", "...", "[noise]", "uh"])
def test_nothing_spoken_is_no_score(errors, spoken):
    with pytest.raises(MetricError, match="nothing was spoken"):
        errors(spoken, "something")


TEXTS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "ran"]), min_size=1, max_size=8).map(" ".join)


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_a_corpus_is_the_sum_of_its_clips(pairs):
    """As jiwer has it for the whole corpus at once."""
    spoken, heard = zip(*pairs, strict=True)
    for errors, peer in ((word_errors, jiwer.wer), (character_errors, jiwer.cer)):
        counts = np.array([errors(*pair) for pair in pairs])
        assert counts[:, 0].sum() / counts[:, 1].sum() == pytest.approx(peer([*spoken], [*heard]), rel=1e-12)


@settings(max_examples=50)
@given(TEXTS, TEXTS)
def test_bounds_of_the_counts(spoken, heard):
    edits, words = word_errors(spoken, heard)
    assert words == len(spoken.split())
    assert abs(words - len(heard.split())) <= edits <= max(words, len(heard.split()))
    assert word_errors(heard, spoken)[0] == edits  # what is put one way is left out the other


# --- Whisper, a random one -------------------------------------------------------------------------------

SPECIAL = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startoflm", "startofprev"]
SPECIAL += ["nospeech", "notimestamps"]


def tokenizer() -> transformers.WhisperTokenizer:
    """Knows the 256 bytes, Whisper's special tokens and its 1501 times, and no merges."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [*map(chr, printed), *(chr(256 + i) for i in range(256 - len(printed)))]
    built = transformers.WhisperTokenizer(vocab={c: i for i, c in enumerate([*characters, "<|endoftext|>"])}, merges=[])
    built.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in SPECIAL[1:]]})
    built.add_tokens([transformers.AddedToken(f"<|{i * 0.02:.2f}|>", special=False) for i in range(1501)])
    return built


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """A cache like the hub's with a random Whisper of one layer in it."""
    home = tmp_path_factory.mktemp("home")
    snapshot = home / "hub" / "models--org--heard" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(REVISION)
    tokens = tokenizer()
    end, start, en, de, translate, transcribe, _, before, _, untimed = tokens.convert_tokens_to_ids(
        [f"<|{name}|>" for name in SPECIAL]
    )
    ids = {"decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": end, "bos_token_id": end}
    small = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.WhisperConfig(
        vocab_size=len(tokens), d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, max_target_positions=64,
        init_std=0.5, **small, **ids,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        **ids, max_length=48, is_multilingual=True, lang_to_id={"<|en|>": en, "<|de|>": de},
        task_to_id={"transcribe": transcribe, "translate": translate}, no_timestamps_token_id=untimed,
        prev_sot_token_id=before, max_initial_timestamp_index=50,
    )  # fmt: skip
    model.save_pretrained(snapshot)
    transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), tokens).save_pretrained(snapshot)
    return home


@pytest.fixture
def checkpoint(hub_folder, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(hub_folder))
    return Checkpoint(repo="org/heard", revision=REVISION)


def loud_noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * RATE))


def greedy(whisper: Whisper, wav: np.ndarray) -> str:
    """By hand: the likeliest token that is no time after <start> <en> <transcribe> <notimestamps>, again and again."""
    tokens, model = whisper.processor.tokenizer, whisper.model
    first_time = tokens.convert_tokens_to_ids("<|0.00|>")
    features = transformers.WhisperFeatureExtractor()(wav, sampling_rate=RATE, return_tensors="pt").input_features
    prompt = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    ids = tokens.convert_tokens_to_ids(prompt)
    with torch.inference_mode():
        while len(ids) < 48 + len(prompt) and ids[-1] != 256:
            ids.append(int(model(features, decoder_input_ids=torch.tensor([ids])).logits[0, -1, :first_time].argmax()))
    return tokens.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("seconds", [0.1, 1, 30])
def test_whisper_decodes_greedily_in_english(checkpoint, seconds):
    whisper = Whisper(checkpoint)
    # trained weights say no times when told so; random ones do, and are then asked again from there
    times = [i for token, i in whisper.processor.tokenizer.get_vocab().items() if re.fullmatch(r"<\|[\d.]+\|>", token)]
    whisper.model.generation_config.suppress_tokens = times
    heard = whisper.transcribe(loud_noise(seconds))
    assert heard
    assert heard == greedy(whisper, loud_noise(seconds))


def test_whisper_hears_the_same_whatever_came_before(checkpoint):
    whisper = Whisper(checkpoint)
    first = [whisper.transcribe(loud_noise(s)) for s in (1, 40)]
    np.random.seed(3)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    again = [Whisper(checkpoint).transcribe(loud_noise(s)) for s in (40, 1)]
    assert [*reversed(again)] == first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_whisper_hears_a_long_clip_to_its_end(checkpoint, monkeypatch):
    """Windows of 30 s, each from where the last segment of the one before ended; what they say is joined."""
    whisper, starts = Whisper(checkpoint), []
    original = whisper.model._get_input_segment

    def watched(*args, **kwargs):
        starts.append(int(kwargs["seek"][0]) / 100)
        return original(*args, **kwargs)

    monkeypatch.setattr(whisper.model, "_get_input_segment", watched)
    whisper.transcribe(loud_noise(70))
    assert starts[0] == 0
    assert all(0 < step <= 30 for step in np.diff(starts))
    assert starts[-1] >= 40  # the last window reaches the end at 70 s


def test_whisper_is_told_the_language(checkpoint):
    clip = loud_noise(1)
    assert Whisper(checkpoint).transcribe(clip) != Whisper(checkpoint, language="de").transcribe(clip)


def test_whisper_that_is_not_here_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    row = find("wer_whisper_base").model
    command = "hf download openai/whisper-base --revision e37978b90ca9030d5170a5c07aadb050351a65bb"
    assert row.missing() == command
    with pytest.raises(FileNotFoundError, match=command):
        Whisper(row.checkpoint)


def test_whisper_that_lacks_a_tensor_is_refused(checkpoint, hub_folder, tmp_path, monkeypatch):
    """`transformers` would draw it at random and go on."""
    shutil.copytree(hub_folder, tmp_path / "home")
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    weights = next((tmp_path / "home").rglob("*.safetensors"))
    tensors = load_file(weights)
    tensors.pop("model.encoder.layers.0.fc1.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="org/heard lacks 1 tensors of WhisperForConditionalGeneration"):
        Whisper(checkpoint)


# --- both recognisers ------------------------------------------------------------------------------------


@pytest.fixture(params=["whisper", "pocketsphinx"])
def recogniser(request, checkpoint):
    return Whisper(checkpoint) if request.param == "whisper" else Pocketsphinx()


def test_what_cannot_be_heard_says_why(recogniser):
    with pytest.raises(MetricError, match="empty"):
        recogniser.transcribe(np.zeros(0))
    with pytest.raises(MetricError, match="NaN or infinite"):
        recogniser.transcribe(np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match=r"takes one clip of floats, \[L\]; this is int16 \(10,\)"):
        recogniser.transcribe(np.zeros(10, np.int16))
    with pytest.raises(ValueError, match=r"float64 \(1, 10\)"):
        recogniser.transcribe(np.zeros((1, 10)))


@pytest.mark.parametrize("samples", [1, 1600])
def test_very_short_and_silent_clips_have_a_text(recogniser, samples):
    assert isinstance(recogniser.transcribe(np.full(samples, 0.1)), str)
    assert recogniser.transcribe(np.zeros(samples)) == ""
    assert recogniser.transcribe(np.full(samples, 1e-5)) == ""  # zero in 16 bits
    assert word_errors("spoken in vain", "") == (3, 3)


# --- PocketSphinx ----------------------------------------------------------------------------------------


def recordings(most_s: float, count: int) -> list[tuple[np.ndarray, str]]:
    """Clips of LibriSpeech test-other, float64 [L] at 16 kHz, with their transcripts; no longer than so."""
    if "EARMARK_DATA" not in os.environ:
        pytest.skip("EARMARK_DATA names no folder of recordings")
    folder = Path(os.environ["EARMARK_DATA"])
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "librispeech_test_other"]
    rows = [row for row in rows if float(row["seconds"]) <= most_s][:count]
    read = [audio.read(folder / row["path"]) for row in rows]
    clips = [audio.resample(*clip, RATE)[0].astype(np.float64) for clip in read]
    return [(clip, row["transcript"]) for clip, row in zip(clips, rows, strict=True)]


def test_pocketsphinx_cuts_what_is_over_range_and_logs_nothing(capfd):
    """Samples beyond 1 would come out with the other sign."""
    clip = 20 * voice(1.0, RATE).astype(np.float64)
    heard = Pocketsphinx().transcribe(clip)
    assert heard == Pocketsphinx().transcribe(clip.clip(-1, 1))
    assert capfd.readouterr() == ("", "")


def test_pocketsphinx_on_speech():
    """More noise, more errors; and the same text whatever was heard before."""
    clips = recordings(most_s=3.0, count=2)
    backend, random = Pocketsphinx(), np.random.default_rng(0)
    rates, first = [], None
    for snr_db in (np.inf, 10):
        counts = []
        for clip, spoken in clips:
            white = random.standard_normal(len(clip)) * np.sqrt(np.square(clip).mean()) * 10 ** (-snr_db / 20)
            heard = backend.transcribe(clip + white)
            first = first or heard
            counts.append(word_errors(spoken, heard))
        edits, words = np.sum(counts, 0)
        rates.append(edits / words)
    assert backend.transcribe(clips[0][0]) == first
    assert 0.2 < rates[0] < 0.75, rates  # .61 over the whole set
    assert rates[1] > rates[0] + 0.1, rates
