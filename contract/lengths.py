"""Shapes and lengths: what comes back fits what went in, at every length."""

from __future__ import annotations

import numpy as np

from earmark.codecs import calls
from earmark.codecs.contract import Encoded, capabilities_of
from earmark.contract.subject import SEED, Subject
from earmark.contract.verdict import Broken, NotAsked, asked

LONGEST_S = 30
EXAMPLES = 6  # a slow codec takes minutes for more
SLACK_FRAMES = 2  # a clip's first and last frame may be there or not


@asked("A row that says other things than its class leaves suites out, or runs them into errors.")
def capabilities(subject: Subject) -> None:
    """What the catalogue's row says that a codec can do is what its class can do."""
    can, said = capabilities_of(type(subject.adapter())), subject.info.capabilities
    subject.given = f"the class {type(subject.adapter()).__name__}"
    if set(said) != set(can):
        raise Broken(f"capabilities {', '.join(can)}", f"{', '.join(said)} in its Info")


@asked("Whoever stores or models tokens takes these shapes for granted; a wrong one is found far from where it arose.")
def shapes(subject: Subject) -> None:
    """Everything has its shape and dtype, for a batch of two lengths and for every kind of latents."""
    import torch

    clips = [subject.speech(9 * subject.hop + 3), subject.speech(4 * subject.hop, 210.0)]
    subject.of_batch(clips)
    wav = torch.zeros(2, subject.info.channels, clips[0].shape[1], device=subject.device)
    for row, clip in zip(wav, clips, strict=True):
        row[:, : clip.shape[1]] = torch.from_numpy(clip)
    lengths = torch.tensor([clip.shape[1] for clip in clips], device=subject.device)
    if subject.can("encode"):
        _fits(calls.encode(subject.adapter(), subject.info, wav, lengths, SEED))
    if subject.can("embed"):
        for kind in subject.info.latent_kinds:
            latents, frames = calls.latents(subject.adapter(), subject.info, wav, lengths, kind, SEED)
            _counts(f"latents {kind!r}", frames, latents.shape[2])


def _fits(encoded: Encoded) -> None:
    """Frames, side information and its bits belong to the clips of the batch (codes: `calls.check_codes`)."""
    batch = len(encoded.codes)
    _counts("codes", encoded.frames, encoded.codes.shape[2])
    for name, values in encoded.side.items():
        if len(values) != batch:
            raise Broken(f"side information {name!r} of {batch} clips", f"{list(values.shape)}")
    bits = encoded.side_bits
    if bits is not None and tuple(bits.shape) != (batch,):
        raise Broken(f"side_bits [{batch}]", f"{list(bits.shape)}")


def _counts(what: str, frames: object, most: int) -> None:
    import torch

    if not isinstance(frames, torch.Tensor) or frames.dtype != torch.int64:
        raise Broken(f"frames of {what} as int64", str(getattr(frames, "dtype", type(frames).__name__)))
    if int(frames.min()) < 1 or int(frames.max()) > most:
        raise Broken(f"1 to T = {most} frames of {what}", str(frames.tolist()))


@asked("A codec that drops a tail shifts all that follows, and a transcript no longer fits its tokens.")
def length(subject: Subject) -> None:
    """What comes back covers the clip at every length around a frame, from one sample on."""
    hop = subject.hop
    for samples in sorted({1, hop - 1, hop, hop + 1, 2 * hop - 1, 2 * hop + 1, 3 * hop + hop // 2, 10000} - {0}):
        _covers(subject, samples)


@asked("Recordings have any length; a position table or a chunk that ends too early cuts them without a word.")
def any_length(subject: Subject) -> None:
    """What comes back covers the clip at lengths drawn up to 30 s, on and around whole frames."""
    import hypothesis
    from hypothesis import strategies

    longest = max(2, LONGEST_S * subject.rate // subject.hop)  # frames; CLAP's are of 10 s
    draw = strategies.tuples(strategies.integers(min(4, longest - 1), longest - 1), strategies.integers(-1, 1))
    quiet = [*hypothesis.HealthCheck]

    @hypothesis.settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=quiet,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.example((longest, 0))
    @hypothesis.given(draw)
    def covers(drawn: tuple[int, int]) -> None:
        frames, beside = drawn
        _covers(subject, frames * subject.hop + beside)

    covers()


def _covers(subject: Subject, samples: int) -> None:
    made = subject.of(subject.speech(samples))
    if "sound" in made and made["sound"].shape[1] != samples:
        raise Broken(f"at least {samples} samples back", f"{made['sound'].shape[1]}")
    for what, values in made.items():
        if values.ndim == 2 and values.shape[1] < 1:
            raise Broken(f"at least one frame of {what}", "none")


@asked("A language model counts time in frames: a wrong rate moves every word, and every budget of tokens.")
def frame_rate(subject: Subject) -> None:
    """Tokens and latents come at the declared frame rate, over one second as over ten."""
    rate = subject.info.frame_rate
    if rate is None or not (subject.can("encode") or subject.kinds):
        raise NotAsked("it has no frames")
    for seconds in (1, 4, 10):
        for what, values in subject.of(subject.speech(seconds * subject.rate)).items():
            if what == "codes" or what.startswith("latents"):
                subject.measured["frame_rate"] = values.shape[1] / seconds
                if abs(values.shape[1] - seconds * rate) > SLACK_FRAMES:
                    raise Broken(f"{seconds * rate:g} frames of {what} in {seconds} s", f"{values.shape[1]}")


@asked("Clipping and blow-ups survive into every score, and into whatever is trained on the sound.", "reconstruct")
def range_(subject: Subject) -> None:
    """Speech at half of full scale comes back within twice full scale."""
    sound = subject.of(subject.speech(2 * subject.rate))["sound"]
    peak = float(np.abs(sound).max())
    subject.measured["peak"] = peak
    if peak > 2:
        raise Broken("a peak of at most 2", f"{peak:.3g}")
