"""Content: how much of what was spoken a recogniser still understands. Errors are counted here, heard in `asr`.

A rate over many clips is the sum of their errors over the sum of their lengths, never a mean of rates: short clips
would weigh as much as long ones.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable

from earmark.metrics.checks import MetricError

_PASSES = 10  # one or two do; five is the most that 60 000 random texts of number words took


def normalise(text: str) -> str:
    """The text as it is compared, the same for what was spoken and what was heard.

    Lower case without punctuation, diacritics, brackets, 'uh' and 'um'; contractions and titles written out; numbers
    in digits. British spellings stay (the table of them comes with the weights of Whisper, which need not be here), so
    'colour' against 'color' is an error.
    Source: Radford et al., "Robust speech recognition via large-scale weak supervision", ICML 2023, appendix C, in the
    library `transformers`; repeated until nothing changes: one pass makes 'double o seven' into 007, but 007 into 7.

    >>> normalise("Mr. Thornton won't pay twenty-five dollars!")
    'mister thornton will not pay $25'
    """
    for _ in range(_PASSES):
        before, text = text, _whisper_normaliser()(text).strip()
        if text == before:
            break
    return text


def plain(text: str, language: str = "en") -> str:
    """The text as a recogniser of ours is taught it and judged by it, in any language: nothing is written out anew.

    Lower case, letters (with their marks), digits and apostrophes within words; all else parts words. What has no
    spaces between words (Chinese, Japanese) has none at all.

    >>> plain("Mr. Thornton won't pay 'Twenty-Five' dollars!")
    "mr thornton won't pay twenty five dollars"
    >>> plain("今天,天气 很好。", "zh")
    '今天天气很好'
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    words = (word.strip("'") for word in kept.split())
    joined = ("" if unspaced(language) else " ").join(word for word in words if word)
    return unicodedata.normalize("NFKC", joined)  # a mark that now follows a letter becomes one with it


def unspaced(language: str) -> bool:
    """Whether a language (its ISO 639 code) is written without spaces between words, so that it has no word errors."""
    return language.partition("-")[0] in ("zh", "cmn", "yue", "ja", "jpn")


def word_errors(spoken: str, heard: str, normalised: Callable[[str], str] = normalise) -> tuple[int, int]:
    """Word errors of one clip, and words spoken: their ratio is the word error rate, which may exceed 1.

    Errors are the fewest words put, left out and replaced that make one text into the other; both are normalised.
    Raises MetricError where nothing was spoken.

    >>> word_errors("The cat sat.", "a cat sat down")
    (2, 3)
    """
    import jiwer

    return _errors(jiwer.process_words, normalised(spoken), normalised(heard))


def character_errors(spoken: str, heard: str, normalised: Callable[[str], str] = normalise) -> tuple[int, int]:
    """Character errors of one clip, and characters spoken, the spaces between words among them; else as `word_errors`.

    >>> character_errors("The cat sat.", "a cat sat")
    (3, 11)
    """
    import jiwer

    return _errors(jiwer.process_characters, normalised(spoken), normalised(heard))


def _errors(align: Callable[..., object], spoken: str, heard: str) -> tuple[int, int]:
    if not spoken:
        raise MetricError("nothing was spoken, as far as the normalised transcript tells, so there is no error rate")
    found = align(spoken, heard)
    hits, replaced, left_out, put = (
        getattr(found, name) for name in ("hits", "substitutions", "deletions", "insertions")
    )
    return replaced + left_out + put, hits + replaced + left_out


@functools.cache
def _whisper_normaliser() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})
