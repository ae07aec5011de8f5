"""The speech of the sampler: ten invented speakers, read sentences, four emotions, five languages, by espeak-ng.

A speaker is an espeak-ng variant (formants) with an accent, a base pitch and a speed of its own. Emotion is prosody
only: pitch, pitch range, speed and level. Every speaker says every shared sentence, so that tokens of the same words
by several voices can be compared. A column is empty where its question is not asked: `emotion` is given where a speaker
says the same sentence in several ways, `language_id` on a part that holds about as much English as other languages.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import soundfile

from earmark.data.sampler.tools import Made, resample, run, to_peak

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Speaker:
    """accent and variant are espeak-ng's; pitch is its scale 0-99, speed is words a minute. Fold: who is held out."""

    name: str
    sex: str
    accent: str
    variant: str
    pitch: int
    speed: int
    fold: int


@dataclass(frozen=True)
class Emotion:
    """pitch is added to the speaker's, speed multiplies it; range is in % of the voice's; peak is the level."""

    pitch: int
    range: int
    speed: float
    peak: float


# `en` is British English. (espeak-ng 1.51 ignores the variant after `en-gb` and `fr-fr`, but not after `en` and `fr`.)
SPEAKERS = (
    Speaker("s01", "M", "en-us", "m1", 30, 170, 1),
    Speaker("s02", "F", "en", "f2", 60, 178, 1),
    Speaker("s03", "M", "en-gb-scotland", "m2", 65, 162, 2),
    Speaker("s04", "F", "en-us", "f1", 35, 190, 2),
    Speaker("s05", "M", "en", "m3", 50, 196, 3),
    Speaker("s06", "F", "en-029", "f3", 75, 172, 3),
    Speaker("s07", "M", "en-us-nyc", "m7", 80, 184, 4),
    Speaker("s08", "F", "en-gb-scotland", "f4", 50, 166, 4),
    Speaker("s09", "M", "en-gb-x-rp", "m4", 42, 180, 5),
    Speaker("s10", "F", "en-us-nyc", "f5", 62, 200, 5),
)

EMOTIONS = {
    "neutral": Emotion(0, 100, 1.0, 0.4),
    "happy": Emotion(12, 220, 1.1, 0.5),
    "sad": Emotion(-12, 40, 0.78, 0.25),
    "angry": Emotion(4, 150, 1.25, 0.7),
}

# Said by every speaker; the fold of a sentence is for tasks that know the speakers (speaker identity).
SHARED = (
    ("shared1", 1, "The boat left the bay before the thick fog came down."),
    ("shared2", 2, "Please bring seven large boxes of fresh oranges."),
    ("shared3", 3, "She watched the young bird jump from branch to branch."),
    ("shared4", 4, "A warm wind blows through the open kitchen window."),
    ("shared5", 5, "We usually walk to the village church on Thursday."),
    ("shared6", 1, "His father sold the old house and bought a farm."),
)

# One for each speaker, in their order.
UNIQUE = (
    "The train to the north was late again, so we drank hot tea and talked about the garden.",
    "When the rain had stopped, the children ran out and jumped into every puddle in the yard.",
    "My uncle keeps a small shop near the bridge, where he repairs clocks and sharpens knives.",
    "Nobody could remember who had planted the huge oak tree that stands beside the school.",
    "After a long day in the fields they shared some bread and cheese and a few ripe plums.",
    "The museum shows a thousand maps, and each of them was drawn by hand with great care.",
    "If you follow the path along the river you will reach a quiet beach within an hour.",
    "Three musicians played in the square, while the crowd clapped and asked for another song.",
    "He measured the wooden table twice, then cut the board and fixed it with four long screws.",
    "Early this morning a fox crossed the frozen lake and vanished between the dark pine trees.",
)

