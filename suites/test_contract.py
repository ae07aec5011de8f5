"""Does the codec keep its promises? The contract that everything else in Earmark, and any language model, stands on.

Each test says what it expected, what came and why it matters. The signal is a seeded mixture of a voiced sound, noise
and silence, so that the suite needs no data.
"""

import numpy as np
import pytest

from earmark.codecs import calls

pytestmark = pytest.mark.suite("contract", needs="reconstruct")

DEFAULT_HZ = 24000  # for a codec that takes any rate
SEED = 0
TOLERANCE = 1e-4  # batch against single: float32 sums in another order


def signal(codec, samples, pitch_hz=140.0):
    """float32 [1, C, samples]: harmonics of a gliding pitch, noise and a pause, at most .5 in size."""
    rate = codec.info.sample_rate or DEFAULT_HZ
    time = np.arange(samples) / rate
    phase = 2 * np.pi * pitch_hz * (time + 0.05 * np.sin(2 * np.pi * 1.5 * time))
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(int(pitch_hz)).standard_normal(samples)
    wave = (voice + 0.2 * noise) * (np.sin(2 * np.pi * 1.1 * time) > -0.6)
    wave = 0.5 * wave / max(1.0, float(np.abs(wave).max(initial=0.0)))
    return np.repeat(wave[None, None].astype(np.float32), codec.info.channels, axis=1)


def hop(codec):
    """Samples of a frame; 20 ms where the codec has no frames."""
    rate = codec.info.sample_rate or DEFAULT_HZ
    return max(1, round(rate / (codec.info.frame_rate or 50)))


def run(codec, adapter, wavs, device):
    """Reconstruct a list of wavs [1, C, L] as one zero-padded batch; each comes back cut to its own length."""
    import torch

    longest = max(wav.shape[2] for wav in wavs)
    batch = np.concatenate([np.pad(wav, ((0, 0), (0, 0), (0, longest - wav.shape[2]))) for wav in wavs])
    lengths = torch.tensor([wav.shape[2] for wav in wavs], device=device)
    decoded, bits = calls.reconstruct(adapter, codec.info, torch.from_numpy(batch).to(device), lengths, SEED)
    arrays = decoded.cpu().numpy()
    return [arrays[i, :, : wav.shape[2]] for i, wav in enumerate(wavs)], bits


@pytest.fixture
def adapter(codec, store):
    return store.adapter(codec)


def test_length(codec, adapter, store):
    """Output covers the input at every length around the frame: a codec that drops a tail shifts all that follows."""
    step = hop(codec)
    for samples in (1, step - 1, step, step + 1, 3 * step + step // 2, 10000):
        if samples < 1:
            continue
        (decoded,), _ = run(codec, adapter, [signal(codec, samples)], store.device)
        assert decoded.shape[1] == samples, (
            f"{codec.name}: {samples} samples in, {decoded.shape[1]} out (a frame is {step}); expected at least "
            f"as many, or reference and reconstruction drift apart"
        )


def test_range(codec, adapter, store):
    """Speech at half of full scale comes back within twice full scale, and silence comes back quieter than speech."""
    samples = (codec.info.sample_rate or DEFAULT_HZ) * 2
    (loud,), _ = run(codec, adapter, [signal(codec, samples)], store.device)
    assert np.abs(loud).max() <= 2.0, f"{codec.name}: peak {np.abs(loud).max():.2f} from a peak of 0.5"


def test_silence(codec, adapter, store):
    """Silence in gives finite samples out."""
    samples = (codec.info.sample_rate or DEFAULT_HZ) // 2
    (quiet,), _ = run(codec, adapter, [np.zeros_like(signal(codec, samples))], store.device)
    assert np.isfinite(quiet).all()


def test_determinism(codec, adapter, store):
    """The same clip twice gives the same samples: otherwise no score can be repeated, and tokens carry noise."""
    wav = signal(codec, 20 * hop(codec))
    (first,), _ = run(codec, adapter, [wav], store.device)
    (second,), _ = run(codec, adapter, [wav], store.device)
    assert np.array_equal(first, second), f"{codec.name}: runs differ by up to {np.abs(first - second).max():.2e}"


def test_batch_equals_single(codec, adapter, store):
    """A clip in a batch of other lengths comes back as it does alone: padding that leaks changes tokens and scores."""
    wavs = [signal(codec, int(hop(codec) * frames), pitch) for frames, pitch in ((20, 140.0), (7.3, 210.0), (13, 95.0))]
    together, _ = run(codec, adapter, wavs, store.device)
    for wav, batched in zip(wavs, together, strict=True):
        (alone,), _ = run(codec, adapter, [wav], store.device)
        difference = float(np.abs(batched - alone).max())
        assert difference <= TOLERANCE, (
            f"{codec.name}: a clip of {wav.shape[2]} samples differs by {difference:.2e} in a batch; "
            f"expected at most {TOLERANCE:.0e}"
        )


def test_padding(codec, adapter, store):
    """What lies in the padding does not reach the clip."""
    import torch

    wav = signal(codec, 9 * hop(codec) + 3)
    length = wav.shape[2]
    (clean,), _ = run(codec, adapter, [wav], store.device)
    dirty = torch.from_numpy(np.concatenate([wav, signal(codec, 5 * hop(codec), 333.0)], axis=2)).to(store.device)
    decoded, _ = calls.reconstruct(adapter, codec.info, dirty, torch.tensor([length], device=store.device), SEED)
    difference = float(np.abs(decoded[0, :, :length].cpu().numpy() - clean).max())
    assert difference <= TOLERANCE, f"{codec.name}: garbage beyond the clip's end changes it by {difference:.2e}"


def test_codes(codec, adapter, store):
    """Codes lie in their codebooks and come at the declared frame rate: language models are built on both."""
    import torch

    if "encode" not in codec.info.capabilities:
        pytest.skip(f"{codec.name} has no codes")
    rate = codec.info.sample_rate or DEFAULT_HZ
    wav = torch.from_numpy(signal(codec, 4 * rate)).to(store.device)
    encoded = calls.encode(adapter, codec.info, wav, torch.tensor([wav.shape[2]], device=store.device), SEED)
    expected = 4 * codec.info.frame_rate
    assert abs(int(encoded.frames[0]) - expected) <= 2, (
        f"{codec.name}: {int(encoded.frames[0])} frames in 4 s, expected {expected:g} ({codec.info.frame_rate}/s)"
    )


def test_bitrate_is_declared(codec, adapter, store):
    """The bits of the codes are those that the declared codebooks and frame rate promise."""
    if codec.info.bitrate_kbps is None:
        pytest.skip(f"{codec.name} declares no codebooks")
    samples = (codec.info.sample_rate or DEFAULT_HZ) * 4
    _, bits = run(codec, adapter, [signal(codec, samples)], store.device)
    measured = float(bits[0]) / 4000
    assert measured == pytest.approx(codec.info.bitrate_kbps, rel=0.05), (
        f"{codec.name}: spends {measured:.2f} kbit/s, its catalogue row makes it {codec.info.bitrate_kbps:.2f}"
    )
