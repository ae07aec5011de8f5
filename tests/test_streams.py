"""Streams: what the calls let through, what is a chunk, what a delay, and whose time is counted."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from earmark.codecs import calls, registry  # noqa: E402
from earmark.codecs.calls import CodecError, Part  # noqa: E402
from earmark.codecs.carried import Past  # noqa: E402
from earmark.scoring import speed, streams  # noqa: E402
from earmark.store.store import Store  # noqa: E402
from earmark.tests import own_codecs  # noqa: E402
from earmark.tests import thin_transformers as thin  # noqa: E402

INFO = own_codecs.Live.info
LIVE = registry.find("earmark.tests.own_codecs:Live")
SOUND = torch.zeros(1, 1, 160)


class Yields:
    """A codec whose stream yields what it is told for each chunk."""

    def __init__(self, *parts):
        self.parts = parts

    def stream(self, chunks, seed):
        yield from (part for part, _ in zip(self.parts, chunks, strict=True))


def streamed(adapter, chunks=2):
    return [*calls.stream(adapter, INFO, SOUND.repeat(1, 1, chunks), 160, 0)]


def codes(value=0, dtype=torch.int64, books=1):
    return torch.full((1, books, 80), value, dtype=dtype)


# The calls.


def test_a_stream_is_told_part_by_part():
    found = streamed(Yields((None, None), (codes(), SOUND)))
    assert [part.given for part in found] == [160, 320]
    assert found[0][:2] == (None, None)
    assert found[1].codes.shape == (1, 1, 80)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (None, r"stream yielded NoneType, expected a pair"),
        (SOUND, r"stream yielded Tensor, expected a pair \(codes or None, wav or None\)"),
        ((codes(256), SOUND), "codes run from 256 to 256, expected 0 to V-1"),
        ((codes(books=2), SOUND), r"codes are torch.int64 \[1, 2, 80\], expected int64 \[1, 1, T\]"),
        ((codes().tolist(), SOUND), "codes are list, expected a tensor"),
        ((torch.tensor(3), SOUND), r"codes are torch.int64 \[\], expected int64 \[1, 1, T\]"),
        ((None, SOUND[0]), r"returned \[1, 160\] for a wav of \[1, 1, 320\]"),
        ((None, SOUND.double()), "returned torch.float64, expected torch.float32"),
        ((None, SOUND / 0), "returned NaN or infinite samples"),
    ],
)
def test_what_the_contract_does_not_allow_is_the_codecs_failure(part, message):
    with pytest.raises(CodecError, match=f"codec failed: live: {message}"):
        streamed(Yields((None, None), part))


def test_a_stream_that_takes_ahead_or_ends_early_is_refused():
    class Ahead:
        def stream(self, chunks, seed):
            yield from (SOUND for _ in itertools.pairwise(chunks))

    class Twice:
        def stream(self, chunks, seed):
            yield from ((None, None) for _ in chunks for _ in range(2))

    class Early:
        def stream(self, chunks, seed):
            next(chunks)
            yield None, SOUND

    for adapter, message in (
        (Ahead(), "stream took 2 chunks and yielded 1 times, expected one pair"),
        (Twice(), "stream took 1 chunks and yielded 2 times, expected one pair"),
        (Early(), "stream ended after 1 of 2 chunks"),
    ):
        with pytest.raises(CodecError, match=f"codec failed: live: {message}"):
            streamed(adapter)


def test_what_a_stream_raises_is_the_codecs_failure():
    with pytest.raises(CodecError, match=r"codec failed: live: stream raised ValueError: zip\(\)"):
        streamed(Yields((None, None)))
    with pytest.raises(CodecError, match=r"^codec failed: live: given NaN or infinite samples"):
        next(calls.stream(Yields((None, None)), INFO, SOUND / 0, 160, 0))


@pytest.mark.parametrize(
    ("rate", "frame_rate", "samples"),
    [
        (16000, 50, 320),
        (24000, 12.5, 1920),
        (44100, 44100 / 512, 512),
        (24000, 150, 320),  # two frames
        (16000, 8000, 160),
        (48000, None, 960),  # no frames: 20 ms
    ],
)
def test_a_chunk_is_a_frame_or_the_frames_that_fill_10_ms(rate, frame_rate, samples):
    info = INFO.model_copy(update={"sample_rate": rate, "frame_rate": frame_rate})
    assert calls.chunk_samples(object(), info, rate) == samples


def test_an_adapter_says_its_own_chunk():
    adapter = Yields()
    adapter.chunk_samples = 7
    assert calls.chunk_samples(adapter, INFO, 16000) == 7


def part(samples, given):
    return Part(None, None if samples is None else torch.zeros(1, 1, samples), given)


@pytest.mark.parametrize(
    ("parts", "delay"),
    [
        ([part(100, 100), part(100, 200)], 100),  # the first of each waits for the last of its chunk
        ([part(None, 100), part(0, 200), part(200, 300), part(100, 300)], 300),
        ([part(60, 100), part(100, 200), part(140, 200)], 140),  # 40 behind: sample 60 comes when 200 are given
        ([], 0),
    ],
)
def test_the_delay_of_a_stream_by_hand(parts, delay):
    assert calls.stream_delay(parts) == delay


# What is timed.


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "cpu", "run1")


def test_times_by_hand(store, monkeypatch):
    """Four chunks of 10 ms; the parts take 1, 2, 4, 8 and 16 s. Sound comes with the second; the last is no chunk."""
    monkeypatch.setattr(speed, "SECONDS", 0.04)
    monkeypatch.setattr(streams, "CHUNKS", 1)
    ticks = iter([100, 101, 103, 107, 115, 131])
    stream = streams.streaming(LIVE, store, lambda: next(ticks))
    assert (stream.sound_s, stream.chunk_s, stream.delay_s) == (0.04, 0.01, 0.02)
    assert stream.call() == (3.0, [4.0, 8.0])
    assert next(ticks, None) is None


def test_a_stream_is_long_enough_for_twenty_chunks(store, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.04)
    stream = streams.streaming(LIVE, store)
    assert stream.sound_s == pytest.approx(0.2)
    assert len(stream.call().chunks) == 18  # all but the two until the first sound


@pytest.mark.parametrize("last", [(None, None), (None, SOUND)])
def test_a_stream_that_waits_for_the_end_has_nothing_to_time(store, monkeypatch, last):
    monkeypatch.setattr(Store, "adapter", lambda self, entry: Yields(*[(None, None)] * 499, last))
    with pytest.raises(CodecError, match="codec failed: live: stream gave no sound before the last of 500 chunks"):
        streams.streaming(LIVE, store).call()


def test_summaries_by_hand():
    """Of 0 .. 100 the median is 50, and 95 % are 95 or less."""
    times = streams.Times(3.0, [float(second) for second in range(101)])
    assert streams.summaries([times, times]) == {"first": [3.0, 3.0], "median": [50.0, 50.0], "p95": [95.0, 95.0]}


# What is carried.


def test_a_causal_convolution_in_chunks_is_the_one_at_once():
    layer, past = torch.nn.Conv1d(2, 3, 5, dilation=2), Past(dim=2)
    wav = torch.randn(1, 2, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = layer(torch.nn.functional.pad(wav, (8, 0)))
        chunks = [layer(past(layer, chunk, 8)) for chunk in wav.split([1, 3, 20, 16], dim=2)]
    torch.testing.assert_close(torch.cat(chunks, 2), whole)


@pytest.mark.usefixtures("inference", "one_thread")
def test_mimi_streams_beyond_its_attention_span_and_two_at_a_time():
    """Its attention sees 250 steps at 25 Hz, 10 s; here are 11. Random weights are loud."""
    adapter = thin.build("mimi")
    wavs = [thin.noise("mimi", length, seed=seed) for seed, length in enumerate([11 * 24000, 11 * 24000 - 100])]
    both = zip(*(calls.stream(adapter, adapter.info, wav, 1920, 0) for wav in wavs), strict=True)
    for wav, parts in zip(wavs, zip(*both, strict=True), strict=True):
        encoded = adapter.encode(wav, torch.tensor([wav.shape[-1]]), 0)
        assert torch.equal(torch.cat([part.codes for part in parts], 2), encoded.codes)
        heard, whole = torch.cat([part.sound for part in parts], 2), adapter.decode(encoded, 0)
        assert heard.shape == whole.shape
        assert (heard - whole).abs().max() < 1e-5 * whole.abs().max()
        assert calls.stream_delay(parts) == 1920
