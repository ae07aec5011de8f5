"""The sounds of the sampler: ten classes of sound events, synthesised with numpy, alone and in scenes.

Each of ten sites has a sound source of its own for every class (its bell, its dog, ...) and its own faint background
noise. A site is a group; a fold holds two. A site has five single clips and four scenes; over its scenes, it has each
class once. Onsets and offsets are measured on the event before it is mixed in, not promised by the synthesiser.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
from scipy import signal

from earmark.data.sampler.tools import SAMPLE_RATE, Made, fade, random_state, to_peak

SITES = 10
SINGLE_S, SCENE_S = 2.0, 4.0
SCENES = ((1, 3, 3, 3), (2, 2, 3, 3))  # events in each scene of an odd and of an even site: ten in all
BACKGROUND = 2e-4  # RMS

Random = np.random.Generator
# A source is made with the site's random state, its sound with the clip's: source(site, clip, time [L] s) -> [L].
Source = Callable[[Random, Random, np.ndarray], np.ndarray]


def _band(noise: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    return signal.sosfilt(signal.butter(2, (low_hz, high_hz), "bandpass", fs=SAMPLE_RATE, output="sos"), noise)


def _tones(frequency_hz: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """Harmonics of a frequency that varies over time [L]; those above the Nyquist frequency are left out."""
    phase = 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE
    heard = [(n, w) for n, w in enumerate(weights, 1) if n * frequency_hz.max() < SAMPLE_RATE / 2]
    return sum((w * np.sin(n * phase) for n, w in heard), np.zeros_like(phase))


def _repeat(time: np.ndarray, every_s: float, one: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The same kind of sound again and again: `one` gets the time since it began."""
    wav = np.zeros_like(time)
    for start in range(0, len(time), round(every_s * SAMPLE_RATE)):
        wav[start:] += one(time[: len(time) - start])
    return wav


