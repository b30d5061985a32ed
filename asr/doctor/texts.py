"""What is wrong with transcripts: empty or odd characters, digits, case; the alphabet that they make."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from asr.doctor.findings import Finding
from asr.manifests.utterance import Utterance
from asr.text.normalize import normalize

__all__ = ["Alphabet", "character_check", "describe_character", "text_findings"]

_RARE = 3  # transcripts
_OF_MANY = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af]")


@dataclass
class Alphabet:
    """The characters of the transcripts after the text rules.

    Attributes:
        counts: how often each occurs.
        transcripts: in how many transcripts each occurs.
        example: an utterance that has it: manifest and id.
    """

    counts: Counter[str] = field(default_factory=Counter)
    transcripts: Counter[str] = field(default_factory=Counter)
    example: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, text: str, manifest: str, identifier: str) -> None:
        """Count the characters of a transcript."""
        self.counts.update(text)
        for character in set(text):
            self.transcripts[character] += 1
            self.example.setdefault(character, (manifest, identifier))

    def rare(self) -> list[str]:
        """Characters that are in a few transcripts only: each would be a token of its own.

        Of Han characters and Korean syllables, most are rare in any text.
        """
        if self.counts.total() < 2000:  # of a few sentences, every q is rare
            return []
        few = (character for character, count in self.transcripts.items() if count < _RARE)
        return sorted(
            character for character in few if not character_check(character) and not _OF_MANY.match(character)
        )

    def findings(self) -> Iterator[Finding]:
        """The rare characters."""
        for character in self.rare():
            manifest, identifier = self.example[character]
            count = self.transcripts[character]
            detail = f"{describe_character(character)} in {count}"
            yield Finding(check="rare", manifest=manifest, id=identifier, detail=detail, value=-count)


def text_findings(
    manifest: str, utterances: Sequence[Utterance], normalizer: str, alphabet: Alphabet
) -> Iterator[Finding]:
    """What is wrong with the transcripts of a manifest, each by itself.

    Args:
        manifest: its name.
        utterances: of the manifest.
        normalizer: the text rules of the training.
        alphabet: gets the characters.
    """
    cases: Counter[str] = Counter()
    for utterance in utterances:
        text = normalize(utterance.text, normalizer)
        alphabet.add(text, manifest, utterance.id)
        cases.update(_cases(utterance.text))
        if not text:
            yield Finding(
                check="empty-text", manifest=manifest, id=utterance.id, detail=repr(utterance.text)[:60]
            )
            continue
        kinds: dict[str, list[str]] = {}
        for before, character in zip(" " + text, text, strict=False):
            kind = character_check(character, before)
            if kind:
                kinds.setdefault(kind, []).append(character)
        for kind, characters in kinds.items():
            named = ", ".join(map(describe_character, dict.fromkeys(characters)))
            detail = f"{named} in {text!r:.60}"
            yield Finding(
                check=kind, manifest=manifest, id=utterance.id, detail=detail, value=len(characters)
            )
    if cases["small"] and cases["capital"]:
        detail = f"{cases['capital']:,} words with capital letters, {cases['small']:,} without"
        yield Finding(check="case", manifest=manifest, detail=detail)


def describe_character(character: str) -> str:
    """A character with its code point and name, unless it is plain: what looks alike is told apart."""
    if character.isascii() and character.isprintable():
        return repr(character)
    name = unicodedata.name(character, "without a name").lower()
    return f"{character!r} U+{ord(character):04X} {name}"


def character_check(character: str, before: str = "a") -> str:
    """The check that a character fails; "" for none.

    Args:
        character: of a transcript, after the text rules.
        before: the one before it, which tells whether a combining mark has a letter.
    """
    if character in " '\u3007":  # a Chinese zero is written so, as other numbers are in characters
        return ""
    category = unicodedata.category(character)
    if category.startswith("L"):
        return ""
    if category.startswith("N"):
        return "digits"
    if category.startswith("C"):
        # Joiners are letters of Persian and of the languages of India.
        return "" if character in "\u200c\u200d" else "control"
    if category.startswith("M"):
        # İ in small letters is an i with a dot that no keyboard writes.
        lone = before == " " or (before == "i" and character == "\u0307")
        return "mark" if lone else ""
    return "symbol"


def _cases(text: str) -> Iterator[str]:
    for word in text.split():
        if word != word.lower():
            yield "capital"
        elif word != word.upper():
            yield "small"
