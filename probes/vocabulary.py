"""What a probe writes: the symbols of a text, as numbers. Symbol `blank` is CTC's, and no part of any text.

Characters   every character of the training texts: English and Chinese alike
Subwords     the pieces of Speech2Text's tokenizer, as AudioCodecBench takes them
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from earmark.hub import cache_of, fetch_command

SPEECH2TEXT = "facebook/s2t-small-librispeech-asr"
FILES = ("vocab.json", "sentencepiece.bpe.model")


class Vocabulary(Protocol):
    """Text as symbols 0 .. len - 1, of which `blank` stands for none."""

    blank: int

    def __len__(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, symbols: Sequence[int]) -> str: ...


class Characters:
    """The characters of the training texts, in the order of their code points; the blank is 0."""

    blank = 0

    def __init__(self, texts: Iterable[str]) -> None:
        self.symbols = sorted({character for text in texts for character in text})
        self._number = {character: at + 1 for at, character in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols) + 1

    def encode(self, text: str) -> list[int]:
        """Raises ValueError, naming the character, where the training texts lack one.

        >>> Characters(["ab", "c"]).encode("cab")
        [3, 1, 2]
        """
        unknown = [character for character in text if character not in self._number]
        if unknown:
            raise ValueError(f"{unknown[0]!r} of {text!r} is in no training text, so no probe can write it")
        return [self._number[character] for character in text]

    def decode(self, symbols: Sequence[int]) -> str:
        """Without blanks."""
        return "".join(self.symbols[symbol - 1] for symbol in symbols if symbol != self.blank)


class Subwords:
    """The 10 000 pieces of Speech2Text's tokenizer; the blank is its padding. AudioCodecBench, `ctc_model.py`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.blank = tokenizer, int(tokenizer.pad_token_id)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, symbols: Sequence[int]) -> str:
        """Without special symbols, in lower case as the texts are (the tokenizer's decoder capitalises)."""
        return self.tokenizer.decode(list(symbols), skip_special_tokens=True).lower().strip()

    @staticmethod
    def missing() -> str | None:
        """The command that gets the tokenizer's files; None where they are here."""
        return None if cache_of(SPEECH2TEXT, None, FILES) else fetch_command(SPEECH2TEXT, None)

    @classmethod
    def published(cls) -> Subwords:
        """Raises FileNotFoundError, with the command that gets it, where the tokenizer is not on this machine."""
        cache = cache_of(SPEECH2TEXT, None, FILES)
        if cache is None:
            raise FileNotFoundError(f"{SPEECH2TEXT} is not on this machine; run: {fetch_command(SPEECH2TEXT, None)}")
        from transformers import Speech2TextTokenizer

        return cls(Speech2TextTokenizer.from_pretrained(SPEECH2TEXT, cache_dir=cache, local_files_only=True))
