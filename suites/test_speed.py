"""How fast is the codec, and what does it take? Times by pytest-benchmark, which measures alone: `-n 0`.

Every time is beside the same time in units of a calibration kernel, measured in this run: thresholds hold on that.
"""

import pytest

from earmark.contract import CHECKS, Subject, judge
from earmark.scoring import speed, streams

pytestmark = pytest.mark.suite("speed", needs="reconstruct")
of_tokens = pytest.mark.suite("speed", needs=("encode", "decode"))
of_latents = pytest.mark.suite("speed", needs="embed")
of_all = pytest.mark.suite("speed")
of_streams = pytest.mark.suite("speed", needs=("reconstruct", "stream"))


@pytest.fixture
def rounds(benchmark):
    """`rounds(call)`: seconds of each round, after one that is not counted."""

    def time_it(call):
        benchmark.pedantic(call, rounds=speed.ROUNDS, warmup_rounds=1)
        if benchmark.stats is None:
            pytest.skip("pytest-benchmark is switched off here: nothing is timed")
        return benchmark.stats.stats.data

    return time_it


@pytest.fixture(scope="session")
def kernel_s(store):
    """Seconds of the calibration kernel on this machine, the median of many."""
    return speed.seconds_of(speed.kernel(store.device), rounds=20)


def factors(what, seconds, codec, kernel_s, scores, of_sound=speed.SECONDS):
    """Real-time factors from the seconds of each round, and the same in calibration kernels."""
    factor, relative = (speed.of_rounds(seconds, 1 / of_sound / unit) for unit in (1, kernel_s))
    return (
        scores("real_time_factor", codec, speed.SOUND, found=factor, variant=what),
        scores("kernels_per_second", codec, speed.SOUND, found=relative, variant=what),
    )


def test_real_time_factor(codec, store, rounds, kernel_s, scores, gate):
    """Seconds to encode and decode a second of sound, one clip at a time (lower is better)."""
    gate(*factors("both", rounds(speed.timed(codec, store, "both")), codec, kernel_s, scores))


@of_tokens
def test_real_time_factor_of_encoding(codec, store, rounds, kernel_s, scores, gate):
    """Seconds to encode a second of sound, one clip at a time (lower is better)."""
    gate(*factors("encode", rounds(speed.timed(codec, store, "encode")), codec, kernel_s, scores))


@of_tokens
def test_real_time_factor_of_decoding(codec, store, rounds, kernel_s, scores, gate):
    """Seconds to decode a second of sound, one clip at a time (lower is better)."""
    gate(*factors("decode", rounds(speed.timed(codec, store, "decode")), codec, kernel_s, scores))


def test_best_batch(codec, store, scores, gate):
    """Seconds a second of sound in the batch that is fastest (lower is better)."""
    batch, each = speed.best_batch(codec, store, speed.seconds_of)
    found = speed.of_rounds([each], notes=[f"batch {batch}"])
    gate(scores("real_time_factor", codec, speed.SOUND, found=found, variant="best_batch"))


def test_one_frame(codec, store, rounds, scores, gate):
    """Milliseconds to encode and decode a clip of one frame (lower is better)."""
    frame_s = 1 / (codec.info.frame_rate or 50)
    seconds = rounds(speed.timed(codec, store, "both", seconds=frame_s))
    gate(scores("one_frame_ms", codec, speed.SOUND, found=speed.of_rounds(seconds, 1000)))


@of_streams
def test_stream(codec, store, rounds, kernel_s, scores, gate):
    """Milliseconds of work to the first sound of a stream, and for a chunk after it (lower is better)."""
    stream, each = streams.streaming(codec, store), []
    seconds = rounds(lambda: each.append(stream.call()))
    of, notes = streams.summaries(each[-len(seconds) :]), [f"chunks of {1000 * stream.chunk_s:.4g} ms"]

    def found(what, unit_s):
        return {"found": speed.of_rounds(of[what], 1 / unit_s, notes)}

    delay = speed.exact(1000 * stream.delay_s, [*notes, "of sound that is waited for; work is not in it"])
    gate(
        scores("first_chunk_ms", codec, speed.SOUND, **found("first", 1e-3)),
        *(scores("chunk_ms", codec, speed.SOUND, **found(what, 1e-3), variant=what) for what in ("median", "p95")),
        *(scores("kernels_per_chunk", codec, speed.SOUND, **found(what, kernel_s), variant=what) for what in of),
        *factors("stream", seconds, codec, kernel_s, scores, stream.sound_s),
        scores("stream_delay_ms", codec, speed.SOUND, found=delay),
    )


def test_algorithmic_delay(codec, store, scores, gate):
    """How far the codec looks ahead, its frame included (ms, lower is better); measured, so a lower bound."""
    subject = Subject(codec, store.device, lambda: store.adapter(codec))
    judge(CHECKS["streaming"], subject)
    found = speed.exact(subject.measured["lookahead_ms"], ["a lower bound: no input beyond it was seen to matter"])
    gate(scores("algorithmic_delay_ms", codec, speed.SOUND, found=found))


@of_all
def test_size(codec, store, scores, gate):
    """Parameters, codebooks included (millions); of what decodes, multiply-adds for a second of sound (billions)."""
    counted = speed.parameters(store.adapter(codec))
    macs = speed.macs_per_second(codec, store) if "reconstruct" in codec.info.capabilities else None
    if counted is None and macs is None:
        pytest.skip(f"{codec.name} is not made of torch modules: nothing can be counted")
    found = []
    if counted is not None:
        found.append(scores("parameters_million", codec, speed.SOUND, found=speed.exact(counted / 1e6)))
    if macs is not None:
        notes = ["recurrent layers are not counted"]
        found.append(scores("gmacs_per_second", codec, speed.SOUND, found=speed.exact(macs / 1e9, notes)))
    gate(*found)


@of_latents
def test_latent_size(codec, store, scores, gate):
    """Numbers in a frame of latents, and frames a second, quantized and unquantized."""
    found = []
    for kind in speed.sized_kinds(codec):
        dimensions, rate = speed.latent_size(codec, store, kind)
        found.append(scores("latent_dimensions", codec, speed.SOUND, found=speed.exact(dimensions), variant=kind))
        found.append(scores("latent_frame_rate", codec, speed.SOUND, found=speed.exact(rate), variant=kind))
    if not found:
        pytest.skip(f"{codec.name} has neither quantized nor unquantized latents")
    gate(*found)


def test_process(codec, store, scores, gate):
    """Seconds from nothing to the first second of sound, and peak memory (MiB) beyond torch's own."""
    taken = speed.fresh_process(codec, store.device)
    gate(
        scores("start_up_s", codec, speed.SOUND, found=speed.of_rounds([taken["start_s"]])),
        scores("peak_memory_mib", codec, speed.SOUND, found=speed.of_rounds([taken["peak_mb"]])),
    )
