"""The command line: the table of commands that is `asr COMMAND …`, and what recipes share with it."""

import difflib
import gc
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from asr import __version__
from asr.commands.options import one_line, option_value, parse
from asr.console import guarded, print_result, report
from asr.errors import SettingsError

Config = TypeVar("Config")


class Entry(Protocol):
    """What a word of the command line stands for."""

    def rows(self, name: str) -> list[tuple[str, str]]:
        """What to type and what it does, for the list of commands."""

    def run(self, words: str, arguments: Sequence[str]) -> int:
        """Run it; the exit status.

        Args:
            words: those that have led to it, such as "asr lm train".
            arguments: what follows them.
        """


@dataclass(frozen=True)
class Command:
    """A command. What it needs is imported when it is run: torch takes seconds, a list of commands none."""

    about: str
    settings: str  # module below asr, and the class that is its options and its help
    function: str = "run"  # of the same module: takes the settings, returns what to print
    rewrite: str = ""  # module and function: what else may be typed -> the options that are meant
    defaults: str = ""  # module and function: options -> other default settings, or None

    def rows(self, name: str) -> list[tuple[str, str]]:
        """See `Entry`."""
        return [(name, self.about)]

    def run(self, words: str, arguments: Sequence[str]) -> int:
        """See `Entry`."""
        run = _load(f"{self.settings.partition(':')[0]}:{self.function}")
        if self.rewrite:
            arguments = _load(self.rewrite)(arguments)
        defaults = _load(self.defaults)(arguments) if self.defaults else None
        return report(run(parse(_load(self.settings), words, arguments, defaults)))


@dataclass(frozen=True)
class Kinds:
    """A command whose --kind, by default the first one, decides what its settings are."""

    kinds: Mapping[str, Command]

    def rows(self, name: str) -> list[tuple[str, str]]:
        """See `Entry`."""
        first, *others = self.kinds
        return [
            (name, self.kinds[first].about),
            *((f"{name} --kind {kind}", self.kinds[kind].about) for kind in others),
        ]

    def run(self, words: str, arguments: Sequence[str]) -> int:
        """See `Entry`."""
        kind, rest = _take_kind(arguments, tuple(self.kinds))
        return self.kinds[kind].run(f"{words} --kind {kind}", rest)


