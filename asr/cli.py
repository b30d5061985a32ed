"""The command line: `asr COMMAND …`, and the error handling and progress that recipes share with it.

The only file that prints or sets an exit status: 0 for success, 1 when some files of a list could not be
used, 2 for an error that ended the command, 130 after Ctrl-C, 141 when the reader of the output has closed
it. Results go to stdout, everything else to stderr.
"""

import contextlib
import errno
import io
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from asr import __version__
from asr.commands.options import one_line, option_value, parse
from asr.errors import AsrError, SettingsError

_HELP = """\
asr: train recurrent speech recognisers with CTC, transcribe recordings, score the result.

usage: asr COMMAND [--help] ...

  train       train a model on manifests
  transcribe  recordings -> text, subtitles, timed words
  align       a recording and its text -> when each word is said
  evaluate    word error rate of a model on a manifest
  tune        decoding weights of a model and a language model, tuned on a dev set
  score       word error rate of one text file against another
  adapt       a model that ships + your text and words -> a model of your subject, without recordings
  augment     recordings as training augments them: speed, rooms, noise, telephone, …
  corpus      public corpora as manifests; training utterances of long recordings and their texts
  lm          train a language model (n-grams or a character RNN), score text with it, convert it
  lexicon     train a network that pronounces words, pronounce words, score pronunciations

  asr train train.jsonl --dev dev.jsonl --train.run-dir runs/mine
  asr transcribe recording.wav                          (with the English model that ships)
  asr transcribe folder --format srt --output-dir subtitles
  asr transcribe recording.wav --model runs/mine/model.safetensors
  asr align chapter.flac chapter.txt --format ctm
  asr evaluate test.jsonl --model runs/mine/model.safetensors
  asr tune dev.jsonl --model runs/mine/model.safetensors --lm words.bin
  asr score reference.txt hypothesis.txt
  asr adapt english --text minutes.txt --words names.txt -o my-model
  asr augment recording.wav --out augmented --augment.noise-share 1
  asr corpus prepare yesno --download -o manifests
  asr corpus segment chapter.flac chapter.txt -o utterances
  asr lm train text.txt --order 3 -o lm.bin
  asr lexicon train -o letters-to-sounds.safetensors

`asr COMMAND --help` lists a command's settings; `asr --version` prints the version.
Recipes for public data sets are in recipes/, such as: python recipes/yesno.py"""

_CORPUS_HELP = """\
asr corpus: corpora, as manifests.

usage: asr corpus COMMAND [--help] ...

  list     public corpora: hours, speakers, licence, how to get each
  prepare  a public corpus -> train.jsonl, dev.jsonl, test.jsonl
  segment  a long recording and its text -> training utterances, cut at pauses

  asr corpus list
  asr corpus prepare yesno --download -o manifests
  asr corpus prepare common_voice --parts de --root cv-corpus-20.0-2024-12-06 -o manifests
  asr corpus segment chapter.flac chapter.txt -o utterances"""

_LM_HELP = """\
asr lm: language models.

usage: asr lm COMMAND [--help] ...

  train                 text -> n-gram model of words or characters
  train --kind charrnn  text -> recurrent network of characters
  score                 perplexity of a model on text, and its rate of unknown words
  interpolate           several n-gram models -> one, weighted by how well each predicts a text
  convert               ARPA file of any toolkit -> binary that loads quickly, or back

  asr lm train text.txt more.txt.xz --order 3 -o lm.bin
  asr lm train --kind charrnn text.txt --train.run-dir runs/lm
  asr lm score heldout.txt --lm lm.bin
  asr lm interpolate books.bin mine.bin --dev heldout.txt -o lm.bin
  asr lm convert words.arpa.gz -o words.bin"""

