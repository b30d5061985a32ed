"""`asr adapt`: a model that ships, fitted to a subject by text and words, without a recording."""

import lzma
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from asr.errors import DataError, SettingsError
from asr.lm.adaptation import AdaptedLm, SubjectText, adapt_lm, read_subject_text
from asr.lm.ngram.model import NgramModel
from asr.model.saved import load_model, save_settings
from asr.model.shipped import ModelFiles, find_model
from asr.text.lexicon import (
    Lexicon,
    Spelling,
    cmudict,
    lexicon_for_sounds,
    read_lexicon,
    read_words,
    spell,
)
from asr.text.normalize import normalize
from asr.text.pronunciation.pronouncer import pronounce_words

__all__ = ["AdaptSettings", "run"]

_MAX_NAMED = 5  # words that a line lists
_GUESSED = "letter-to-sound"
_TUNINGS = "decoding weights: those of the model before; `asr tune` finds its own, with recordings"


@dataclass(frozen=True)
class AdaptSettings:
    """Fit a model that ships to a subject, without any recording.

    Text becomes an n-gram model, which is interpolated into the model's language model, with the weight with
    which both together predict lines best that are held out. Words that the model's lexicon lacks are
    pronounced, by CMUdict or by letter-to-sound, and listed in OUT/words.txt: correct it, and run again with
    --lexicon OUT/words.txt. OUT is a --model like one that ships. --words alone is enough where there is no
    text: each becomes as probable as a word that is said once in 10,000.
    """

    # a name such as english, or a folder that `asr adapt` has written
    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    # folder for the adapted model
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    # text files about the subject, one sentence a line, plain or .gz, .xz or .bz2; numbers as words
    text: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="TEXT...")] = ()
    # text files with a word a line, which the model should know, in the text or not
    words: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="WORDS...")] = ()
    # a word and its phones a line: pronunciations that take precedence over all others
    lexicon: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None

    def __post_init__(self) -> None:
        if not self.text and not self.words:
            raise SettingsError(
                "neither --text nor --words is given. Expected text files with a sentence a line, files "
                "with a word a line, or both."
            )


@dataclass(frozen=True)
class _Additions:
    """Words that the lexicon gets, and how each came to its pronunciation."""

    entries: dict[str, tuple[Spelling, ...]]
    log_probs: Mapping[str, tuple[float, ...]]  # of given words, where the file has probabilities
    origins: dict[str, str]
    left_out: tuple[str, ...]  # without a pronunciation

    def joined(self, source: Lexicon) -> Lexicon:
        """The source with them, which take precedence."""
        log_probs = {word: found for word, found in source.log_probs.items() if word not in self.entries}
        return Lexicon({**source.entries, **self.entries}, source.name, {**log_probs, **self.log_probs})

    def listed(self) -> str:
        """A lexicon for checking; a remark says where a pronunciation comes from."""
        lexicon = Lexicon(self.entries, "", self.log_probs)
        rows = zip(lexicon.pairs(), lexicon.lines(), strict=True)
        return "".join(f"{line}\t# {self.origins[word]}\n" for (word, _), line in rows)


