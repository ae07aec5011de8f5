"""Proof of speaker similarity: Resemblyzer on recordings (EARMARK_DATA), the others, whose weights cannot be had here,
with random ones read from a cache like the hub's.
"""

import csv
import os
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from earmark.data import audio
from earmark.metrics import MetricError, find, unispeech
from earmark.metrics.registry import Checkpoint
from earmark.metrics.speaker import Ecapa, Resemblyzer, WavlmSv, speaker_similarity
from earmark.tests.helpers import voice

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 16_000
REVISION = "b" * 40
# a WavLM that is quick
THIN = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def here(home, monkeypatch):
    """The cache that `put` fills is the one that is looked in."""
    monkeypatch.setenv("EARMARK_HOME", str(home))
    return home


def put(home: Path, repo: str, *files: str) -> tuple[Path, Checkpoint]:
    """A new snapshot of a repository, and the checkpoint that asks for these files of it."""
    snapshot = home / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / REVISION
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot, Checkpoint(repo=repo, revision=REVISION, files=files)


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


@pytest.fixture(scope="module")
def speechbrain():
    """Its classes. Its modules under old names warn when hypothesis looks through all that is loaded: off with them."""
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    for name in [name for name, module in sys.modules.items() if type(module).__module__.startswith("speechbrain")]:
        del sys.modules[name]
    return SimpleNamespace(Fbank=Fbank, ECAPA_TDNN=ECAPA_TDNN, InputNormalization=InputNormalization)


@pytest.fixture(scope="module")
def ecapa_weights(home, speechbrain):
    snapshot, checkpoint = put(home, "org/ecapa", "embedding_model.ckpt")
    model = seeded(lambda: speechbrain.ECAPA_TDNN(80, channels=[1024] * 4 + [3072]))
    torch.save(model.state_dict(), snapshot / "embedding_model.ckpt")
    return model.eval(), checkpoint


@pytest.fixture(scope="module")
def wavlm_weights(home):
    files = ("config.json", "preprocessor_config.json", "pytorch_model.bin")
    snapshot, checkpoint = put(home, "org/wavlm", *files)
    config = transformers.WavLMConfig(**THIN, use_weighted_layer_sum=True)
    model = seeded(lambda: transformers.WavLMForXVector(config))
    config.save_pretrained(snapshot)
    torch.save(model.state_dict(), snapshot / "pytorch_model.bin")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(snapshot)
    return model.eval(), checkpoint


@pytest.fixture(scope="module")
def unispeech_weights(home):
    snapshot, checkpoint = put(home, "org/unispeech", unispeech.FILE)
    model = filled(unispeech.SpeakerNet(unispeech.LARGE | THIN))
    stored = {theirs(name): tensor for name, tensor in model.state_dict().items()}
    stored["loss_calculator.projection.weight"] = torch.zeros(3)
    torch.save({"model": stored}, snapshot / unispeech.FILE)
    return model, checkpoint


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """Every tensor drawn by its name, so that another program can have the same."""
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tensor.shape) * 0.1
        if name.endswith(("running_var", "original0")):
            drawn = 1 + np.abs(drawn)
        elif name.endswith("norm.weight") or (".bn" in name and name.endswith("weight")):
            drawn = 1 + drawn
        tensor.copy_(torch.from_numpy(drawn))
    return model.eval()