_LEXICON_HELP = """\
asr lexicon: pronunciations of words that are in no lexicon.

usage: asr lexicon COMMAND [--help] ...

  train             lexicon (CMUdict by default) -> encoder-decoder, a network that pronounces words
  train --kind ctc  lexicon -> recurrent network with CTC
  apply             words -> their pronunciations, as a lexicon
  score             words wrong and phone error rate, of networks, n-gram and their combination
  compress          network -> a file of a quarter of the size, with weights of 8 bits

  asr lexicon train --train.run-dir runs/lexicon
  asr lexicon apply words.txt --models runs/lexicon/model.safetensors -o lexicon.txt
  asr lexicon score --models runs/lexicon/model.safetensors"""

log = logging.getLogger("asr")

Config = TypeVar("Config")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command and its options; None for those of the process.

    Returns:
        The exit status.
    """
    chosen = list(sys.argv[1:] if arguments is None else arguments)
    if chosen[:1] == ["--version"]:
        return _guarded(lambda: _report(f"asr {__version__}"))
    return _guarded(lambda: _dispatch(chosen, _COMMANDS, _HELP))


def recipe(
    run: Callable[[Config], str], config: Config | Mapping[str, tuple[str, Config]], default: str = ""
) -> None:
    """Run a recipe: settings from the command line, errors and progress as for every command; then exit.

    Args:
        run: takes the settings, returns the text to print at the end.
        config: default settings, which the command line can change; or presets by name, each with its
            description, of which the command line names one first.
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
                start = _of_source(config, source)
                settings = tyro.cli(type(config), default=start, description=document)
        _console.print_result(run(settings))
        return 0

    sys.exit(_guarded(parse_and_run))


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


# Each command is imported when it is called: torch takes seconds, and `asr --help` does not need it.


def _train(arguments: Sequence[str]) -> int:
    from asr.commands.train import TrainSettings, defaults, run

    return _report(run(parse(TrainSettings, "asr train", arguments, defaults(arguments))))


def _transcribe(arguments: Sequence[str]) -> int:
    from asr.commands.transcribe import TranscribeSettings, run
    from asr.transcripts.formats import join_formats

    return _report(run(parse(TranscribeSettings, "asr transcribe", join_formats(arguments))))


def _align(arguments: Sequence[str]) -> int:
    from asr.commands.align import AlignSettings, run
    from asr.transcripts.formats import join_formats

    return _report(run(parse(AlignSettings, "asr align", join_formats(arguments))))


def _evaluate(arguments: Sequence[str]) -> int:
    from asr.commands.evaluate import EvaluateSettings, run

    return _report(run(parse(EvaluateSettings, "asr evaluate", arguments)))


def _tune(arguments: Sequence[str]) -> int:
    from asr.commands.tune import TuneSettings, run

    return _report(run(parse(TuneSettings, "asr tune", arguments)))


def _score(arguments: Sequence[str]) -> int:
    from asr.commands.score import ScoreSettings, run

    return _report(run(parse(ScoreSettings, "asr score", arguments)))


def _adapt(arguments: Sequence[str]) -> int:
    from asr.commands.adapt import AdaptSettings, run

    return _report(run(parse(AdaptSettings, "asr adapt", arguments)))


def _augment(arguments: Sequence[str]) -> int:
    from asr.commands.augment import AugmentSettings, run

    return _report(run(parse(AugmentSettings, "asr augment", arguments)))


def _corpus_list(arguments: Sequence[str]) -> int:
    from asr.commands.corpus import CorpusListSettings, run_list

    return _report(run_list(parse(CorpusListSettings, "asr corpus list", arguments)))


def _corpus_prepare(arguments: Sequence[str]) -> int:
    from asr.commands.corpus import CorpusPrepareSettings, run_prepare

    return _report(run_prepare(parse(CorpusPrepareSettings, "asr corpus prepare", arguments)))


def _corpus_segment(arguments: Sequence[str]) -> int:
    from asr.commands.corpus_segment import CorpusSegmentSettings, run

    return _report(run(parse(CorpusSegmentSettings, "asr corpus segment", arguments)))


