"""The decoders that decoding.py compares, all called alike: a part of the speech in, texts and seconds out.

Settings are given as `asr` takes them: weights are factors on natural logarithms. flashlight's KenLM returns
logarithms to base 10, so its weight is multiplied by ln 10. Its spellings end in the space, as in its
recipes; the models of this project write none after the last word, so one step that is a space for certain is
appended to what it and torchaudio get: otherwise they could not end in a word.
"""

import json
import math
import multiprocessing
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.errors import SettingsError
from asr.lm.ngram.model import NgramModel
from asr.recognition.emissions import Emissions
from asr.text.tokenizer import Tokenizer

SPACE = "<space>"  # of an ARPA file of characters
LN10 = math.log(10.0)
THRESHOLD = 25.0  # nats below the best: dropped; the same for all that have such a setting


@dataclass(frozen=True)
class Setting:
    """How to search."""

    beam: int
    tokens: int = 0  # tokens tried in a step, the most probable ones; 0: all
    lm_weight: float = 0.5
    word_bonus: float = 0.0


@dataclass(frozen=True)
class Turn:
    """One pass over a part: texts, seconds of wall time and of processor time."""

    texts: tuple[str, ...]
    wall: float
    cpu: float


class System(Protocol):
    """A decoder."""

    name: str
    parallel: bool  # whether it can use more than one core

    def decode(self, part: str, setting: Setting, threads: int) -> Turn: ...


class AsrBeamSearch:
    """asr's prefix beam search."""

    name, parallel = "asr", True

    def __init__(
        self, tokenizer: Tokenizer, parts: Mapping[str, Emissions], lm: NgramModel, unknown: bool
    ) -> None:
        self.parts = parts
        config = BeamConfig(unknown_words="allow" if unknown or lm.unit != "word" else "forbid")
        self.decoder = BeamDecoder(tokenizer, config, lm=lm)

    def decode(self, part: str, setting: Setting, threads: int) -> Turn:
        config = replace(
            self.decoder.config,
            beam_size=setting.beam, token_top=setting.tokens, beam_threshold=THRESHOLD, threads=threads,
        ).with_weights(lm_weight=setting.lm_weight, word_bonus=setting.word_bonus)  # fmt: skip
        decoder = self.decoder.with_config(config)
        began, spent = time.perf_counter(), time.process_time()
        texts = tuple(found[0].text for found in self.parts[part].decode(decoder))
        return Turn(texts, time.perf_counter() - began, time.process_time() - spent)


class Flashlight:
    """flashlight-text: LexiconDecoder with words, LexiconFreeDecoder with characters."""

    parallel = True

    def __init__(
        self,
        symbols: Sequence[str],
        parts: Mapping[str, Sequence[NDArray[np.float32]]],
        arpa: Path,
        words: Sequence[str],
        log_add: bool,
    ) -> None:
        from flashlight.lib.text import decoder as fl
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        self.fl, self.parts, self.log_add = fl, parts, log_add
        self.name = ("flashlight LexiconDecoder" if words else "flashlight LexiconFreeDecoder") + (
            ", sums" if log_add else ""
        )
        self.symbols = symbols
        self.space = symbols.index(SPACE)
        self.words = Dictionary([*(words or symbols), "<unk>"])
        self.words.set_default_index(self.words.get_index("<unk>"))
        self.lm = KenLM(str(arpa), self.words)
        self.trie = None
        if words:
            self.trie = fl.Trie(len(symbols), self.space)
            number = {SPACE: self.space} | {symbol: index for index, symbol in enumerate(symbols)}
            start = self.lm.start(False)
            for word in words:
                index = self.words.get_index(word)
                spelling = [*(number[letter] for letter in word), self.space]
                self.trie.insert(spelling, index, self.lm.score(start, index)[1])
            self.trie.smear(fl.SmearingMode.MAX)

    def _decoder(self, setting: Setting) -> Any:
        tokens, weight = setting.tokens or len(self.symbols), setting.lm_weight * LN10
        common: dict[str, Any] = {
            "beam_size": setting.beam, "beam_size_token": tokens, "beam_threshold": THRESHOLD,
            "lm_weight": weight, "log_add": self.log_add, "criterion_type": self.fl.CriterionType.CTC,
        }  # fmt: skip
        if self.trie is None:
            options = self.fl.LexiconFreeDecoderOptions(sil_score=setting.word_bonus, **common)
            return self.fl.LexiconFreeDecoder(options, self.lm, self.space, 0, [])
        options = self.fl.LexiconDecoderOptions(
            word_score=setting.word_bonus, unk_score=-math.inf, sil_score=0.0, **common
        )
        unknown = self.words.get_index("<unk>")
        return self.fl.LexiconDecoder(options, self.trie, self.lm, self.space, 0, unknown, [], False)

    def decode(self, part: str, setting: Setting, threads: int) -> Turn:
        decoder = self._decoder(setting)

        def one(rows: NDArray[np.float32]) -> str:
            # Only the best hypothesis becomes a Python object: cheaper than decode(), which returns the beam.
            decoder.decode_begin()
            decoder.decode_step(rows.ctypes.data, *rows.shape)
            decoder.decode_end()
            return self._text(decoder.get_best_hypothesis(0))

        return in_turn_or_processes(one, self.parts[part], threads)

    def _text(self, result: Any) -> str:
        if self.trie is not None:
            return " ".join(self.words.get_entry(word) for word in result.words if word >= 0)
        ids = [token for token, _ in groupby(result.tokens) if token != 0]
        letters = (" " if token == self.space else self.symbols[token] for token in ids)
        return " ".join("".join(letters).split())


