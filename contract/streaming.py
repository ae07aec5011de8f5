"""How far a codec looks ahead and back: measured for every codec, held against what its adapter declares.

An adapter may say `lookahead_ms`: output at time n depends on no input after n + lookahead_ms. A frame's own length is
part of it, as its first sample waits for its last. What is measured is a lower bound: the change lies at four places
in a frame.

A codec that has a `stream` of its own is asked whether that gives what the whole clip gives, chunk by chunk.
"""

from __future__ import annotations

import itertools

import numpy as np

from earmark.codecs import calls
from earmark.contract.subject import SEED, Made, Subject, array, difference, tolerance
from earmark.contract.verdict import Broken, NotAsked, asked

FRAMES, CUT = 40, 24  # of the clip, and where the change is
ROUNDING_MS = 0.01
CHUNKS, LEFT_AFTER = 40, 5  # of a stream; of one that is left before its end


@asked(
    "A dialogue model must answer before the clip has ended; a look-ahead that nobody declared is latency, or a lie."
)
def streaming(subject: Subject) -> None:
    """A later sound changes nothing earlier than the declared look-ahead; what is measured is in the report."""
    hop, end = subject.hop, CUT * subject.hop
    clip, other = subject.speech(FRAMES * hop), subject.speech(FRAMES * hop, 77.0)
    whole, ahead, given = subject.of(clip), 0, ""
    for cut in sorted({end + hop // 4, end + hop // 2, end + 3 * hop // 4, end + hop - 1}):
        late = subject.of(_spliced(clip, other, cut), f"speech-like sound that changes at sample {cut}")
        if (found := cut - _first_change(subject, whole, late, cut)) > ahead or not given:
            ahead, given = found, subject.given
    alone = subject.of(clip[:, :end], "its first frames alone")
    early = subject.of(np.concatenate([other[:, :hop], clip[:, hop:]], axis=1))
    subject.measured["lookahead_ms"] = _ms(subject, ahead)
    subject.measured["chunk_lookahead_ms"] = _ms(subject, end - _first_change(subject, alone, whole, end))
    subject.measured["lookback_ms"] = _ms(subject, _last_change(subject, whole, early) - hop)
    declared = getattr(subject.adapter(), "lookahead_ms", None)
    if declared is not None and subject.measured["lookahead_ms"] > declared + ROUNDING_MS:
        subject.given = given
        raise Broken(f"a look-ahead of at most {declared:g} ms", f"{subject.measured['lookahead_ms']:.4g} ms")


def _spliced(clip: np.ndarray, other: np.ndarray, cut: int) -> np.ndarray:
    return np.concatenate([clip[:, :cut], other[:, cut:]], axis=1)


def _first_change(subject: Subject, one: Made, two: Made, cut: int) -> int:
    """The first sample before `cut` at which anything differs; `cut` where nothing does."""
    return min([cut, *(int(times[0]) for times in _changes(subject, one, two) if len(times))])


def _last_change(subject: Subject, one: Made, two: Made) -> int:
    """The last sample at which anything differs; the end of the first frame where nothing does."""
    return max([subject.hop, *(int(times[-1]) for times in _changes(subject, one, two) if len(times))])


def _changes(subject: Subject, one: Made, two: Made) -> list[np.ndarray]:
    """Of each kind of result, the samples (a frame counts by its first) at which two of them differ."""
    found = []
    for what in (what for what in one if one[what].ndim == 2):
        columns = min(one[what].shape[1], two[what].shape[1])
        a, b = one[what][:, :columns], two[what][:, :columns]
        moved = a != b if what == "codes" else np.abs(a - b) > tolerance(what, a)
        found.append(np.flatnonzero(moved.any(axis=0)) * (1 if what == "sound" else subject.hop))
    return found


def _ms(subject: Subject, samples: int) -> float:
    return round(1000 * max(0, samples) / subject.rate, 2)


@asked("A model that learned from whole files meets other tokens where a stream is coded otherwise.", "stream")
def stream_equals_whole(subject: Subject) -> None:
    """A clip that comes in chunks gives what it gives at once, whatever was streamed before."""
    size = calls.chunk_samples(subject.adapter(), subject.info, subject.rate)
    clip = subject.speech(CHUNKS * size + size // 3)
    expected = {what: made for what, made in subject.of(clip).items() if what in ("codes", "sound")}
    if subject.info.stochastic:  # noise that is drawn chunk by chunk is other noise
        expected.pop("sound", None)
    if not expected:
        raise NotAsked("there is nothing to compare its stream with: no tokens, and its sound is drawn or not there")
    subject.say(f"speech-like sound in chunks of {size}, after a stream left after {LEFT_AFTER}", [clip.shape[1]])
    _streamed(subject, subject.speech(CHUNKS * size, 210.0), size, LEFT_AFTER)
    came = _streamed(subject, clip, size)
    if missing := [what for what in expected if what not in came]:
        raise Broken(f"{' and '.join(missing)}, as at once", f"a stream that gives {' and '.join(came) or 'nothing'}")
    if found := difference(expected, came):
        raise Broken("what it gives at once", found)


def _streamed(subject: Subject, clip: np.ndarray, size: int, most: int | None = None) -> Made:
    """The codes and the sound of a stream, joined and cut to the clip; it is left after `most` parts."""
    import torch

    wav = torch.from_numpy(clip[None]).to(subject.device)
    parts = [*itertools.islice(calls.stream(subject.adapter(), subject.info, wav, size, SEED), most)]
    made = {
        "codes": [array(part.codes[0]) for part in parts if part.codes is not None],
        "sound": [array(part.sound[0]) for part in parts if part.sound is not None],
    }
    joined = {what: np.concatenate(found, axis=1) for what, found in made.items() if found}
    if "sound" in joined:
        subject.measured["stream_delay_ms"] = _ms(subject, calls.stream_delay(parts))
        joined["sound"] = joined["sound"][:, : clip.shape[1]]
    return joined