# What a tensor of ours is called in the file of UniSpeech, as its own program writes it.
THEIRS = {
    "wavlm.masked_spec_embed": "mask_emb",
    "wavlm.feature_extractor.conv_layers.3.conv.weight": "feature_extractor.conv_layers.3.0.weight",
    "wavlm.feature_extractor.conv_layers.3.layer_norm.bias": "feature_extractor.conv_layers.3.2.1.bias",
    "wavlm.feature_projection.projection.weight": "post_extract_proj.weight",
    "wavlm.feature_projection.layer_norm.weight": "layer_norm.weight",
    "wavlm.encoder.pos_conv_embed.conv.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "wavlm.encoder.pos_conv_embed.conv.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
    "wavlm.encoder.pos_conv_embed.conv.bias": "encoder.pos_conv.0.bias",
    "wavlm.encoder.layer_norm.bias": "encoder.layer_norm.bias",
    "wavlm.encoder.layers.2.attention.q_proj.bias": "encoder.layers.2.self_attn.q_proj.bias",
    "wavlm.encoder.layers.2.attention.gru_rel_pos_const": "encoder.layers.2.self_attn.grep_a",
    "wavlm.encoder.layers.2.attention.gru_rel_pos_linear.bias": "encoder.layers.2.self_attn.grep_linear.bias",
    "wavlm.encoder.layers.0.attention.rel_attn_embed.weight":
        "encoder.layers.0.self_attn.relative_attention_bias.weight",
    "wavlm.encoder.layers.2.layer_norm.weight": "encoder.layers.2.self_attn_layer_norm.weight",
    "wavlm.encoder.layers.2.final_layer_norm.weight": "encoder.layers.2.final_layer_norm.weight",
    "wavlm.encoder.layers.2.feed_forward.intermediate_dense.weight": "encoder.layers.2.fc1.weight",
    "wavlm.encoder.layers.2.feed_forward.output_dense.weight": "encoder.layers.2.fc2.weight",
}  # fmt: skip
HEAD = {
    "layer2.before.conv.bias": "layer2.Conv1dReluBn1.conv.bias",
    "layer2.after.bn.running_mean": "layer2.Conv1dReluBn2.bn.running_mean",
    "layer3.res2.convs.6.weight": "layer3.Res2Conv1dReluBn.convs.6.weight",
    "layer4.gate.linear2.weight": "layer4.SE_Connect.linear2.weight",
    "feature_weight": "feature_weight",
    "layer1.bn.weight": "layer1.bn.weight",
    "pooling.linear1.bias": "pooling.linear1.bias",
}


def theirs(name: str) -> str:
    """The way back from our name to theirs, written apart from the way there."""
    inside, _, rest = name.partition(".")
    if inside != "wavlm":
        for mine, other in (
            (".before.", ".Conv1dReluBn1."),
            (".after.", ".Conv1dReluBn2."),
            (".res2.", ".Res2Conv1dReluBn."),
            (".gate.", ".SE_Connect."),
        ):
            name = name.replace(mine, other)
        return name
    parts = rest.split(".")
    if parts[0] == "feature_extractor":
        parts[3] = {"conv": "0", "layer_norm": "2.1"}[parts[3]]
    elif parts[0] == "feature_projection":
        parts = ["post_extract_proj" if parts[1] == "projection" else "layer_norm", parts[2]]
    elif parts[0] == "masked_spec_embed":
        parts = ["mask_emb"]
    elif parts[1] == "pos_conv_embed":
        parts = ["encoder.pos_conv.0", {"original0": "weight_g", "original1": "weight_v", "bias": "bias"}[parts[-1]]]
    elif parts[1] == "layers":
        parts[3] = {"attention": "self_attn", "layer_norm": "self_attn_layer_norm"}.get(parts[3], parts[3])
        if parts[3] == "feed_forward":
            parts[3:5] = [{"intermediate_dense": "fc1", "output_dense": "fc2"}[parts[4]]]
        other = {"rel_attn_embed": "relative_attention_bias", "gru_rel_pos_linear": "grep_linear"}
        parts[4] = (other | {"gru_rel_pos_const": "grep_a"}).get(parts[4], parts[4])
    return "feature_extract.model." + ".".join(parts)


@pytest.fixture
def backend(request, here, monkeypatch):
    """A backend by name, ready to embed; all but Resemblyzer with random weights."""
    if request.param == "resemblyzer":
        return find("speaker_similarity_resemblyzer").model.load()
    _, checkpoint = request.getfixturevalue(f"{request.param}_weights")
    monkeypatch.setattr(unispeech, "LARGE", unispeech.LARGE | THIN)
    return {"ecapa": Ecapa, "wavlm": WavlmSv, "unispeech": unispeech.UniSpeech}[request.param](checkpoint)


every_backend = pytest.mark.parametrize("backend", ["resemblyzer", "ecapa", "wavlm", "unispeech"], indirect=True)
resemblyzer = pytest.mark.parametrize("backend", ["resemblyzer"], indirect=True)


