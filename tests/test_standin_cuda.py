"""The way of a clip on a GPU, on a stand-in for one: every tensor where it must be, and what the CPU gives."""

import copy

import numpy as np
import pytest
import torch

from earmark.codecs import calls, registry
from earmark.data import cards
from earmark.store.jobs import latents_job, sound_job, tokens_job
from earmark.store.store import Store
from earmark.tests import standin_cuda, test_more_codecs, thin_transformers
from earmark.tests.helpers import voice, write_dataset


def test_the_stand_in_refuses_what_a_gpu_refuses():
    with standin_cuda.device():
        there = torch.arange(3.0).to("cuda:0")
        assert there.device == torch.device("cuda", 0)
        assert (2 * there + torch.tensor(1.0)).cpu().numpy().tolist() == [1.0, 3.0, 5.0]
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.zeros(3)
        with pytest.raises(RuntimeError, match="same device"):
            torch.nn.Linear(3, 2)(there)
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(3, generator=torch.Generator(), device="cuda:0")
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        assert torch.nn.LSTM(3, 2).to("cuda:0")(there[None, None])[0].device.type == "cuda"


@pytest.fixture
def clips(tmp_path, monkeypatch):
    wavs = {f"{i}.flac": voice(0.3 + 0.11 * i, 16000, 100 + i) for i in range(4)}
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    return cards.load(cards.select(["d"])[0]).clips


JOBS = {
    "tokens": lambda: tokens_job(registry.find("tiny-2")),
    "sound-of-tokens": lambda: sound_job(registry.find("tiny-2")),
    "sound-of-noise": lambda: sound_job(registry.find("random-codes")),
    "sound-itself": lambda: sound_job(registry.find("lowpass")),
    "sound-on-the-cpu": lambda: sound_job(registry.find("opus-12")),
    "latents": lambda: latents_job(registry.find("tiny-2"), "codebook:0"),
    "baseline": lambda: latents_job(registry.find("mfcc"), "unquantized"),
    "chance": lambda: latents_job(registry.find("random-latents"), "unquantized"),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_gpu_in_batches_gives_what_the_cpu_gives_one_by_one(name, clips, tmp_path):
    job, there = JOBS[name](), Store(tmp_path / "there", "cuda:0", "r")
    with standin_cuda.device():
        found = list(there.outcomes(job, clips))
    assert True in there._batches.values(), "no codec here is changed by batches"
    for made, expected in zip(found, Store(tmp_path / "here", "cpu", "r").outcomes(job, clips), strict=True):
        assert not made.error
        assert made.facts == expected.facts
        for what, array in expected.arrays.items():
            np.testing.assert_allclose(made.arrays[what], array, rtol=0, atol=1e-5)


THIN = {
    **dict.fromkeys(("encodec-48k", "dac-24k", "mimi", "xcodec"), thin_transformers),
    **dict.fromkeys(("neucodec", "pocket", "vibe-sampled"), test_more_codecs),
}


def on_cuda(adapter):
    """The same codec built on `cuda:0`, as a checkpoint is: what its codebooks were summed up to is not yet known."""
    model = copy.deepcopy(adapter.model)
    for module in model.modules():
        if "_embed" in vars(module):
            module._embed = None
    return type(adapter)(adapter.info, "cuda:0", model=model)


def everything(adapter, wav, lengths, device):
    """All that a codec makes of a batch, on the CPU; on a device."""
    info, wav, lengths, made = adapter.info, wav.to(device), lengths.to(device), {}
    if hasattr(adapter, "encode"):
        encoded = calls.encode(adapter, info, wav, lengths, 3)
        made |= {
            "codes": encoded.codes,
            "frames": encoded.frames,
            "sound": calls.decode(adapter, info, encoded, wav, 3),
        }
        made |= encoded.side | {"bits": calls.nominal_bits(info, encoded)}
    else:
        made["sound"] = calls.reconstruct(adapter, info, wav, lengths, 3)[0]
    made["latents"] = calls.latents(adapter, info, wav, lengths, "unquantized", 3)[0]
    return {name: tensor.cpu() for name, tensor in made.items()}


@pytest.mark.parametrize("name", THIN)
def test_an_adapter_puts_every_tensor_where_its_network_is(name):
    """The library's networks, thin; noise is drawn on the CPU from the seed, so that it is the same."""
    with torch.no_grad():
        adapter, wav, lengths = THIN[name].build(name), THIN[name].noise(name, 50000, 2), torch.tensor([50000, 31234])
        expected = everything(adapter, wav, lengths, "cpu")
        with standin_cuda.device():
            made = everything(on_cuda(adapter), wav, lengths, "cuda:0")
    for what, tensor in expected.items():
        torch.testing.assert_close(made[what], tensor, rtol=0, atol=1e-5, msg=lambda text, what=what: f"{what}: {text}")