def run(settings: AdaptSettings) -> str:
    """Write the adapted model; the summary to print.

    Raises:
        AsrError: a setting or a file cannot be used, or the folder cannot be written.
    """
    files = find_model(settings.model)
    model = load_model(files.path)
    if files.lm is None or files.lexicon is None:
        raise SettingsError(
            f"{settings.model}: is an acoustic model alone. Expected a model with its language model and "
            "lexicon: english, or a folder that `asr adapt` has written."
        )
    _check_output(settings.output, files)
    source, lm = read_lexicon(files.lexicon), NgramModel.load(files.lm)
    given = lexicon_for_sounds(settings.lexicon) if settings.lexicon else Lexicon({}, "")
    spell(given.entries, model.settings.tokenizer, given)  # phones that the model does not have are named
    rules = model.settings.text_normalizer
    with TemporaryDirectory() as folder:
        text = read_subject_text(settings.text, rules) if settings.text else SubjectText([], Counter())
        wanted = [
            part for word in (read_words(settings.words) if settings.words else ())
            for part in normalize(word, rules).split()
        ]  # fmt: skip
        words = dict.fromkeys([*wanted, *given.entries, *text.words])
        added = _pronounce(list(words), source, given)
        known = [word for word in words if word in added.entries or source.spellings(word)]
        if not known:
            named = ", ".join(str(path) for path in (*settings.text, *settings.words))
            raise DataError(
                f"{named}: no word that can be pronounced. Expected words in letters, one a line."
            )
        adapted = adapt_lm(lm, str(settings.model), text, known, Path(folder))
    settings.output.mkdir(parents=True, exist_ok=True)
    adapted.model.save(settings.output / "lm.bin")
    packed = lzma.compress("".join(f"{line}\n" for line in added.joined(source).lines()).encode())
    (settings.output / "lexicon.txt.xz").write_bytes(packed)
    listed = settings.output / "words.txt"
    listed.write_text(added.listed(), encoding="utf-8")
    adaptation = {
        "model": str(settings.model),
        "weights": {name: round(weight, 4) for name, weight in adapted.weights.items()},
        "lines": len(text.lines),
    }
    save_settings(ModelFiles.of_folder(settings.output).path, files.path, model, {"adapted": adaptation})
    return "\n".join([
        *_describe_lm(adapted, text), *_describe_words(added, text.words, listed), _TUNINGS,
        f"{settings.output}: transcribe with it: asr transcribe FILE --model {settings.output}",
    ])  # fmt: skip


def _check_output(output: Path, files: ModelFiles) -> None:
    """Refuse a folder that cannot get the adapted model."""
    if output.exists() and not output.is_dir():
        raise SettingsError(f"--output {output}: is a file. Name a folder.")
    if output.resolve() == files.path.parent.resolve():
        raise SettingsError(f"--output {output} would overwrite the model. Choose another folder.")


def _pronounce(words: list[str], source: Lexicon, given: Lexicon) -> _Additions:
    """Pronunciations of the words that the source lacks, and of those that are given."""
    dictionary = cmudict() if set(source.symbols) <= set(cmudict().symbols) else source
    entries: dict[str, tuple[Spelling, ...]] = {}
    origins: dict[str, str] = {}
    for name, lexicon in (("given", given), ("", source), (dictionary.name, dictionary)):
        for word in words:
            if word not in origins and (found := lexicon.spellings(word)):
                origins[word] = name
                if name:
                    entries[word] = found
    rest = [word for word in words if word not in origins]
    left_out = []
    if rest:
        for one in pronounce_words(dictionary.letter_to_sound, rest):
            if one.unknown or not one.pronunciations:
                left_out.append(one.word)
            else:
                entries[one.word] = (one.pronunciations[0].phones,)
                origins[one.word] = _GUESSED
    return _Additions(entries, given.log_probs, origins, tuple(left_out))


def _describe_lm(adapted: AdaptedLm, text: SubjectText) -> list[str]:
    """What became of the language model."""
    digits = 2 if text.lines else 4
    lines = [f"weights: {', '.join(f'{name} {one:.{digits}f}' for name, one in adapted.weights.items())}"]
    if text.lines:
        lines.insert(0, f"text: {len(text.lines):,} lines, {text.words.total():,} words")
        lines.append(
            f"perplexity of lines that were held out: {adapted.before:.1f}, with the other lines "
            f"{adapted.after:.1f}"
        )
    return lines


def _describe_words(added: _Additions, counts: dict[str, int], listed: Path) -> list[str]:
    """What became of the words, the most frequent ones named."""

    def named(words: list[str]) -> str:
        ranked = sorted(words, key=lambda word: (-counts.get(word, 0), word))
        return ", ".join(ranked[:_MAX_NAMED]) + (", ..." if len(ranked) > _MAX_NAMED else "")

    lines = []
    if added.entries:
        guessed = [word for word in added.entries if added.origins[word] == _GUESSED]
        lines.append(f"words: {len(added.entries):,} added, {len(guessed):,} of them by letter-to-sound")
        if guessed:
            lines[0] += f" ({named(guessed)}): check them in {listed}, and run again with --lexicon {listed}"
    else:
        lines.append("words: the model has all of them")
    if added.left_out:
        lines.append(
            f"words without a pronunciation, left out: {len(added.left_out):,} ({named([*added.left_out])}). "
            "Write numbers as words, or give their phones with --lexicon"
        )
    return lines