def noise(like: np.ndarray, snr_db: float) -> np.ndarray:
    white = np.random.default_rng(0).standard_normal(like.shape)
    return white * np.sqrt(np.square(like).sum() / np.square(white).sum()) * 10 ** (-snr_db / 20)


def spoken() -> np.ndarray:
    return voice(1.5, RATE)[None].astype(np.float64)


# --- every backend, by property ----------------------------------------------------------------------------


@every_backend
def test_the_same_clip_is_exactly_one(backend):
    wav = spoken()
    assert speaker_similarity(wav, wav, backend) == 1
    assert speaker_similarity(wav, wav.copy(), backend) == 1
    assert speaker_similarity(torch.from_numpy(wav), torch.from_numpy(wav.copy()), backend) == 1


@every_backend
def test_symmetric_and_a_batch_scores_as_its_clips(backend):
    wav = np.stack([voice(1.2, RATE, pitch) for pitch in (90, 140, 220)]).astype(np.float64)
    other = wav + noise(wav, 10)
    together = speaker_similarity(wav, other, backend)
    assert together.shape == (3,)
    assert together.dtype == np.float64
    assert (np.abs(together) <= 1).all()
    assert (together == speaker_similarity(other, wav, backend)).all()
    assert (together[::-1] == speaker_similarity(wav[::-1], other[::-1], backend)).all()  # whatever came before
    assert together[1] == speaker_similarity(wav[1], other[1], backend)
    assert speaker_similarity(wav.reshape(3, 1, -1), other.reshape(3, 1, -1), backend).shape == (3, 1)


@every_backend
def test_what_has_no_speaker_says_so(backend):
    wav = spoken()
    for changed, message in (
        ((wav, 0 * wav), "clip 0: estimate is silent, so it has no speaker"),
        ((0 * wav, wav), "clip 0: reference is silent"),
        ((wav, 1e-6 * wav), "clip 0: estimate is silent"),
        ((wav, wav * np.nan), "clip 0: estimate holds NaN"),
        ((wav[:, :1], wav[:, :1]), "1 samples are too short to tell a speaker; it takes 0.4 s"),
        ((wav[:, :1600], wav[:, :1600]), "1600 samples are too short"),
        ((wav[:, :0], wav[:, :0]), "reference is empty"),
    ):
        with pytest.raises(MetricError, match=message):
            speaker_similarity(*changed, backend)
    with pytest.raises(ValueError, match="differ in shape"):
        speaker_similarity(wav, wav[:, :-1], backend)


@every_backend
def test_more_noise_is_less_alike(backend):
    wav = spoken()
    values = [speaker_similarity(wav, wav + noise(wav, snr), backend)[0] for snr in (50, 30, 10)]
    assert 1 > values[0] > values[1] > values[2]


GAINS = {"resemblyzer": (0.9, 0.99), "ecapa": (0.999, 1), "wavlm": (0.999, 1), "unispeech": (0.999, 1)}


@pytest.mark.parametrize(("backend", "low", "high"), [(k, *v) for k, v in GAINS.items()], indirect=["backend"])
def test_level(backend, low, high):
    """All but Resemblyzer are blind to it; Resemblyzer is not, down to the level that it raises a clip to."""
    wav = spoken()
    assert low <= speaker_similarity(wav, 0.25 * wav, backend)[0] <= high
    assert speaker_similarity(0.25 * wav, 0.25 * wav, backend) == 1


@every_backend
def test_ten_seconds_and_the_shortest(backend):
    for seconds in (0.8, 10.0):
        wav = voice(seconds, RATE)[None]
        assert speaker_similarity(wav, wav, backend) == 1


# --- Resemblyzer ---------------------------------------------------------------------------------------------


@resemblyzer
def test_no_voice_is_no_score(backend):
    click = np.zeros((1, RATE))
    click[0, 8000:8010] = 0.5
    with pytest.raises(MetricError, match=r"clip 0: estimate: 0.\d\d s of voice are too short to tell a speaker"):
        speaker_similarity(spoken()[:, :RATE], click, backend)


@resemblyzer
def test_over_range_is_cut(backend):
    wav = 8 * spoken()
    assert np.abs(wav).max() > 1
    assert speaker_similarity(wav, wav.clip(-1, 1), backend) == 1