def _lm_train(arguments: Sequence[str]) -> int:
    kind, rest = _take_kind(arguments, ("ngram", "charrnn"))
    if kind == "charrnn":
        from asr.commands.lm_charrnn import CharRnnTrainSettings, run

        return _report(run(parse(CharRnnTrainSettings, "asr lm train --kind charrnn", rest)))
    from asr.commands.lm import NgramTrainSettings, run_train

    return _report(run_train(parse(NgramTrainSettings, "asr lm train", rest)))


def _lm_score(arguments: Sequence[str]) -> int:
    from asr.commands.lm import LmScoreSettings, run_score

    return _report(run_score(parse(LmScoreSettings, "asr lm score", arguments)))


def _lm_interpolate(arguments: Sequence[str]) -> int:
    from asr.commands.lm import NgramInterpolateSettings, run_interpolate

    return _report(run_interpolate(parse(NgramInterpolateSettings, "asr lm interpolate", arguments)))


def _lm_convert(arguments: Sequence[str]) -> int:
    from asr.commands.lm import NgramConvertSettings, run_convert

    return _report(run_convert(parse(NgramConvertSettings, "asr lm convert", arguments)))


def _lexicon_train(arguments: Sequence[str]) -> int:
    from asr.commands.lexicon_train import CtcTrainSettings, LexiconTrainSettings, run

    kind, rest = _take_kind(arguments, ("encoder-decoder", "ctc"))
    prog = f"asr lexicon train --kind {kind}"
    if kind == "ctc":
        return _report(run(parse(CtcTrainSettings, prog, rest)))
    return _report(run(parse(LexiconTrainSettings, prog, rest)))


def _lexicon_apply(arguments: Sequence[str]) -> int:
    from asr.commands.lexicon import LexiconApplySettings, run_apply

    return _report(run_apply(parse(LexiconApplySettings, "asr lexicon apply", arguments)))


def _lexicon_score(arguments: Sequence[str]) -> int:
    from asr.commands.lexicon import LexiconScoreSettings, run_score

    return _report(run_score(parse(LexiconScoreSettings, "asr lexicon score", arguments)))


def _lexicon_compress(arguments: Sequence[str]) -> int:
    from asr.commands.lexicon import LexiconCompressSettings, run_compress

    return _report(run_compress(parse(LexiconCompressSettings, "asr lexicon compress", arguments)))


def _report(result: str | Iterable[tuple[str | None, AsrError | None]]) -> int:
    """Print a command's result, or the line, the error or both of each file of its list; the exit status."""
    if isinstance(result, str):
        _console.print_result(result)
        return 0
    failures: list[bool] = []
    for line, error in result:
        if line is not None:
            _console.print_result(line)
        if error is not None:
            log.error("%s", error)
        failures.append(error is not None)
    return 2 if all(failures) else 1 if any(failures) else 0


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


_Commands = Mapping[str, Callable[[Sequence[str]], int]]


def _dispatch(arguments: Sequence[str], commands: _Commands, help_text: str, group: str = "") -> int:
    """Run the command that the first argument names.

    Args:
        arguments: the command and its options; none for the help text.
        commands: by their names.
        help_text: of all of them.
        group: the words of the command line before the first argument, without `asr`.
    """
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        _console.print_result(help_text)
        return 0
    if command not in commands:
        import difflib

        near = difflib.get_close_matches(command, commands, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        names = ", ".join(f"{group} {name}".strip() for name in commands)
        name = f"{group} {command}".strip()
        raise SettingsError(f"unknown command {name!r}.{hint} Expected one of: {names}.")
    return commands[command](rest)


def _group(name: str, help_text: str, commands: _Commands) -> Callable[[Sequence[str]], int]:
    """A command that is a group of commands."""
    return lambda arguments: _dispatch(arguments, commands, help_text, name)


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train, "transcribe": _transcribe, "align": _align, "evaluate": _evaluate, "tune": _tune,
    "score": _score, "adapt": _adapt, "augment": _augment,
    "corpus": _group("corpus", _CORPUS_HELP, {
        "list": _corpus_list, "prepare": _corpus_prepare, "segment": _corpus_segment,
    }),
    "lm": _group("lm", _LM_HELP, {
        "train": _lm_train, "score": _lm_score, "interpolate": _lm_interpolate, "convert": _lm_convert,
    }),
    "lexicon": _group("lexicon", _LEXICON_HELP, {
        "train": _lexicon_train, "apply": _lexicon_apply, "score": _lexicon_score,
        "compress": _lexicon_compress,
    }),
}  # fmt: skip


