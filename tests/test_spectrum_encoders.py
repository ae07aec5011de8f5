"""What only the encoders of the mel spectrum do: clips beyond their window, on thin random models."""

from __future__ import annotations

import pytest

from earmark.codecs.contract import Info

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.codecs.spectrum_encoders import Clap  # noqa: E402
from earmark.tests.thin_encoders import cache_of_all, embed, frames_of, loader, noise  # noqa: E402, F401 (fixtures)  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["whisper", "qwen2-audio"])
def test_beyond_thirty_seconds_each_piece_is_heard_by_itself(name, load):
    adapter, clip = load(name), noise(30 * 16000 + 5000)
    found, frames = embed(adapter, clip)
    assert frames.tolist() == [frames_of(name, len(clip))]
    parts = [embed(adapter, part)[0] for part in clip.split(30 * 16000)]
    assert torch.equal(found, torch.cat(parts, dim=2))


def test_ast_hears_a_long_clip_without_a_seam(load):
    """Frame 101 is the first of the second piece; the patches before and after hold what they hold in the whole."""
    adapter, clip = load("ast"), noise(25 * 16000)
    found, frames = embed(adapter, clip)
    assert frames.tolist() == [frames_of("ast", len(clip))] == [250]
    second, _ = embed(adapter, clip[101 * 1600 :][: 400 + 1023 * 160])
    torch.testing.assert_close(found[:, :, 101:202], second[:, :, :101], rtol=0, atol=1e-5)
    for length in (164079, 164080, 164081, 161600 + 2400, 161600 + 239, 161600 + 240, 323200 + 400):
        assert embed(adapter, noise(length))[1].tolist() == [frames_of("ast", length)]


def test_clap_hears_full_windows_the_last_at_the_end(load):
    adapter, clip = load("clap"), noise(23 * 48000)
    found, frames = embed(adapter, clip)
    assert frames.tolist() == [3]
    parts = [embed(adapter, clip[start:][:480000])[0] for start in (0, 480000, 13 * 48000)]
    assert torch.equal(found, torch.cat(parts, dim=2))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1, 3))


def test_a_clap_that_draws_at_random_is_refused(load):
    extractor = transformers.ClapFeatureExtractor()  # truncation "fusion"
    info = Info(name="fused", sample_rate=48000, frame_rate=0.1, latent_kinds=("unquantized",))
    with pytest.raises(ValueError, match="fused: a fused CLAP hears random crops; expected an unfused checkpoint"):
        Clap(info, "cpu", model=load("clap").model, extractor=extractor)