@resemblyzer
def test_agrees_with_the_library_on_its_own(backend):
    """Its file is read with tensors alone, and it does with a clip what `preprocess_wav` and `embed_utterance` do."""
    from resemblyzer import VoiceEncoder, preprocess_wav

    wav = voice(3.0, RATE)
    alone = VoiceEncoder("cpu", verbose=False).embed_utterance(preprocess_wav(wav.astype(np.float64)))
    np.testing.assert_allclose(backend.embed(wav), alone, atol=1e-6)


@pytest.fixture(scope="module")
def recordings() -> tuple[list[np.ndarray], np.ndarray]:
    """The 60 clips of LibriSpeech test-other by 6 speakers, float64 [L] at 16 kHz, and who speaks."""
    if "EARMARK_DATA" not in os.environ:
        pytest.skip("EARMARK_DATA names no folder of recordings")
    folder = Path(os.environ["EARMARK_DATA"])
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "librispeech_test_other"]
    read = [audio.read(folder / row["path"]) for row in rows]
    return [audio.resample(*clip, RATE)[0] for clip in read], np.array([row["speaker"] for row in rows])


@resemblyzer
def test_tells_speakers_apart(backend, recordings):
    """Measured: same .872, different .528, equal error rate 0.37 %."""
    clips, speakers = recordings
    embeddings = np.stack([backend.embed(clip) for clip in clips])
    upper = np.triu_indices(len(clips), 1)
    values, same = (embeddings @ embeddings.T)[upper], np.equal.outer(speakers, speakers)[upper]
    assert values[same].mean() == pytest.approx(0.872, abs=0.01)
    assert values[~same].mean() == pytest.approx(0.528, abs=0.01)
    errors = [max((values[same] < limit).mean(), (values[~same] >= limit).mean()) for limit in values]
    assert min(errors) < 0.01


@resemblyzer
def test_noise_on_recordings(backend, recordings):
    for clip in recordings[0][::15]:
        wav = clip[None, : 6 * RATE].astype(np.float64)
        values = [speaker_similarity(wav, wav + noise(wav, snr), backend)[0] for snr in (50, 40, 30, 20, 10, 0)]
        assert (np.diff(values) < 0).all(), values


# --- the others, against the programs they come from ---------------------------------------------------------


def test_ecapa_is_speechbrains(here, ecapa_weights, speechbrain):
    model, checkpoint = ecapa_weights
    wav = voice(2.0, RATE)
    with torch.no_grad():
        features = speechbrain.InputNormalization(norm_type="sentence", std_norm=False)(
            speechbrain.Fbank(n_mels=80)(torch.from_numpy(wav)[None]), torch.ones(1)
        )
        expected = model(features, torch.ones(1))[0, 0].numpy()
    np.testing.assert_allclose(Ecapa(checkpoint).embed(wav), expected, rtol=1e-4, atol=1e-5)


def test_wavlm_is_that_of_transformers(here, wavlm_weights):
    model, checkpoint = wavlm_weights
    wav = voice(2.0, RATE).astype(np.float64)
    normal = (wav - wav.mean()) / np.sqrt(wav.var() + 1e-7)
    with torch.no_grad():
        expected = model(torch.from_numpy(normal.astype(np.float32))[None]).embeddings[0].numpy()
    np.testing.assert_allclose(WavlmSv(checkpoint).embed(wav.astype(np.float32)), expected, rtol=1e-3, atol=1e-5)


def test_unispeech_is_upstreams(unispeech_weights):
    """The numbers are what upstream's own program gives: `ECAPA_TDNN_SMALL(feat_dim=32, feat_type="wavlm_large")` of
    microsoft/UniSpeech on WavLM as s3prl 0.4.18 has it, of the sizes of THIN, its tensors drawn as `filled` draws them.
    """
    model, _ = unispeech_weights
    with torch.inference_mode():
        found = model(torch.from_numpy(voice(1.0, RATE))[None])[0].numpy()
    upstream = [-3.668396472930908, 34.41849899291992, -35.04730987548828, 9.83318042755127, 11.447518348693848]
    np.testing.assert_allclose(found[:5], upstream, atol=1e-3)  # of values that spread by 29: float32


