"""`tiny`: what its model card promises of size, delay, codes and quality, and that its training survives a kill."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earmark import metrics
from earmark.codecs import calls, registry
from earmark.codecs.tiny import codec, model
from earmark.data import audio
from earmark.tests.helpers import PATIENCE_S, ROOT, read_rows, voice
from earmark.training import losses, mdct_rvq
from earmark.training.codebooks import Codebooks, kmeans

HOP = model.HOP
NAMES = ["tiny-1", "tiny-2", "tiny-4", "tiny-8"]
LENGTHS = [1, 2, HOP - 1, HOP, HOP + 1, 7 * HOP - 1, 7 * HOP, 12345]
CLIPS = 6  # real ones, one a speaker
SQUARE = torch.arange(8000.0).sin().sign()[None, None]  # 2.5 kHz at full scale


@functools.cache
def load(name: str = "tiny-8") -> Any:
    return registry.load(registry.find(name), "cpu")


def speech(seconds: float = 1.0, pitch: float = 140.0) -> torch.Tensor:
    """A voice-like sound [1, 1, L]."""
    return torch.from_numpy(np.atleast_2d(voice(seconds, model.SAMPLE_RATE, pitch)).astype(np.float32))[None]


def encode(wav: torch.Tensor, name: str = "tiny-8", length: int | None = None) -> torch.Tensor:
    """Codes [1, K, T] of the first `length` samples of wav [1, 1, L]."""
    lengths = torch.tensor([wav.shape[-1] if length is None else length])
    with torch.no_grad():
        return load(name).encode(wav, lengths, seed=0).codes


def reconstruct(wav: torch.Tensor, name: str = "tiny-8") -> torch.Tensor:
    """[1, 1, L] -> [1, 1, L'], as the suites call it."""
    return calls.reconstruct(load(name), registry.find(name).info, wav, torch.tensor([wav.shape[-1]]), 0)[0]


# -- chunk by chunk --


@pytest.mark.parametrize("length", LENGTHS)
def test_a_stream_gives_what_the_clip_gives_at_once(length):
    wav, tiny = speech()[..., :length], load()
    parts = [*calls.stream(tiny, tiny.info, wav, HOP, 0)]
    assert torch.equal(torch.cat([part.codes for part in parts], 2), encode(wav))
    heard = torch.cat([part.sound for part in parts], 2)
    torch.testing.assert_close(heard, reconstruct(wav), rtol=0, atol=1e-5)  # float32, sums in another order


def test_a_stream_waits_no_longer_than_it_must():
    """55 ms and what is left to whole chunks: frame t is heard from 120 samples before it, when t + 2 has come."""
    tiny = load()
    parts = [*calls.stream(tiny, tiny.info, speech(0.5), HOP, 0)]
    assert [part.codes.shape[2] for part in parts[:3]] == [0, 1, 1]
    assert [part.sound.shape[2] for part in parts[:4]] == [0, 0, HOP - model.EDGE, HOP]
    assert calls.stream_delay(parts) == 3 * HOP + model.EDGE
    assert model.DELAY <= 3 * HOP + model.EDGE <= model.DELAY + HOP


# -- what is in the repository --


def test_everything_in_the_weights_is_under_two_million():
    assert model.count(load().model) < 2_000_000
    assert codec.WEIGHTS.stat().st_size <= 8_000_000


def test_the_row_pins_network_and_weights():
    """Stored results are filed under the row's revision: new weights or another network must give another one."""
    content = Path(model.__file__).read_bytes() + codec.WEIGHTS.read_bytes()
    assert registry.find("tiny-8").info.revision == hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize("name", NAMES)
def test_the_row_counts_the_codebooks_that_are_used(name):
    entry = registry.find(name)
    assert entry.info.bitrate_kbps == 0.5 * entry.options["codebooks"]
    with pytest.raises(ValueError, match="declares"):
        codec.Tiny(entry.info, "cpu", codebooks=3)


# -- lengths, batches, padding, determinism --


@pytest.mark.parametrize("length", LENGTHS)
def test_a_frame_for_every_20_ms_begun(length):
    """T = ceil(L / 320), and the sound covers the clip."""
    wav = speech()[..., :length]
    assert encode(wav).shape == (1, 8, -(-length // HOP))
    assert reconstruct(wav).shape == (1, 1, -(-length // HOP) * HOP)


@pytest.mark.parametrize("length", LENGTHS)
def test_padding_changes_no_code(length):
    wav = speech()
    assert torch.equal(encode(wav, length=length), encode(wav[..., :length]))


def test_a_clip_in_a_batch_is_the_clip_alone():
    wavs = [speech(0.5), speech(1.0, 210.0), speech(0.77, 95.0)]
    lengths = torch.tensor([wav.shape[-1] for wav in wavs])
    longest = int(lengths.max())
    batch = torch.cat([torch.nn.functional.pad(wav, (0, longest - wav.shape[-1]), value=0.5) for wav in wavs])
    with torch.no_grad():
        encoded = load().encode(batch, lengths, seed=0)
        decoded = load().decode(encoded, seed=0)
    for i, wav in enumerate(wavs):
        frames = int(encoded.frames[i])
        assert torch.equal(encoded.codes[i : i + 1, :, :frames], encode(wav))
        assert (encoded.codes[i, :, frames:] == -1).all()
        assert torch.equal(decoded[i : i + 1, :, : frames * HOP], reconstruct(wav))


@pytest.mark.parametrize("name", NAMES)
def test_twice_is_the_same(name):
    assert torch.equal(reconstruct(speech(), name), reconstruct(speech(), name))


@pytest.mark.parametrize("name", NAMES)
def test_fewer_codebooks_are_a_prefix(name):
    codes = encode(speech(), name)
    assert torch.equal(codes, encode(speech())[:, : codes.shape[1]])


@pytest.mark.parametrize(
    "wav",
    [torch.zeros(1, 1, 8000), torch.full((1, 1, 8000), 0.5), SQUARE, speech() * 1e-4],
    ids=["silence", "DC", "full scale", "very quiet"],
)
def test_awkward_sound_is_coded(wav):
    decoded = reconstruct(wav)
    assert torch.isfinite(decoded).all()
    assert decoded.abs().max() < 2.5


def test_silence_stays_quiet():
    assert reconstruct(torch.zeros(1, 1, 16000)).abs().max() < 0.01


@pytest.mark.parametrize("kind", ["unquantized", "quantized", "codebook:0"])
def test_latents(kind):
    latents, frames = load().latents(speech(), torch.tensor([16000]), kind, seed=0)
    assert latents.shape == (1, model.DIM, 50)
    assert frames.tolist() == [50]


def test_the_codes_are_all_that_the_decoder_knows():
    """Latents 'quantized' decode to the reconstruction."""
    with torch.no_grad():
        latents, _ = load().latents(speech(), torch.tensor([16000]), "quantized", seed=0)
        assert torch.equal(load().synthesise(latents), reconstruct(speech()))


# -- causality, measured: change the future and see what stays --


@pytest.mark.parametrize("changed", [3210, 4799, 4800, 4801, 8000])
def test_codes_wait_for_no_more_than_the_stated_look_ahead(changed):
    """The codes of frame t depend on samples before 320 (t + 1) + LOOKAHEAD."""
    wav, other = speech(), speech()
    other[..., changed:] = 0.3 * torch.randn(other[..., changed:].shape, generator=torch.Generator().manual_seed(0))
    before, after = encode(wav), encode(other)
    kept = (changed - model.LOOKAHEAD) // HOP
    assert torch.equal(before[..., :kept], after[..., :kept])
    assert not torch.equal(before, after)


@pytest.mark.parametrize("changed", [3210, 4799, 4800, 4801, 8000])
def test_sound_waits_for_no_more_than_the_stated_delay(changed):
    """Sample n of the reconstruction depends on samples up to n + DELAY, and on some that are nearly as late."""
    wav, other = speech(), speech()
    other[..., changed:] = 0.3 * torch.randn(other[..., changed:].shape, generator=torch.Generator().manual_seed(0))
    differs = (reconstruct(wav) - reconstruct(other)).abs()[0, 0] > 1e-6  # sums in another order
    first = int(differs.nonzero()[0])
    assert changed - model.DELAY <= first < changed


@pytest.mark.parametrize("frame", [5, 20])
def test_a_code_changes_no_sound_before_it_was_heard(frame):
    """Code t reaches samples from 320 (t - 1) - EDGE on."""
    codes = encode(speech())
    other = codes.clone()
    other[..., frame:] = (other[..., frame:] + 1) % model.ENTRIES
    with torch.no_grad():
        one, two = (load().synthesise(load().dequantise(some)) for some in (codes, other))
    early = HOP * (frame - 1) - model.EDGE
    torch.testing.assert_close(one[..., :early], two[..., :early], rtol=0, atol=1e-6)
    assert not torch.allclose(one[..., early:], two[..., early:], rtol=0, atol=1e-3)


def test_a_stream_may_be_cut_anywhere():
    """Codes of a clip's beginning are the beginning of its codes, once the look-ahead has arrived."""
    wav = speech()
    whole, part = encode(wav), encode(wav[..., : 20 * HOP])
    assert (whole[..., :19] == part[..., :19]).float().mean() > 0.999  # kernels round by length, rarely to another code


# -- quality --


@functools.cache
def real_scores(name: str, folder: Path) -> dict[str, float]:
    """Mean metrics over one clip of each speaker of librispeech_test_other."""
    rows = {row["speaker"]: row for row in read_rows(folder) if row["dataset"] == "librispeech_test_other"}
    values: dict[str, list[float]] = {"stoi": [], "estoi": [], "pesq_wb": []}
    for row in list(rows.values())[:CLIPS]:
        wav, _ = audio.read(folder / row["path"])
        decoded = reconstruct(torch.from_numpy(wav)[None], name)[0, :, : wav.shape[1]].numpy()
        for metric, found in values.items():
            found.append(float(metrics.compute(metric, wav, decoded, model.SAMPLE_RATE)[0]))
    return {metric: float(np.mean(found)) for metric, found in values.items()}


def test_speech_is_as_good_as_the_model_card_says(real):
    """With a margin for six clips instead of sixty."""
    found = real_scores("tiny-8", real)
    assert found["stoi"] > 0.86, found
    assert found["estoi"] > 0.74, found
    assert found["pesq_wb"] > 1.75, found


@pytest.mark.parametrize(("fewer", "more"), list(itertools.pairwise(NAMES)))
def test_more_codebooks_are_better(real, fewer, more):
    low, high = real_scores(fewer, real), real_scores(more, real)
    assert all(low[metric] < high[metric] for metric in low), (low, high)


# -- training --


@pytest.mark.parametrize("window", losses.SCALES)
def test_a_perfect_match_has_no_loss_and_noise_has_more_the_louder(window):
    wav = speech()[0]
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    rows = [losses.at_scale(wav, wav + level * noise, window) for level in (0, 0.001, 0.01, 0.1)]
    for column in zip(*rows, strict=True):
        assert column[0] == 0
        assert list(column) == sorted(column)


def test_loudness_of_disturbances():
    """None in a perfect match; noise adds more than as much silence takes away; what is masked is not heard."""
    wav = speech()[0]
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    perfect, masked, quiet, loud = (losses.disturbance(wav, wav + level * noise) for level in (0, 1e-5, 0.01, 0.1))
    assert perfect < 2e-2  # the root's own floor, in loud seconds less
    assert abs(masked - perfect) < 1e-2
    assert perfect < quiet < loud
    assert losses.disturbance(0.5 * wav, wav) > losses.disturbance(wav, 0.5 * wav)


def test_frames_of_the_baseline_come_back_unquantised():
    """MDCT with a sine window: time-domain aliasing cancels."""
    wav = speech()[0, 0]
    torch.testing.assert_close(mdct_rvq.inverse(mdct_rvq.forward(wav))[: len(wav)], wav, rtol=0, atol=1e-4)  # float32


def test_kmeans_finds_clusters_that_are_there():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    draw = torch.Generator().manual_seed(0)
    points = centres.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=draw)
    found = kmeans(points, 3, draw, rounds=30)
    assert sorted(torch.cdist(centres, found).argmin(1).tolist()) == [0, 1, 2]


def test_an_entry_that_nobody_uses_starts_anew():
    books = torch.zeros(1, 4, 2)
    books[0, 3] = 100.0  # far from everything
    trained = Codebooks(books)
    trained.counts += 1
    trained.counts[0, 3] = 1e-3
    trained.sums = books.clone()
    trained(torch.randn(2, 8, 2), torch.tensor([1, 1]), torch.Generator().manual_seed(0))
    assert trained.restarts >= 1
    assert books[0, 3].abs().max() < 10


TRAIN = ["--steps", "20", "--decay", "4", "--every", "1", "--save", "3", "--batch", "2", "--frames", "25"]
TRAIN += ["--files", "6", "--free", "2"]


KILLED_AT_7 = """
import os, signal, sys
from earmark.training import tiny

write = tiny.Log.write

def write_and_die(log, values, step):
    write(log, values, step)
    if step == 7:
        os.kill(os.getpid(), signal.SIGKILL)

tiny.Log.write = write_and_die
tiny.main(sys.argv[1:])
"""


def training(out: Path, *how: str) -> int:
    """Train in a process of its own; its exit code."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(how or ("-m", "earmark.training.tiny")), "--out", str(out), *TRAIN]
    return subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, timeout=PATIENCE_S).returncode


def logged(out: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


@pytest.mark.usefixtures("real")
def test_training_goes_on_after_a_kill_to_the_same_loss(tmp_path):
    """Killed between two checkpoints, after the codebooks have started; the log and the weights are those of a run
    that was left alone."""
    assert training(tmp_path / "whole") == 0
    assert training(tmp_path / "killed", "-c", KILLED_AT_7) == -signal.SIGKILL
    assert (tmp_path / "killed" / "checkpoint.pt").exists()
    assert len(logged(tmp_path / "killed")) == 7
    assert training(tmp_path / "killed") == 0
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")
    one, two = ((tmp_path / name / "tiny.safetensors").read_bytes() for name in ("killed", "whole"))
    assert one == two


def test_the_data_list_holds_nothing_that_may_not_train(real):
    """No test set, no share-alike, no non-commercial file; the test fold and the held-out music stay out."""
    from earmark.training.tiny_data import rows

    mine = {row["path"] for row in rows() if row["root"] == "data"}
    found = {row["path"]: row for row in read_rows(real)}
    assert {found[path]["dataset"] for path in mine} == {"librispeech_train_clean_100", "esc10", "music"}
    assert not [path for path in mine if found[path]["fold"] == "5" or "MIT" in found[path]["licence"]]
