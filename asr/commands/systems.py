"""Decoders beside each other: each is tuned on one part of a corpus and decodes another, once."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from asr.commands.tune import NBEST, fit, oov_rate, oracle_errors, tune, word_perplexity, write_points
from asr.corpora.manifest import Utterance
from asr.decoding.decoder import Decode, DecoderSettings, Knowledge, Search, data_digest, greedy, weighted
from asr.decoding.emissions import Emissions, keep_emissions
from asr.decoding.hypothesis import OutputUnit
from asr.errors import DataError
from asr.model.acoustic import AcousticModel
from asr.scoring.comparison import System
from asr.scoring.evaluation import reference_texts
from asr.scoring.weight_search import Grid
from asr.scoring.wer import score

__all__ = ["Comparison", "Part"]

log = logging.getLogger("asr")

_HEADS = ("OOV", "perplexity a word", f"oracle of {NBEST}", "dev", "seconds", "weights")


@dataclass(frozen=True)
class Part:
    """Utterances and what a model says of them.

    Attributes:
        utterances: with their true text.
        texts: their references, in words and, for a model of phones, in phones.
        emissions: the model's output.
    """

    utterances: Sequence[Utterance]
    texts: Mapping[OutputUnit, Sequence[str]]
    emissions: Emissions

    @classmethod
    def of(cls, path: Path, model: AcousticModel, utterances: Sequence[Utterance], batch_s: float) -> "Part":
        """Compute the emissions, or find them in a file; see `keep_emissions`.

        Raises:
            AsrError: there is no utterance, or one cannot be used.
        """
        if not utterances:
            raise DataError(f"{path.stem}: no utterance. Expected at least one.")
        tokenizer, rules = model.settings.tokenizer, model.settings.normalizer
        units: list[OutputUnit] = ["words"] if tokenizer.pieces else ["words", "phones"]
        texts = {unit: reference_texts(utterances, tokenizer, rules, unit) for unit in units}
        return cls(utterances, texts, keep_emissions(path, model, utterances, batch_s))


@dataclass(frozen=True)
class Comparison:
    """Systems of one model; the results of each are kept in the folder, and not made again.

    Attributes:
        folder: where results, points and pictures go.
        model: the acoustic model.
        dev: to tune on.
        test: to score on.
        search_beam: prefixes kept while tuning.
    """

    folder: Path
    model: AcousticModel
    dev: Part
    test: Part
    search_beam: int

    def system(self, name: str, settings: DecoderSettings | None, grid: Grid) -> System:
        """One system's score, with columns for `asr.scoring.comparison.table`.

        Args:
            name: of the system, and of its file.
            settings: of its beam search; None for greedy decoding.
            grid: weights that are tried.

        Raises:
            AsrError: a file cannot be used, or the parts do not fit each other.
        """
        file = self.folder / f"{name}.json"
        known = Knowledge.read(settings, self.model) if settings else Knowledge()
        unit = known.unit(self.model.settings.tokenizer)
        key = self._key(known, settings, grid)
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if kept.get("key") == key:
            log.info("%s: done before, %s", name, file)
        else:
            log.info("%s …", name)
            if settings is None:
                texts, seconds = self._decode(greedy(self.model.settings.tokenizer))
                columns = {"seconds": f"{seconds:.0f}"}
            else:
                texts, columns = self._tuned(name, settings, known, grid)
            kept = {"key": key, "texts": texts, "columns": columns}
            file.write_text(json.dumps(kept), encoding="utf-8")
        ids = [utterance.id for utterance in self.test.utterances]
        speakers = [utterance.speaker for utterance in self.test.utterances]
        rules = self.model.settings.normalizer
        result = score(self.test.texts[unit], kept["texts"], ids, rules, unit, speakers=speakers)
        log.info("%s: %s", name, result.wer_line())
        return System(name, [result], {head: kept["columns"].get(head, "") for head in _HEADS})

    def _key(self, known: Knowledge, settings: DecoderSettings | None, grid: Grid) -> list[str]:
        """What a result depends on, by content: a file that is written anew under its old name counts."""
        parts: list[Any] = [
            part
            for data in (self.test, self.dev)
            for part in (data.emissions.key, data_digest(data.utterances))
        ]
        parts += [asdict(known.key), asdict(settings.beam)] if settings else []
        given = settings.given if settings else {}
        return [*map(str, parts), str(given), repr(grid), str(self.search_beam), str(settings is None)]

    def _tuned(
        self, name: str, settings: DecoderSettings, known: Knowledge, grid: Grid
    ) -> tuple[list[str], dict[str, str]]:
        test, texts_of = self.test, self.test.texts[known.unit(self.model.settings.tokenizer)]
        search = Search(self.model.settings.tokenizer, settings.beam, known)
        tuned = tune(
            self.model, self.dev.utterances, self.dev.emissions, search, grid,
            search_beam=self.search_beam,
        )  # fmt: skip
        for warning in tuned.warnings:
            log.warning("%s: %s", name, warning)
        write_points(self.folder / name, tuned, name)
        config = weighted(settings.beam, tuned.tuning)
        search = search.with_config(config, tuned.tuning.priors)
        texts, seconds = self._decode(search)
        oracle = None
        if config.beam_size >= NBEST:
            best = list(test.emissions.decode(search.with_config(replace(config, nbest=NBEST))))
            oracle = oracle_errors(texts_of, best)
        words = max(sum(len(text.split()) for text in texts_of), 1)
        oov, predicted = oov_rate(known, texts_of), fit(known, texts_of)
        return texts, {
            "OOV": "" if oov is None else f"{100 * oov:.2f}%",
            "perplexity a word": f"{word_perplexity(predicted, words):.1f}" if predicted else "",
            f"oracle of {NBEST}": "" if oracle is None else f"{100 * oracle / words:.2f}",
            "dev": f"{100 * tuned.best.words.rate:.2f}",
            "seconds": f"{seconds:.0f}",
            "weights": str(tuned.tuning),
        }

    def _decode(self, decode: Decode) -> tuple[list[str], float]:
        began = time.monotonic()
        texts = [found[0].text for found in self.test.emissions.decode(decode)]
        return texts, time.monotonic() - began
