"""The same clip gives the same result: again, in a batch, before other padding."""

from __future__ import annotations

import numpy as np

from earmark.contract.subject import Subject, difference
from earmark.contract.verdict import Broken, asked


@asked("A score that cannot be repeated is no score, and tokens that vary at will are noise to whoever models them.")
def determinism(subject: Subject) -> None:
    """The same clip and seed give the same result to the bit, whatever was coded in between."""
    clip = subject.speech(20 * subject.hop)
    first = subject.of(clip)
    for between in (None, subject.speech(7 * subject.hop, 210.0)):
        if between is not None:
            subject.of(between)
        again = subject.of(clip, "the same clip again" + (", after another" if between is not None else ""))
        if found := difference(first, again, exact=True):
            raise Broken("what came the first time", found)


@asked("Encoding a corpus in batches must give the tokens that the model meets when it is served one clip at a time.")
def batch_equals_single(subject: Subject) -> None:
    """A clip in a batch of other lengths gives what it gives alone."""
    pairs = ((20, 140.0), (7.3, 210.0), (13, 95.0))
    clips = [subject.speech(round(frames * subject.hop), pitch) for frames, pitch in pairs]
    together = subject.of_batch(clips)
    for i, (clip, batched) in enumerate(zip(clips, together, strict=True)):
        if found := difference(subject.of(clip), batched):
            subject.say(f"clip {i + 1}", [clip.shape[1] for clip in clips], "of")
            raise Broken("what it gives alone", found)


@asked("Padding that leaks makes a clip's tokens depend on the longest clip of its batch.")
def padding(subject: Subject) -> None:
    """What lies beyond a clip's length, zeros or anything else, does not reach it."""
    clip = subject.speech(9 * subject.hop + 3)
    alone, length = subject.of(clip), clip.shape[1]
    beyond = {
        "zeros": np.zeros((len(clip), 11 * subject.hop)),
        "another sound": 2 * subject.speech(5 * subject.hop, 333.0),
    }
    for what, rest in beyond.items():
        padded = np.concatenate([clip, rest.astype(np.float32)], axis=1)[None]
        (came,) = subject.of_padded(
            padded, [length], f"speech-like sound, then {rest.shape[1]} samples of {what} as padding"
        )
        if found := difference(alone, came):
            raise Broken("what it gives without padding", found)
