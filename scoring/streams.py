"""How long a codec takes over each chunk of a live sound: what is timed where it has a `stream` of its own.

The sound lies on the device when the stream begins. Work is counted, waiting for the sound to be spoken is not: what a
listener hears comes `stream_delay_ms` and a chunk's work behind. Chunks follow one another without a pause, which keeps
caches warm. Of each chunk's time some .05 ms are the checks of `calls.stream`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from earmark.codecs import calls
from earmark.codecs.registry import Entry
from earmark.scoring import speed

if TYPE_CHECKING:
    from earmark.store.store import Store

CHUNKS = 20  # at least, of a stream that is timed


class Times(NamedTuple):
    """Seconds of work of one stream.

    first  from its start to its first sound: with a look-ahead that is the work of more than one chunk.
    chunks of each chunk after that.
    """

    first: float
    chunks: list[float]


class Streaming(NamedTuple):
    """A stream to be timed, of so many seconds of sound; what it is like is known from one that was not timed.

    chunk_s  seconds of sound in a chunk. delay_s: the longest that a sample waits for others, its own chunk included.
    """

    call: Callable[[], Times]
    sound_s: float
    chunk_s: float
    delay_s: float


def streaming(entry: Entry, store: Store, clock: Callable[[], float] = time.perf_counter) -> Streaming:
    """A stream of `speed.sound`, long enough for twenty chunks.

    Raises CodecError where the stream is not as the contract has it, or waits for the end before it sounds.
    """
    adapter, rate = store.adapter(entry), entry.info.sample_rate or speed.DEFAULT_HZ
    size = calls.chunk_samples(adapter, entry.info, rate)
    wav, _ = speed.sound(entry, max(speed.SECONDS, CHUNKS * size / rate), 1, store.device)
    wait, chunks = speed.waits(store.device), -(-wav.shape[-1] // size)

    def call() -> Times:
        ends, parts = [clock()], []
        for part in calls.stream(adapter, entry.info, wav, size, 0):
            wait(part)
            ends.append(clock())
            parts.append(part)
        return _times(entry, np.diff(ends), parts, chunks)

    delay = calls.stream_delay(calls.stream(adapter, entry.info, wav, size, 0))
    return Streaming(call, wav.shape[-1] / rate, size / rate, delay / rate)


def _times(entry: Entry, seconds: np.ndarray, parts: Sequence[calls.Part], chunks: int) -> Times:
    """What took how long, from the seconds of each part; what comes after the last chunk is no chunk."""
    after = next((i for i, part in enumerate(parts, 1) if part.sound is not None and part.sound.shape[-1]), chunks)
    if after >= chunks:
        raise calls.CodecError(f"codec failed: {entry.name}: stream gave no sound before the last of {chunks} chunks")
    return Times(float(seconds[:after].sum()), seconds[after:chunks].tolist())


def summaries(rounds: Sequence[Times]) -> dict[str, list[float]]:
    """Of each round the seconds to its first sound, the median of a chunk, and what 95 % of the chunks keep."""
    return {
        "first": [times.first for times in rounds],
        "median": [float(np.median(times.chunks)) for times in rounds],
        "p95": [float(np.percentile(times.chunks, 95)) for times in rounds],
    }