def bell(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    pitch, every = site.uniform(420, 900), site.uniform(0.5, 0.9)
    partials = [(r, site.uniform(0.4, 1) / r, 2.0 + r) for r in (0.5, 1, 1.19, 1.5, 2, 2.74, 3.76, 5.4)]
    phases = clip.uniform(0, 2 * np.pi, len(partials))

    def one(t: np.ndarray) -> np.ndarray:
        rings = zip(partials, phases, strict=True)
        return sum(w * np.exp(-d * t) * np.sin(2 * np.pi * pitch * r * t + p) for (r, w, d), p in rings)

    return _repeat(time, every, one)


def engine(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    rate, depth = site.uniform(28, 60), site.uniform(0.02, 0.06)
    wobble = rate * (1 + depth * np.sin(2 * np.pi * clip.uniform(0.5, 2) * time))
    hum = _tones(wobble, tuple(1 / n**0.6 for n in range(1, 17)))
    return hum * (1 + 0.3 * _tones(wobble / 2, (1.0,))) + 0.3 * _band(clip.standard_normal(len(time)), 80, 700)


def rain(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    noise = 0.15 * _band(clip.standard_normal(len(time)), site.uniform(700, 1500), 9000)
    drops = np.zeros_like(time)
    hits = clip.integers(0, len(time), int(site.uniform(60, 140) * time[-1]))
    np.add.at(drops, hits, clip.uniform(2, 8, len(hits)))
    return noise + _band(drops, site.uniform(1500, 2500), 6000)


def clock(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    pitch, every = site.uniform(1800, 3800), site.uniform(0.2, 0.34)
    noise = clip.standard_normal(len(time))
    return _repeat(time, every, lambda t: np.exp(-130 * t) * (np.sin(2 * np.pi * pitch * t) + 0.4 * noise[: len(t)]))


def siren(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    low, span, rate = site.uniform(500, 700), site.uniform(400, 800), site.uniform(0.5, 1.4)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * (rate * time + clip.uniform()))
    return _tones(low + span * sweep, (1.0, 0.5, 0.3, 0.15))


def dog(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    pitch, every, formant = site.uniform(260, 520), site.uniform(0.33, 0.5), site.uniform(700, 1200)

    def one(t: np.ndarray) -> np.ndarray:
        falling = pitch * clip.uniform(0.95, 1.05) * (1 + 0.5 * np.exp(-((t - 0.05) ** 2) / 0.003)) * (1 - 0.5 * t)
        bark = _tones(np.maximum(falling, 80), tuple(1 / n**0.5 for n in range(1, 9)))
        bark += 0.8 * clip.standard_normal(len(t))
        shape = np.minimum(t / 0.008, 1) * np.exp(-((t / 0.13) ** 4))
        return shape * (_band(bark, formant * 0.5, formant * 1.8) + 0.1 * bark)

    return _repeat(time, every, one)


def footsteps(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    thump, scrape, every = site.uniform(70, 130), site.uniform(1200, 2600), site.uniform(0.38, 0.55)

    def one(t: np.ndarray) -> np.ndarray:
        heel = np.sin(2 * np.pi * thump * t) * np.exp(-30 * t)
        sole = _band(clip.standard_normal(len(t)), scrape * 0.5, scrape * 1.5)
        return heel + sole * (np.exp(-60 * t) + 0.4 * np.exp(-(((t - 0.11) / 0.03) ** 2)))

    return _repeat(time, every, one)


def bird(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    pitch, span, every = site.uniform(2800, 4800), site.uniform(600, 1800), site.uniform(0.16, 0.3)
    turn = site.choice((-1, 1))

    def one(t: np.ndarray) -> np.ndarray:
        chirp = pitch * clip.uniform(0.95, 1.05) + turn * span * (t / 0.1 - 0.5)
        inside = (t < 0.1) * np.sin(np.pi * np.minimum(t / 0.1, 1))
        return inside * _tones(np.where(t < 0.1, chirp, pitch), (1.0, 0.2))

    return _repeat(time, every, one)


def alarm(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    pitch, every, on = site.uniform(1500, 2900), site.uniform(0.18, 0.36), site.uniform(0.4, 0.6)
    drift = np.full_like(time, pitch * clip.uniform(0.995, 1.005))
    phase = time % every
    gate = np.clip(np.minimum(phase, on * every - phase) / 0.004, 0, 1)
    return gate * _tones(drift, (1.0, 0.0, 0.35, 0.0, 0.2))


def wind(site: Random, clip: Random, time: np.ndarray) -> np.ndarray:
    centre, rate = site.uniform(250, 650), site.uniform(0.4, 1.0)
    noise = clip.standard_normal(len(time))
    howl = _band(_band(noise, centre * 0.7, centre * 1.3), centre * 0.8, centre * 1.2)
    gust = 0.7 + 0.3 * np.sin(2 * np.pi * (rate * time + clip.uniform()))
    return gust * (howl + 0.12 * _band(noise, 100, 2500))


CLASSES: dict[str, tuple[Source, str]] = {
    "bell": (bell, "a bell rings"),
    "engine": (engine, "an engine hums"),
    "rain": (rain, "rain falls"),
    "clock": (clock, "a clock ticks"),
    "siren": (siren, "a siren wails"),
    "dog": (dog, "a dog barks"),
    "footsteps": (footsteps, "someone walks by"),
    "bird": (bird, "a bird chirps"),
    "alarm": (alarm, "an alarm beeps"),
    "wind": (wind, "the wind blows"),
}


def clips(seed: int) -> Iterator[Made]:
    """Every clip of sampler_sounds: the single ones, then the scenes."""
    for site in range(1, SITES + 1):
        for label in list(CLASSES)[site % 2 :: 2]:
            yield _single(seed, site, label)
    captions: set[str] = set()
    for site in range(1, SITES + 1):
        for number, labels in enumerate(_programme(seed, site, captions), 1):
            yield _scene(seed, site, number, labels)


def _event(seed: int, site: int, label: str, seconds: float, clip: Random) -> np.ndarray:
    """One event [L], peak 1, from its first sample to its last that can be heard."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wav = CLASSES[label][0](random_state(seed, "source", site, label), clip, time)
    wav = to_peak(fade(wav, 0.003, 0.04), 1.0)
    heard = np.flatnonzero(np.abs(wav) > 0.02)
    return wav[heard[0] : heard[-1] + 1]


def _background(seed: int, site: int, clip: Random, seconds: float) -> np.ndarray:
    low = random_state(seed, "background", site).uniform(60, 600)
    noise = _band(clip.standard_normal(round(seconds * SAMPLE_RATE)), low, low * 6)
    return noise * (BACKGROUND / np.sqrt(np.mean(noise**2)))


def _single(seed: int, site: int, label: str) -> Made:
    clip = random_state(seed, "single", site, label)
    event = _event(seed, site, label, clip.uniform(1.6, 1.8), clip)
    wav = _background(seed, site, clip, SINGLE_S)
    start = round(clip.uniform(0.03, 0.15) * SAMPLE_RATE)
    wav[start : start + len(event)] += event * clip.uniform(0.3, 0.7)
    labels = _where(site) | {"label": label}
    return Made("sampler_sounds", "sounds", f"site{site:02}_{label}", wav, labels)


def _programme(seed: int, site: int, captions: set[str]) -> list[list[str]]:
    """The classes of each scene of a site, in order, so that no two scenes of the sampler have the same caption."""
    rng = random_state(seed, "programme", site)
    while True:
        order = [str(label) for label in rng.permutation(list(CLASSES))]
        scenes = [[order.pop() for _ in range(events)] for events in SCENES[(site + 1) % 2]]
        new = {caption(scene) for scene in scenes}
        if not new & captions:
            captions |= new
            return scenes


def _scene(seed: int, site: int, number: int, labels: list[str]) -> Made:
    clip = random_state(seed, "scene", site, number)
    longest = {1: 2.6, 2: 1.5, 3: 1.05}[len(labels)]
    sounds = [_event(seed, site, label, clip.uniform(0.75, 1) * longest, clip) for label in labels]
    wav = _background(seed, site, clip, SCENE_S)
    events = []
    for label, sound, start in zip(labels, sounds, _starts(clip, [len(sound) for sound in sounds]), strict=True):
        wav[start : start + len(sound)] += sound * clip.uniform(0.3, 0.7)
        onset_s, offset_s = round(start / SAMPLE_RATE, 4), round((start + len(sound)) / SAMPLE_RATE, 4)
        events.append({"label": label, "onset_s": onset_s, "offset_s": offset_s})
    told = {"events": json.dumps(events), "tags": ";".join(sorted(labels)), "caption": caption(labels)}
    return Made("sampler_sounds", "sounds", f"site{site:02}_scene{number}", wav, _where(site) | told)


def _starts(clip: Random, lengths: list[int]) -> list[int]:
    """First samples of events one after the other, at least 0.1 s apart and from the edges; the rest is shared out."""
    least = round(0.1 * SAMPLE_RATE)
    spare = round(SCENE_S * SAMPLE_RATE) - sum(lengths) - least * (len(lengths) + 1)
    gaps = least + np.floor(clip.dirichlet(np.ones(len(lengths) + 1)) * spare).astype(int)
    return [int(gaps[: i + 1].sum()) + sum(lengths[:i]) for i in range(len(lengths))]


def _where(site: int) -> dict[str, str]:
    return {"group": f"site{site:02}", "fold": str((site + 1) // 2)}


def caption(labels: list[str]) -> str:
    """The events as a sentence, in order.

    >>> caption(["dog", "rain", "bell"])
    'A dog barks, then rain falls, and finally a bell rings.'
    """
    phrases = [CLASSES[label][1] for label in labels]
    links = {1: "{}.", 2: "{}, then {}.", 3: "{}, then {}, and finally {}."}
    sentence = links[len(labels)].format(*phrases)
    return sentence[0].upper() + sentence[1:]