def test_unispeech_finds_a_place_for_every_tensor():
    ours = unispeech.SpeakerNet(unispeech.LARGE | THIN).state_dict()
    names = {"feature_extract.model." + other: mine for mine, other in THEIRS.items()}
    names |= {other: mine for mine, other in HEAD.items()}
    assert set(names.values()) <= set(ours)
    assert [*unispeech.renamed(dict.fromkeys(names))] == [*names.values()]
    assert [theirs(mine) for mine in names.values()] == [*names]
    assert [*unispeech.renamed({theirs(name): tensor for name, tensor in ours.items()})] == [*ours]
    assert not unispeech.renamed({"loss_calculator.projection.weight": torch.zeros(1)})


def test_unispeech_has_the_sizes_of_wavlm_large():
    with torch.device("meta"):
        model = unispeech.SpeakerNet(unispeech.LARGE)
    # 315.45 million of WavLM-large as published, and the head
    assert round(sum(tensor.numel() for tensor in model.wavlm.parameters()) / 1e6, 1) == 315.5
    assert model.linear.out_features == 256


@pytest.mark.parametrize("name", ["ecapa", "wavlm", "unispeech"])
def test_a_file_that_lacks_a_tensor_is_refused(name, request, here, monkeypatch):
    _, whole = request.getfixturevalue(f"{name}_weights")
    monkeypatch.setattr(unispeech, "LARGE", unispeech.LARGE | THIN)
    source, _ = put(here, whole.repo)
    snapshot, checkpoint = put(here, f"{whole.repo}-part", *whole.files)
    for path in source.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    weights = snapshot / whole.files[-1]
    stored = torch.load(weights, weights_only=True)
    tensors = stored.get("model", stored)
    tensors.pop(next(key for key in sorted(tensors) if key.endswith("weight") and not key.startswith("loss")))
    torch.save(stored, weights)
    build = {"ecapa": Ecapa, "wavlm": WavlmSv, "unispeech": unispeech.UniSpeech}[name]
    with pytest.raises((RuntimeError, ValueError), match=r"Missing key|lacks 1 tensors"):
        build(checkpoint)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("it-ran",))


@pytest.mark.parametrize("name", ["ecapa", "wavlm", "unispeech"])
def test_a_file_that_holds_code_is_refused(name, request, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, whole = request.getfixturevalue(f"{name}_weights")
    source, _ = put(here, whole.repo)
    snapshot, checkpoint = put(here, f"{whole.repo}-code", *whole.files)
    for path in source.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    torch.save({"model": Bomb()}, snapshot / whole.files[-1])
    build = {"ecapa": Ecapa, "wavlm": WavlmSv, "unispeech": unispeech.UniSpeech}[name]
    with pytest.raises(Exception, match=r"[Ww]eights.only|Unsupported|unsafe|WeightsUnpickler"):
        build(checkpoint)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("name", ["ecapa", "wavlm_base_plus_sv", "unispeech_wavlm_large"])
def test_weights_that_are_not_here_say_how_to_get_them(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    row = find(f"speaker_similarity_{name}").model
    assert row.missing().startswith(f"hf download {row.checkpoint.repo}")
    with pytest.raises(FileNotFoundError, match=f"run: hf download {row.checkpoint.repo}"):
        {"ecapa": Ecapa, "wavlm_base_plus_sv": WavlmSv}.get(name, unispeech.UniSpeech)(row.checkpoint)


def test_a_backend_is_ready_once_its_files_are_here(here, wavlm_weights):
    row = find("speaker_similarity_wavlm_base_plus_sv").model
    ready = row.model_copy(update={"checkpoint": wavlm_weights[1]})
    assert ready.missing() is None
    assert REVISION in ready.version
    asked = wavlm_weights[1].model_copy(update={"files": ("config.json", "model.safetensors")})
    assert row.model_copy(update={"checkpoint": asked}).missing() == f"hf download org/wavlm --revision {REVISION}"


@resemblyzer
def test_it_is_built_once(backend):
    assert isinstance(backend, Resemblyzer)
    assert find("speaker_similarity_resemblyzer").model.load() is backend