@dataclass(frozen=True)
class Group:
    """Commands below one word, and the help text that lists them."""

    about: str
    commands: Mapping[str, Entry]
    examples: str
    title: str = ""  # of the help text; "" for `about`

    def rows(self, name: str) -> list[tuple[str, str]]:
        """See `Entry`."""
        return [(name, self.about)]

    def help(self, words: str) -> str:
        """The help text."""
        rows = [row for name, entry in self.commands.items() for row in entry.rows(name)]
        width = max(len(name) for name, _ in rows)
        listed = "\n".join(f"  {name:{width}}  {about}" for name, about in rows)
        title = f"{words}: {self.title or self.about}"
        return f"{title}\n\nusage: {words} COMMAND [--help] ...\n\n{listed}\n\n{self.examples}"

    def run(self, words: str, arguments: Sequence[str]) -> int:
        """See `Entry`."""
        command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
        if command in ("-h", "--help", "help"):
            print_result(self.help(words))
            return 0
        if command not in self.commands:
            near = difflib.get_close_matches(command, self.commands, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            typed, *names = (f"{words} {name}".removeprefix("asr ") for name in (command, *self.commands))
            raise SettingsError(f"unknown command {typed!r}.{hint} Expected one of: {', '.join(names)}.")
        return self.commands[command].run(f"{words} {command}", rest)


_FORMATS = "transcripts.formats:join_formats"

_CORPUS = Group(
    "public corpora and your own folders, as manifests; long recordings cut into utterances",
    {
        "list": Command(
            "public corpora: hours, speakers, licence, how to get each",
            "commands.corpus:CorpusListSettings", "run_list",
        ),
        "prepare": Command(
            "a public corpus -> train.jsonl, dev.jsonl, test.jsonl",
            "commands.corpus:CorpusPrepareSettings", "run_prepare",
        ),
        "folder": Command(
            "your own recordings with their transcripts -> the same",
            "commands.corpus:CorpusFolderSettings", "run_folder",
        ),
        "convert": Command(
            "a manifest -> Kaldi, NeMo, lhotse, a table, webdataset or Arrow",
            "commands.corpus:CorpusConvertSettings", "run_convert",
        ),
        "segment": Command(
            "a long recording and its text -> training utterances, cut at pauses",
            "commands.corpus_segment:CorpusSegmentSettings",
        ),
    },
    """\
  asr corpus list
  asr corpus prepare yesno --download -o manifests
  asr corpus prepare common_voice --parts de --root cv-corpus-20.0-2024-12-06 -o manifests
  asr corpus folder my-recordings -o manifests
  asr corpus convert train.jsonl --to kaldi -o data/train
  asr corpus convert train.jsonl --to arrow -o data/large
  asr corpus segment chapter.flac chapter.txt -o utterances""",
)  # fmt: skip

_LM = Group(
    "language models of text: train (n-grams or a recurrent network), score, interpolate, convert",
    {
        "train": Kinds({
            "ngram": Command(
                "text -> n-gram model of words or characters",
                "commands.lm:NgramTrainSettings", "run_train",
            ),
            "charrnn": Command(
                "text -> recurrent network of characters",
                "commands.lm_network:CharRnnTrainSettings", "run_charrnn",
            ),
            "wordrnn": Command(
                "text -> recurrent network of words",
                "commands.lm_network:WordRnnTrainSettings", "run_wordrnn",
            ),
        }),
        "score": Command(
            "perplexity of a model on text, and its rate of unknown words",
            "commands.lm:LmScoreSettings", "run_score",
        ),
        "interpolate": Command(
            "several n-gram models -> one, weighted by how well each predicts a text",
            "commands.lm:NgramInterpolateSettings", "run_interpolate",
        ),
        "convert": Command(
            "ARPA file of any toolkit -> binary that loads quickly, or back",
            "commands.lm:NgramConvertSettings", "run_convert",
        ),
    },
    """\
  asr lm train text.txt more.txt.xz --order 3 -o lm.bin
  asr lm train --kind charrnn text.txt --train.run-dir runs/lm
  asr lm train --kind wordrnn text.txt --train.run-dir runs/wordlm
  asr lm score heldout.txt --lm lm.bin
  asr lm interpolate books.bin mine.bin --dev heldout.txt -o lm.bin
  asr lm convert words.arpa.gz -o words.bin""",
)  # fmt: skip

_LEXICON = Group(
    "pronunciations of words that are in no lexicon: train a network, apply it, score it",
    {
        "train": Kinds({
            "encoder-decoder": Command(
                "lexicon (CMUdict by default) -> encoder-decoder, a network that pronounces words",
                "commands.lexicon_train:LexiconTrainSettings",
            ),
            "ctc": Command(
                "lexicon -> recurrent network with CTC", "commands.lexicon_train:CtcTrainSettings"
            ),
        }),
        "apply": Command(
            "words -> their pronunciations, as a lexicon",
            "commands.lexicon:LexiconApplySettings", "run_apply",
        ),
        "score": Command(
            "words wrong and phone error rate, of networks, n-gram and their combination",
            "commands.lexicon:LexiconScoreSettings", "run_score",
        ),
        "compress": Command(
            "network -> a file of a quarter of the size, with weights of 8 bits",
            "commands.lexicon:LexiconCompressSettings", "run_compress",
        ),
    },
    """\
  asr lexicon train --train.run-dir runs/lexicon
  asr lexicon apply words.txt --models runs/lexicon/model.safetensors -o lexicon.txt
  asr lexicon score --models runs/lexicon/model.safetensors""",
)  # fmt: skip

COMMANDS: dict[str, Entry] = {
    "train": Command(
        "train a model on manifests",
        "commands.train:TrainSettings", defaults="commands.train:defaults",
    ),
    "transcribe": Command(
        "recordings -> text, subtitles, timed words",
        "commands.transcribe:TranscribeSettings", rewrite=_FORMATS,
    ),
    "stream": Command("microphone or a pipe -> text while it is spoken", "commands.stream:StreamSettings"),
    "serve": Command(
        "a web page, and a service for programs, that transcribes recordings and speech",
        "commands.serve:ServeSettings",
    ),
    "align": Command(
        "a recording and its text -> when each word is said",
        "commands.align:AlignSettings", rewrite=_FORMATS,
    ),
    "evaluate": Command(
        "word error rate of a model on a manifest, and a page to see and hear the errors",
        "commands.evaluate:EvaluateSettings",
    ),
    "tune": Command(
        "decoding weights of a model and a language model, tuned on a dev set", "commands.tune:TuneSettings"
    ),
    "score": Command("word error rate of one text file against another", "commands.score:ScoreSettings"),
    "compare": Command(
        "which of two results has fewer errors, where, and whether that may be chance",
        "commands.compare:CompareSettings",
    ),
    "adapt": Command(
        "a model that ships + your text and words -> a model for your subject, without recordings",
        "commands.adapt:AdaptSettings",
    ),
    "augment": Command(
        "recordings as training augments them: speed, rooms, noise, telephone, …",
        "commands.augment:AugmentSettings",
    ),
    "doctor": Command(
        "what is wrong with manifests: audio, transcripts, speakers, alphabet",
        "commands.doctor:DoctorSettings",
    ),
    "info": Command(
        "what a model is, how it was trained, and the command that trains it again",
        "commands.info:InfoSettings",
    ),
    "export": Command("a model as an ONNX graph, for other runtimes", "commands.export:ExportSettings"),
    "corpus": _CORPUS,
    "lm": _LM,
    "lexicon": _LEXICON,
}  # fmt: skip

_ASR = Group(
    "",
    COMMANDS,
    """\
  asr train train.jsonl --dev dev.jsonl --train.run-dir runs/mine
  asr transcribe recording.wav                          (with the English model that ships)
  asr transcribe folder --format srt --output-dir subtitles
  asr transcribe recording.wav --model runs/mine/model.safetensors
  ffmpeg -i talk.opus -f s16le -ac 1 -ar 16000 - | asr stream -
  asr serve --port 8000                                 (then open http://localhost:8000)
  asr align recording.wav text.txt --format textgrid --output-dir aligned
  asr evaluate test.jsonl --model runs/mine/model.safetensors
  asr tune dev.jsonl --model runs/mine/model.safetensors --lm words.bin
  asr score reference.txt hypothesis.txt
  asr compare first.results second.results
  asr adapt english --text minutes.txt --words names.txt -o my-model
  asr augment recording.wav --out augmented --augment.noise-share 1
  asr doctor train.jsonl dev.jsonl
  asr info runs/mine/model.safetensors
  asr export runs/mine/model.safetensors -o mine.onnx
  asr corpus prepare yesno --download -o manifests
  asr lm train text.txt --order 3 -o lm.bin
  asr lexicon train -o letters-to-sounds.safetensors

`asr COMMAND --help` lists a command's settings; `asr --version` prints the version.
Recipes for public data sets are in recipes/, such as: python recipes/yesno.py""",
    title="train recurrent speech recognisers with CTC, transcribe recordings, score the result.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command and its options; None for those of the process.

    Returns:
        The exit status.
    """
    chosen = list(sys.argv[1:] if arguments is None else arguments)
    if chosen[:1] == ["--version"]:
        return guarded(lambda: report(f"asr {__version__}"))
    return guarded(lambda: _ASR.run("asr", chosen))


def run_process() -> NoReturn:
    """Run the command of this process, and end it.

    Imports and tables make a million objects that stay. Python would look through all of them for garbage
    again and again while they are made, and at the end: a quarter of the time of `asr transcribe` with one
    short recording.
    """
    gc.set_threshold(100_000, 20, 20)
    status = main()
    gc.freeze()
    sys.exit(status)


def recipe(
    run: Callable[[Config], str],
    config: Config | Mapping[str, tuple[str, Config]] | Callable[[], Config],
    default: str = "",
) -> None:
    """Run a recipe: settings from the command line, errors and progress as for every command; then exit.

    Args:
        run: takes the settings, returns the text to print at the end.
        config: default settings, which the command line can change, or what makes them; or presets by name,
            each with its description, of which the command line names one first.
        default: the preset where the command line names none; "" if it has to name one.
    """

    def parse_and_run() -> int:
        import tyro

        document, arguments = sys.modules["__main__"].__doc__, sys.argv[1:]
        source = option_value(arguments, "--train.warm-start")
        with one_line(f"python {sys.argv[0]}"):
            if isinstance(config, Mapping):
                if arguments and not arguments[0].startswith("-") and arguments[0] not in config:
                    names = ", ".join(config)
                    raise SettingsError(f"unknown preset {arguments[0]!r}. Expected one of: {names}.")
                if default and not any(word in config or word in ("-h", "--help") for word in arguments[:1]):
                    arguments = [default, *arguments]
                presets = {
                    name: (about, _of_source(preset, source)) for name, (about, preset) in config.items()
                }
                settings = tyro.extras.overridable_config_cli(presets, args=arguments, description=document)
            else:
                start = _of_source(config() if callable(config) else config, source)
                settings = tyro.cli(type(start), default=start, description=document)
        print_result(run(settings))
        return 0

    sys.exit(guarded(parse_and_run))


def _of_source(config: Config, source: str | None) -> Config:
    """A recipe's settings; with a warm start, features and encoder are those of that model.

    Args:
        config: of the recipe.
        source: of the command line's --train.warm-start; None for the recipe's own, if it has one.
    """
    from asr.training.recogniser import Settings, settings_of_source

    if not isinstance(config, Settings):
        return config
    path = Path(source) if source else config.train.warm_start
    return settings_of_source(config, path) if path else config


def _load(name: str) -> Any:
    """What "module:name" names, the module below asr."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"asr.{module}"), attribute)


def _take_kind(arguments: Sequence[str], kinds: Sequence[str]) -> tuple[str, list[str]]:
    """The value of --kind, by default the first one, and the other arguments: kinds differ in settings."""
    kind, rest = kinds[0], list(arguments)
    for index, word in enumerate(rest):
        if word == "--kind" or word.startswith("--kind="):
            size = 1 if "=" in word else 2
            kind = " ".join(rest[index : index + size]).replace("=", " ").removeprefix("--kind").strip()
            del rest[index : index + size]
            break
    if kind not in kinds:
        raise SettingsError(f"--kind is {kind!r}. Expected {' or '.join(kinds)}.")
    return kind, rest