class Torchaudio:
    """torchaudio's wrapper of flashlight's LexiconDecoder."""

    name, parallel = "torchaudio ctc_decoder", False

    def __init__(
        self,
        symbols: Sequence[str],
        parts: Mapping[str, Sequence[NDArray[np.float32]]],
        arpa: Path,
        words: Sequence[str],
        folder: Path,
    ) -> None:
        from torchaudio.models.decoder import ctc_decoder

        self.symbols, self.arpa, self.make = list(symbols), arpa, ctc_decoder
        self.parts = {
            name: [torch.from_numpy(rows)[None] for rows in several] for name, several in parts.items()
        }
        self.lexicon = folder / "lexicon.txt"
        self.lexicon.write_text("".join(f"{word} {' '.join(word)} {SPACE}\n" for word in words))
        self.made: tuple[Setting, Any] | None = None  # it offers no way to change the weights of one

    def decode(self, part: str, setting: Setting, threads: int) -> Turn:
        if self.made is None or self.made[0] != setting:
            self.made = None
            decoder = self.make(
                lexicon=str(self.lexicon), tokens=self.symbols, lm=str(self.arpa), nbest=1,
                beam_size=setting.beam, beam_size_token=setting.tokens or None, beam_threshold=THRESHOLD,
                lm_weight=setting.lm_weight * LN10, word_score=setting.word_bonus,
                blank_token=self.symbols[0], sil_token=SPACE,
            )  # fmt: skip
            self.made = setting, decoder
        decoder = self.made[1]
        return in_turn_or_processes(lambda rows: " ".join(decoder(rows)[0][0].words), self.parts[part], 1)


class Pyctcdecode:
    """pyctcdecode in its own interpreter; unknown words are allowed, its pruning is its default."""

    name, parallel = "pyctcdecode", True

    def __init__(
        self, python: Path, symbols: Sequence[str], parts: Mapping[str, Emissions], arpa: Path, folder: Path
    ) -> None:
        for name, emissions in parts.items():
            np.save(folder / f"{name}.npy", torch.cat(emissions.log_probs).numpy())
            np.save(folder / f"{name}-lengths.npy", [len(rows) for rows in emissions.log_probs])
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        try:
            self.process = subprocess.Popen(
                [python, Path(__file__).with_name("pyctcdecode_worker.py"), arpa, folder],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            )  # fmt: skip
        except OSError as error:
            raise SettingsError(
                f"--pyctcdecode {python}: {error.strerror}. An interpreter with pyctcdecode was expected."
            ) from error
        labels = ["" if index == 0 else " " if name == SPACE else name for index, name in enumerate(symbols)]
        self._ask({"labels": labels})

    def decode(self, part: str, setting: Setting, threads: int) -> Turn:
        answer = self._ask(
            {"part": part, "beam": setting.beam, "lm_weight": setting.lm_weight,
             "word_bonus": setting.word_bonus, "processes": threads}
        )  # fmt: skip
        return Turn(tuple(answer["texts"]), answer["wall"], answer["cpu"])

    def close(self) -> None:
        """End its process."""
        self.process.communicate()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            last = (self.errors.read().splitlines() or ["no message"])[-1]
            raise SettingsError(f"--pyctcdecode: {last}. Expected an interpreter with pyctcdecode and kenlm.")
        return json.loads(line)


class SeparateProcess:
    """A decoder in a separate process.

    C++ that makes and drops many small objects is up to 4 times slower in a process whose memory others have
    left in pieces: flashlight's LexiconFreeDecoder was, beside the lexica of the others.
    """

    def __init__(self, kind: Callable[..., System], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(end, kind, arguments))
        self.process.start()
        end.close()
        self.name, self.parallel = self._receive()

    def decode(self, part: str, setting: Setting, threads: int) -> Turn:
        self.pipe.send((part, setting, threads))
        return self._receive()

    def close(self) -> None:
        """End its process."""
        self.pipe.close()
        self.process.join()

    def _receive(self) -> Any:
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer


def _serve(pipe: Any, kind: Callable[..., System], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        system = kind(*arguments)
        pipe.send((system.name, system.parallel))
        while True:
            pipe.send(system.decode(*pipe.recv()))
    except EOFError:
        return  # nothing more is asked
    except Exception as error:  # noqa: BLE001 (raised again where it was asked)
        pipe.send(error)


def in_turn_or_processes(one: Callable[[Any], str], rows: Sequence[Any], threads: int) -> Turn:
    """Decode one after the other, or by forked processes, for C++ that keeps Python's lock while it works."""
    if threads == 1:
        began, spent = time.perf_counter(), time.process_time()
        texts = tuple(one(row) for row in rows)
        return Turn(texts, time.perf_counter() - began, time.process_time() - spent)
    global _work
    _work = one, rows
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with multiprocessing.get_context("fork").Pool(threads) as pool:
        pool.map(_nothing, range(threads))  # the processes have started
        began = time.perf_counter()
        texts = tuple(pool.map(_by_number, range(len(rows)), chunksize=1))
        wall = time.perf_counter() - began
        pool.close()
        pool.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Turn(texts, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


_work: tuple[Callable[[Any], str], Sequence[Any]] | None = None  # of this process's children


def _by_number(number: int) -> str:
    one, rows = _work
    return one(rows[number])


def _nothing(number: int) -> int:
    return number


def with_last_space(emissions: Emissions, space: int) -> list[NDArray[np.float32]]:
    """Each utterance's rows with one more, which is the space for certain."""
    vocab = emissions.log_probs[0].shape[1]
    last = np.full((1, vocab), -1e4, np.float32)
    last[0, space] = 0.0
    return [
        np.ascontiguousarray(np.concatenate([rows.numpy(), last]), np.float32) for rows in emissions.log_probs
    ]