# voice, sentences: the n-th sentence is in sentence fold n.
LANGUAGES = {
    "de": (
        "de",
        (
            "Der Zug nach Hamburg fährt heute etwas später.",
            "Im Garten blühen schon die ersten gelben Rosen.",
            "Wir möchten zwei Tassen Kaffee und ein Stück Kuchen.",
            "Meine Schwester wohnt seit drei Jahren in einer kleinen Stadt.",
            "Am Abend sitzen sie gern zusammen am Feuer.",
        ),
    ),
    "fr": (
        "fr",
        (
            "Le matin, je bois un grand bol de chocolat chaud.",
            "Les enfants jouent au ballon devant la maison.",
            "Nous avons trouvé une petite rue près de la gare.",
            "Il pleut souvent en automne dans cette région.",
            "Ma voisine chante une vieille chanson à sa fille.",
        ),
    ),
    "es": (
        "es",
        (
            "El perro de mi vecino duerme debajo de la mesa.",
            "Mañana vamos a comprar pan y queso en el mercado.",
            "La guitarra roja está cerca de la ventana.",
            "Me gusta caminar por la playa cuando hace sol.",
            "Los niños leen un libro sobre el mar y las estrellas.",
        ),
    ),
    "cmn": (
        "cmn-latn-pinyin",
        (
            "jin1 tian1 tian1 qi4 hen3 hao3, wo3 men5 qu4 gong1 yuan2.",
            "ta1 mei3 tian1 zao3 shang5 he1 yi1 bei1 cha2.",
            "wo3 de5 peng2 you5 xi3 huan5 ting1 yin1 yue4.",
            "qing3 ni3 ba3 men2 guan1 shang5, wai4 mian4 hen3 leng3.",
            "zhe4 ben3 shu1 shi4 lao3 shi1 gei3 wo3 de5.",
        ),
    ),
}


def clips(seed: int) -> Iterator[Made]:
    """Every clip of sampler_speech. Nothing here is drawn at random: the seed has no effect."""
    del seed
    for index, speaker in enumerate(SPEAKERS):
        emotional = {emotion: SHARED[(index + 2 * step) % 6] for step, emotion in enumerate(("happy", "sad", "angry"))}
        for shared in SHARED:
            compared = {"emotion": "neutral"} if shared in emotional.values() else {}
            compared |= {"language_id": "en"} if shared is SHARED[index // 2] else {}
            yield _clip(speaker, "en", *shared, also=compared)
        for emotion, shared in emotional.items():
            yield _clip(speaker, "en", *shared, emotion, {"emotion": emotion})
        yield _clip(speaker, "en", f"unique{index + 1}", (index + 4) % 5 + 1, UNIQUE[index])
        for step, language in enumerate(("de", "es") if (index + index // 2) % 2 else ("fr", "cmn")):
            number, sentences = (index // 2 + 2 * step) % 5, LANGUAGES[language][1]
            also = {"language_id": language}
            yield _clip(speaker, language, f"{language}{number + 1}", number + 1, sentences[number], also=also)


def _clip(
    speaker: Speaker,
    language: str,
    sentence: str,
    fold: int,
    text: str,
    emotion: str = "neutral",
    also: Mapping[str, str] = NOTHING,
) -> Made:
    accent = speaker.accent if language == "en" else LANGUAGES[language][0]
    labels = {
        "label": speaker.name,
        "speaker": speaker.name,
        "group": speaker.name,
        "sex": speaker.sex,
        "fold": str(speaker.fold),
        "transcript": transcript(text) if language == "en" else "",
        "text": text,
        "language": language,
        "voice": f"{accent}+{speaker.variant}",
        "sentence": sentence,
        "sentence_fold": str(fold),
        "phrase": sentence if sentence.startswith("shared") else "",
    }
    wav = _speak(labels["voice"], speaker, EMOTIONS[emotion], text)
    return Made("sampler_speech", "speech", f"{speaker.name}_{sentence}_{emotion}", wav, labels | dict(also))


def transcript(text: str) -> str:
    """Lower-case words only."""
    return " ".join(text.lower().replace(",", " ").replace(".", " ").split())


def _speak(voice: str, speaker: Speaker, emotion: Emotion, text: str) -> np.ndarray:
    """The audio [L] of a sentence, without the silence that espeak-ng adds at its end."""
    pitch, speed = speaker.pitch + emotion.pitch, round(speaker.speed * emotion.speed)
    spoken = f'<prosody range="{emotion.range}%">{text}</prosody>'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        run("espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "-m", "-z", "-w", str(path), spoken)
        wav, sample_rate = soundfile.read(path)
    return to_peak(resample(wav, sample_rate), emotion.peak)