def _guarded(run: Callable[[], int]) -> int:
    """Run a command; an error that a user can cause becomes one line and an exit status."""
    log.setLevel(logging.INFO)
    log.addHandler(_console)
    _console.start()
    hook, threading.excepthook = threading.excepthook, _ignore_full_disk
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal lacks must not be an error
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            status = run()
        except SystemExit as end:  # a help text has been printed
            status = end.code if isinstance(end.code, int) else 0
        _print("", end="")  # flushes a help text
        return status
    except AsrError as error:
        if _is_first(str(error)):
            log.error("%s", error)
        return error.exit_status
    except KeyboardInterrupt:
        log.error("interrupted")
        return 130
    except BrokenPipeError:
        return 141  # the reader of the output (such as head) has closed it: end silently, as after SIGPIPE
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        log.error("%s%s. %s", where, error.strerror, _FILE_ERRORS[error.errno])
        return 2
    finally:
        _console.end_line()
        log.removeHandler(_console)
        threading.excepthook = hook


def _is_first(message: str) -> bool:
    """Whether this process logs the error: of several that fail alike, one does."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from asr.training.distributed import first_to_report

    return first_to_report(message)


_SPACE = "Free some space, or write to another folder."
_ELSEWHERE = "Choose another file or folder."
_FILE_ERRORS = {
    errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EROFS: _ELSEWHERE, errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE, errno.EEXIST: _ELSEWHERE, errno.ENOTDIR: _ELSEWHERE, errno.EISDIR: _ELSEWHERE,
    errno.ENAMETOOLONG: _ELSEWHERE, errno.ENOENT: "Make its folder, or choose another one.",
}  # fmt: skip


def _print(text: str, end: str = "\n") -> None:
    """Print to stdout and flush: a failed write is an error here, not at exit."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        error.filename = "the output"
        # Otherwise Python's flush at exit fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _ignore_full_disk(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread passes its error to the main thread; a second traceback adds nothing."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


_MINUTE_S = 60.0


class _Console(logging.Handler):
    """Results to stdout, log lines to stderr.

    A transient log line is overwritten by the next line; without a terminal, as in a batch job's log, there
    is one per minute.
    """

    _transient_shown = False  # whether the last line is a transient one
    _quiet_until = 0.0  # no transient line before this time, without a terminal

    def start(self) -> None:
        """Note that a command begins."""
        self._quiet_until = time.monotonic() + _MINUTE_S

    def print_result(self, text: str) -> None:
        """Print a result."""
        self.end_line()
        if os.environ.get("RANK", "0") == "0":  # under torchrun one process prints
            _print(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, as one line."""
        if sys.stderr is None:  # closed by the caller; print would fall back to stdout
            return
        text = record.getMessage()
        with contextlib.suppress(OSError):  # stderr is closed: no reason to end a training
            if getattr(record, "transient", False):
                if sys.stderr.isatty():
                    width = max(shutil.get_terminal_size().columns, 20)
                    print(f"\r\x1b[K{text[: width - 1]}", end="", file=sys.stderr, flush=True)
                    self._transient_shown = True
                    return
                if time.monotonic() < self._quiet_until:
                    return
                self._quiet_until = time.monotonic() + _MINUTE_S
            self.end_line()
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname.lower()}: " + re.sub(r"\s*\n\s*", " ", text)
            print(text, file=sys.stderr, flush=True)

    def end_line(self) -> None:
        """Erase a transient line that is still shown."""
        if self._transient_shown:
            self._transient_shown = False
            with contextlib.suppress(OSError):
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)


_console = _Console()
