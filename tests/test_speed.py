"""Speed and size: what is counted is counted right, what is timed is real work, and nothing is timed beside workers."""

import json

import numpy as np
import pytest
import torch

from earmark.codecs import registry
from earmark.scoring import speed
from earmark.store.store import Store

TINY = registry.find("tiny-2")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "cpu", "run1")


def test_of_rounds_by_hand():
    found = speed.of_rounds([0.4, 0.1, 0.2], scale=1 / 5)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.04, 0.02, 0.08, 3))


def test_one_measurement_has_no_interval():
    found = speed.of_rounds([2.0])
    assert (found.value, np.isnan(found.low), found.method) == (2.0, True, "none: one measurement")


def test_the_sound_is_the_same_every_time_and_within_range():
    wav, lengths = speed.sound(TINY, 0.5, 2, "cpu")
    again, _ = speed.sound(TINY, 0.5, 2, "cpu")
    assert wav.shape == (2, 1, 8000)
    assert lengths.tolist() == [8000, 8000]
    assert torch.equal(wav, again)
    assert float(wav.abs().max()) <= 1


class Layers:
    """A linear layer of 6 x 4 and a codebook of 8 x 3, shared by two names."""

    def __init__(self):
        self.layer = torch.nn.Linear(6, 4)
        self.same = self.layer
        self.book = torch.nn.Module()
        self.book.register_buffer("entries", torch.zeros(8, 3))
        self.book.register_buffer("count", torch.zeros(8))  # one dimension: statistics, not a codebook


def test_parameters_by_hand():
    assert speed.parameters(Layers()) == 6 * 4 + 4 + 8 * 3
    assert speed.parameters(object()) is None


def test_multiply_adds_of_one_convolution_by_hand(store, monkeypatch):
    """Five seconds at 16 kHz through a convolution of 3 taps from 1 to 2 channels: 6 a sample."""
    layer = torch.nn.Conv1d(1, 2, 3, padding=1)
    monkeypatch.setattr(speed.calls, "reconstruct", lambda adapter, info, wav, lengths, seed: layer(wav))
    assert speed.macs_per_second(TINY, store) == pytest.approx(6 * 16000)


class Frames:
    """Latents of 7 numbers a frame of 1000 samples, and two frames more for the ends of a clip."""

    def latents(self, wav, lengths, kind, seed):
        frames = lengths // 1000 + 2
        return torch.zeros(len(wav), 7, int(frames.max()) + 5), frames  # the last five are of nothing


def test_latent_size_by_hand(store, monkeypatch):
    """At 16 kHz 16 frames a second: those at the ends are no rate, and frames beyond the clip's own are not counted."""
    monkeypatch.setattr(store, "adapter", lambda entry: Frames())
    assert speed.latent_size(TINY, store, "quantized") == (7, 16)


def test_the_size_of_layers_and_codebooks_is_not_told():
    assert speed.sized_kinds(TINY) == ["quantized", "unquantized"]
    assert speed.sized_kinds(registry.find("hubert-base")) == ["unquantized"]


def test_the_best_batch_is_the_last_that_was_faster(store):
    """Two at a time take 1.5 times as long as one, four take four times: two are best."""
    seconds = iter([1.0, 1.5, 4.0, 8.0])
    batch, each = speed.best_batch(TINY, store, lambda call: next(seconds))
    assert (batch, each) == (2, pytest.approx(0.75 / speed.SECONDS))


def test_a_batch_that_does_not_fit_ends_the_search(store):
    def seconds(call):
        if seconds.calls:
            raise RuntimeError("out of memory")
        seconds.calls = 1
        return 1.0

    seconds.calls = 0
    assert speed.best_batch(TINY, store, seconds)[0] == 1


def test_a_fresh_process_says_what_it_took():
    taken = speed.fresh_process(TINY, "cpu")
    assert taken["start_s"] > 0
    assert taken["peak_mb"] > 1.9e6 * 4 / 2**20  # its parameters at least


def test_a_process_of_its_own_computes_as_the_store_does(monkeypatch):
    """In float32, whatever the codec's package sets as it is loaded: TF32 has another speed."""
    done, real = [], registry.load
    monkeypatch.setattr(speed.calls, "full_precision", lambda device: done.append(f"precision on {device}"))
    monkeypatch.setattr(registry, "load", lambda *of: done.append("load") or real(*of))
    monkeypatch.setattr(speed.calls, "reconstruct", lambda *of: done.append("reconstruct"))
    speed._measure_this_process("tiny-2", "cpu")
    assert done == ["precision on cpu", "load", "precision on cpu", "reconstruct", "reconstruct"]


def test_a_process_that_fails_says_why():
    broken = registry.find("earmark.tests.own_codecs:Halver").model_copy(
        update={"adapter": "earmark.tests.own_codecs:No"}
    )
    with pytest.raises(RuntimeError, match=r"codec failed: .*: in a process of its own: "):
        speed.fresh_process(broken, "cpu")


def test_the_suite_measures_alone_and_says_so_beside_workers(earmark_pytest, tmp_path):
    which = "tiny-2 and (size or test_algorithmic or test_best or test_one) or live and test_stream"
    asked = ("suites/test_speed.py", "--codec", "tiny-2,earmark.tests.own_codecs:Live", "-k", which)
    alone = earmark_pytest(*asked, "-n0")
    assert alone.returncode == 0, alone.stdout
    found = {
        row["metric"]: row for row in map(json.loads, (tmp_path / "out" / "scores.jsonl").read_text().splitlines())
    }
    assert found["parameters_million"]["value"] == pytest.approx(1.93, abs=0.2)
    assert [found[f"latent_{what}_quantized"]["value"] for what in ("dimensions", "frame_rate")] == [32, 50]
    assert found["algorithmic_delay_ms"]["value"] > 20  # a frame of 20 ms, at least
    assert np.isfinite(found["real_time_factor_best_batch"]["value"])
    assert found["one_frame_ms"]["codec"] == "tiny-2"
    assert found["stream_delay_ms"]["value"] == 20  # it is a chunk of 10 ms late
    chunk = found["chunk_ms_median"]
    assert 0 < chunk["value"] <= found["chunk_ms_p95"]["value"]
    assert chunk["ci_low"] <= chunk["value"] <= chunk["ci_high"]
    assert (chunk["n"], chunk["notes"]) == (5, ["chunks of 10 ms"])
    kernel_ms = chunk["value"] / found["kernels_per_chunk_median"]["value"]
    for in_ms, in_kernels in (("first_chunk_ms", "first"), ("chunk_ms_p95", "p95")):
        in_kernels = found[f"kernels_per_chunk_{in_kernels}"]["value"]
        assert in_kernels == pytest.approx(found[in_ms]["value"] / kernel_ms)
    a_second = 1e3 * found["real_time_factor_stream"]["value"] / found["kernels_per_second_stream"]["value"]
    assert a_second == pytest.approx(kernel_ms)
    beside = earmark_pytest(*asked, "-n1")
    assert beside.returncode == 5  # nothing is left to run
    assert "speed: not measured beside other workers; pytest --pyargs earmark.suites.test_speed -n 0" in beside.stdout
