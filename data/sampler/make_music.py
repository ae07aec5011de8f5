"""The music and the single notes of the sampler: MIDI written here, played by fluidsynth with the FluidR3 sound font.

Music: twelve tunes (melody and rhythm drawn by the seed), each played in four styles and four keys. A tune is a group;
folds hold three tunes, and every fold has each of the twelve keys once and each style three times.

Arousal and valence are a formula of how a piece was made, not ratings by people; see `affect`.

Notes: six instruments x twelve pitches x two velocities, over ten takes (tuning, delay, reverberation). A take is a
group, and each pair of takes has every instrument and every pitch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from earmark.data.sampler.tools import Made, ToolMissingError, fit, random_state, resample, run, to_peak

SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
TICKS = 480  # a beat
MUSIC_S, NOTE_S = 6.0, 0.8

# General MIDI programs; 128 stands for the drum channel.
PROGRAMS = {
    "piano": 0,
    "vibraphone": 11,
    "organ": 16,
    "accordion": 21,
    "nylon_guitar": 24,
    "overdriven_guitar": 29,
    "acoustic_bass": 32,
    "electric_bass": 33,
    "synth_bass": 38,
    "violin": 40,
    "strings": 48,
    "trumpet": 56,
    "flute": 73,
    "synth_lead": 81,
    "synth_pad": 90,
    "drums": 128,
}
KICK, SNARE, HAT, OPEN_HAT, RIDE = 36, 38, 42, 46, 51


@dataclass(frozen=True)
class Style:
    """beats: in a bar; change: beats until the next chord; chords and lead: instruments to draw from."""

    beats: int
    change: int
    tempo_bpm: tuple[int, int]
    bass: str
    chords: tuple[str, str, str]
    lead: tuple[str, str, str]
    drums: tuple[tuple[float, int], ...] = ()


STYLES = {
    "waltz": Style(3, 3, (105, 170), "acoustic_bass", ("piano", "accordion", "strings"), ("flute", "violin", "piano")),
    "rock": Style(
        4,
        4,
        (105, 160),
        "electric_bass",
        ("overdriven_guitar", "organ", "piano"),
        ("overdriven_guitar", "synth_lead", "organ"),
        ((0, KICK), (1, SNARE), (2, KICK), (2.5, KICK), (3, SNARE), *((i / 2, HAT) for i in range(8))),
    ),
    "ballad": Style(
        4,
        2,
        (62, 92),
        "acoustic_bass",
        ("piano", "nylon_guitar", "strings"),
        ("flute", "violin", "nylon_guitar"),
        ((0, RIDE), (1, RIDE), (2, RIDE), (3, RIDE), (2, HAT)),
    ),
    "techno": Style(
        4,
        4,
        (112, 146),
        "synth_bass",
        ("synth_pad", "organ", "strings"),
        ("synth_lead", "piano", "flute"),
        (*((i, KICK) for i in range(4)), *((i + 0.5, OPEN_HAT) for i in range(4)), (1, SNARE), (3, SNARE)),
    ),
}

KEYS = tuple((tonic, chord) for tonic in ["C", "D", "E", "F", "G", "A"] for chord in ("major", "minor"))
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
PROGRESSION = (0, 3, 4, 0)  # scale degrees I IV V I: all major in a major key, all minor in a natural minor key
TUNES, TUNES_A_FOLD = 12, 3
DYNAMICS = {0.0: (62, 0.25), 0.5: (86, 0.4), 1.0: (112, 0.7)}  # dynamics: velocity, peak

NOTE_INSTRUMENTS = ("piano", "vibraphone", "nylon_guitar", "violin", "trumpet", "flute")
NOTE_PITCHES = range(60, 72)
NOTE_LEVELS = {"soft": (62, 0.3), "loud": (110, 0.6)}
TAKES = 10

# One note: start and length in beats, channel, MIDI pitch, velocity.
Note = tuple[float, float, int, int, int]


def affect(tempo_bpm: float, chord: str, dynamics: float) -> tuple[float, float]:
    """Arousal and valence in [0, 1], by definition; tempo counts from 60 to 180 beats a minute.

    >>> affect(120, "minor", 1.0)
    (0.75, 0.15)
    """
    tempo = min(max((tempo_bpm - 60) / 120, 0.0), 1.0)
    return round(0.5 * tempo + 0.5 * dynamics, 3), round(0.7 * (chord == "major") + 0.3 * tempo, 3)


def music(seed: int) -> Iterator[Made]:
    """Every clip of sampler_music."""
    for tune in range(TUNES):
        for index, style in enumerate(STYLES):
            yield _piece(seed, tune, style, KEYS[(tune + 3 * index) % len(KEYS)])


def _piece(seed: int, tune: int, style: str, key: tuple[str, str]) -> Made:
    rules, (tonic, chord), fold = STYLES[style], key, tune // TUNES_A_FOLD
    tempo_bpm = int(random_state(seed, "tempo", tune, style).integers(*rules.tempo_bpm))
    dynamics = list(DYNAMICS)[_turn(seed, "dynamics", fold, style, tune)]
    chords = rules.chords[_turn(seed, "chords", fold, style, tune)]
    lead = rules.lead[_turn(seed, "lead", fold, style, tune)]
    velocity, peak = DYNAMICS[dynamics]
    band = {0: rules.bass, 1: chords, 2: lead} | ({9: "drums"} if rules.drums else {})
    notes = _compose(random_state(seed, "tune", tune), rules, key, velocity)
    wav = to_peak(fit(_play(notes, band, tempo_bpm), MUSIC_S), peak)
    arousal, valence = affect(tempo_bpm, chord, dynamics)
    labels = {
        "label": style,
        "style": style,
        "group": f"tune{tune + 1:02}",
        "fold": str(fold + 1),
        "key": f"{tonic} {chord}",
        "chord": chord,
        "tempo_bpm": str(tempo_bpm),
        "dynamics": str(dynamics),
        "instruments": ";".join(sorted(set(band.values()))),
        "arousal": str(arousal),
        "valence": str(valence),
    }
    return Made("sampler_music", "music", f"tune{tune + 1:02}_{style}", wav, labels)


def _turn(seed: int, what: str, fold: int, style: str, tune: int) -> int:
    """0, 1 or 2: each once among the three tunes of a fold, in an order drawn for the style."""
    return int(random_state(seed, what, fold, style).permutation(TUNES_A_FOLD)[tune % TUNES_A_FOLD])


def _compose(rng: np.random.Generator, rules: Style, key: tuple[str, str], velocity: int) -> list[Note]:
    """Sixteen chords: bass on each, the chord on the beats, a melody over it, drums by the bar."""
    tonic, scale = 48 + SEMITONES[key[0]], SCALES[key[1]]
    notes: list[Note] = []
    for number in range(16):
        start, degree = number * rules.change, PROGRESSION[number % len(PROGRESSION)]
        triad = [_pitch(tonic, scale, degree + step) for step in (0, 2, 4)]
        notes.append((start, rules.change * 0.95, 0, triad[0] - 12, velocity))
        for beat in range(0 if rules.beats == 4 else 1, rules.change):
            notes += [(start + beat, 0.9, 1, pitch, velocity - 16) for pitch in triad]
        notes += _melody(rng, start, rules.change, degree, tonic + 12, scale, velocity)
    bars = range(0, 16 * rules.change, rules.beats)
    return notes + [(bar + beat, 0.2, 9, drum, velocity) for bar in bars for beat, drum in rules.drums]


def _melody(rng, start: int, length: int, degree: int, tonic: int, scale: tuple[int, ...], velocity: int) -> list[Note]:
    """A chord tone on the first beat, then steps of the scale, in quarters and eighths."""
    notes, at, here = [], 0.0, degree + int(rng.choice((0, 2, 4)))
    while at < length:
        lasts = min(float(rng.choice((0.5, 1.0, 1.0))), length - at)
        notes.append((start + at, lasts * 0.95, 2, _pitch(tonic, scale, here), velocity))
        at, here = at + lasts, int(np.clip(here + rng.choice((-1, 1, 2, -2)), -2, 9))
    return notes


def _pitch(tonic: int, scale: tuple[int, ...], degree: int) -> int:
    """MIDI pitch of a scale degree (0 is the tonic, 7 its octave).

    >>> _pitch(60, SCALES["major"], 7), _pitch(60, SCALES["minor"], -1)
    (72, 58)
    """
    return tonic + 12 * (degree // 7) + scale[degree % 7]


def notes(seed: int) -> Iterator[Made]:
    """Every clip of sampler_notes."""
    for i, instrument in enumerate(NOTE_INSTRUMENTS):
        for j, pitch in enumerate(NOTE_PITCHES):
            for k, level in enumerate(NOTE_LEVELS):
                yield _note(seed, instrument, pitch, level, take=(i + j + 3 * k) % TAKES)


def _note(seed: int, instrument: str, pitch: int, level: str, take: int) -> Made:
    rng = random_state(seed, "take", take)
    cents, delay_s, reverberation = rng.uniform(-8, 8), rng.uniform(0, 0.04), int(rng.integers(0, 90))
    velocity, peak = NOTE_LEVELS[level]
    heard = [(2 * delay_s, 1.5, 0, pitch, velocity)]  # 120 beats a minute: a beat is half a second
    wav = _play(heard, {0: instrument}, 120, cents, reverberation)
    labels = {
        "label": instrument,
        "instrument": instrument,
        "pitch": str(pitch),
        "level": level,
        "group": f"take{take + 1:02}",
        "fold": str(take % 5 + 1),
    }
    name = f"{instrument}_{pitch}_{level}"
    return Made("sampler_notes", "notes", name, to_peak(fit(wav, NOTE_S), peak), labels)


def _play(notes: list[Note], band: dict[int, str], tempo_bpm: int, cents: float = 0, reverberation: int = 40):
    """Notes to audio [L], mixed down to mono."""
    if not SOUND_FONT.is_file():
        raise ToolMissingError(f"{SOUND_FONT} is not there; the music is made with it (apt install fluid-soundfont-gm)")
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "notes.mid", Path(folder) / "notes.wav"
        _write_midi(midi, notes, band, tempo_bpm, cents, reverberation)
        options = ("-ni", "-q", "-r", "48000", "-O", "float", "-T", "wav", "-o", "synth.dynamic-sample-loading=1")
        run("fluidsynth", *options, "-F", str(wav), str(SOUND_FONT), str(midi))
        audio, sample_rate = soundfile.read(wav)
    return resample(audio.mean(axis=1), sample_rate)


def _write_midi(path: Path, notes: list[Note], band: dict[int, str], tempo_bpm: int, cents: float, reverb: int) -> None:
    try:
        import mido
    except ImportError:
        raise ToolMissingError("mido is not installed; the music is made with it (pip install mido)") from None
    events = []
    for start, length, channel, pitch, velocity in notes:
        note = {"channel": channel, "note": pitch}
        events.append((round(start * TICKS), 1, mido.Message("note_on", velocity=velocity, **note)))
        events.append((round((start + length) * TICKS), 0, mido.Message("note_off", **note)))
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo_bpm))])
    for channel, instrument in band.items():
        program = PROGRAMS[instrument] % 128
        track.append(mido.Message("program_change", channel=channel, program=program))
        track.append(mido.Message("control_change", channel=channel, control=91, value=reverb))
        track.append(mido.Message("pitchwheel", channel=channel, pitch=round(cents / 200 * 8192)))
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(path)
