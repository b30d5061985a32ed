"""Decoders of one model compared: each is tuned on dev and scored on test; results are kept."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from asr.decoding.config import DecoderSettings
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hypothesis import OutputUnit
from asr.decoding.interface import Decoder
from asr.decoding.rescoring import TwoPassDecoder
from asr.decoding.resources import DecodingResources, data_digest
from asr.errors import DataError
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.recognition.emissions import Emissions, cached_emissions
from asr.scoring.evaluation import reference_texts
from asr.scoring.objective import oracle_errors
from asr.scoring.system_table import System
from asr.scoring.tuning import (
    NBEST,
    language_model_fit,
    oov_rate,
    tune,
    word_perplexity,
    write_points,
)
from asr.scoring.weight_search import Grid
from asr.scoring.wer import score

__all__ = ["CorpusPart", "DecoderComparison"]

log = logging.getLogger("asr")

_HEADS = ("OOV", "perplexity a word", f"oracle of {NBEST}", "dev", "seconds", "weights")


@dataclass(frozen=True)
class CorpusPart:
    """One part of a corpus, with the output of a model.

    Attributes:
        utterances: with their true text.
        texts: their references, in words and, for a model of phones, in phones.
        emissions: the model's log-probabilities.
    """

    utterances: Sequence[Utterance]
    texts: Mapping[OutputUnit, Sequence[str]]
    emissions: Emissions

    @classmethod
    def of(
        cls, path: Path, model: AcousticModel, utterances: Sequence[Utterance], batch_s: float
    ) -> "CorpusPart":
        """Compute the emissions, or read them from a file that has them.

        Args:
            path: of the file of emissions, .safetensors.
            model: on its device.
            utterances: of this part.
            batch_s: seconds of audio in a batch, padding included.

        Raises:
            AsrError: there is no utterance, or one cannot be used.
        """
        if not utterances:
            raise DataError(f"{path.stem}: no utterance. Expected at least one.")
        tokenizer, rules = model.settings.tokenizer, model.settings.text_normalizer
        units: list[OutputUnit] = ["words"] if tokenizer.pieces else ["words", "phones"]
        texts = {unit: reference_texts(utterances, tokenizer, rules, unit) for unit in units}
        return cls(utterances, texts, cached_emissions(path, model, utterances, batch_s))


@dataclass(frozen=True)
class DecoderComparison:
    """Decoders of one model; the result of each is kept in the folder, and reused where nothing has changed.

    Attributes:
        folder: where results, points and pictures go.
        model: the acoustic model.
        dev: to tune on.
        test: to score on.
        search_beam: prefixes kept while tuning.
    """

    folder: Path
    model: AcousticModel
    dev: CorpusPart
    test: CorpusPart
    search_beam: int

    def system(self, name: str, settings: DecoderSettings | None, grid: Grid) -> System:
        """One system's score, with columns for `asr.scoring.system_table.table`.

        Args:
            name: of the system, and of its file.
            settings: of its beam search; None for greedy decoding.
            grid: weights that are tried.

        Raises:
            AsrError: a file cannot be used, or the parts do not fit each other.
        """
        file = self.folder / f"{name}.json"
        resources = DecodingResources.read(settings, self.model) if settings else DecodingResources()
        unit = resources.unit(self.model.settings.tokenizer)
        key = self._key(resources, settings, grid)
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if kept.get("key") == key:
            log.info("%s: done before, %s", name, file)
        else:
            log.info("%s …", name)
            if settings is None:
                texts, seconds = self._decode(GreedyDecoder(self.model.settings.tokenizer))
                columns = {"seconds": f"{seconds:.0f}"}
            else:
                texts, columns = self._tuned(name, settings, resources, grid)
            kept = {"key": key, "texts": texts, "columns": columns}
            file.write_text(json.dumps(kept), encoding="utf-8")
        ids = [utterance.id for utterance in self.test.utterances]
        speakers = [utterance.speaker for utterance in self.test.utterances]
        rules = self.model.settings.text_normalizer
        result = score(self.test.texts[unit], kept["texts"], ids, rules, unit, speakers=speakers)
        log.info("%s: %s", name, result.wer_line())
        return System(name, [result], {head: kept["columns"].get(head, "") for head in _HEADS})

    def _key(self, resources: DecodingResources, settings: DecoderSettings | None, grid: Grid) -> list[str]:
        """What a result depends on, by content: a file that was rewritten under the same name counts."""
        parts: list[Any] = [
            part
            for data in (self.test, self.dev)
            for part in (data.emissions.key, data_digest(data.utterances))
        ]
        parts += [asdict(resources.key), asdict(settings.beam)] if settings else []
        given = settings.given if settings else {}
        return [*map(str, parts), str(given), repr(grid), str(self.search_beam), str(settings is None)]

    def _tuned(
        self, name: str, settings: DecoderSettings, resources: DecodingResources, grid: Grid
    ) -> tuple[list[str], dict[str, str]]:
        test, texts_of = self.test, self.test.texts[resources.unit(self.model.settings.tokenizer)]
        decoder = TwoPassDecoder(self.model.settings.tokenizer, settings.beam, resources)
        tuned = tune(
            self.model, self.dev.utterances, self.dev.emissions, decoder, grid,
            search_beam=self.search_beam,
        )  # fmt: skip
        for warning in tuned.warnings:
            log.warning("%s: %s", name, warning)
        write_points(self.folder / name, tuned, name)
        config = replace(settings.beam, weights=tuned.tuning.weights, priors=tuned.tuning.priors)
        decoder = decoder.with_config(config)
        texts, seconds = self._decode(decoder)
        oracle = None
        if config.width.beam_size >= NBEST:
            best = list(test.emissions.decode(decoder.with_config(replace(config, nbest=NBEST))))
            oracle = oracle_errors(texts_of, best)
        words = max(sum(len(text.split()) for text in texts_of), 1)
        oov, predicted = oov_rate(resources, texts_of), language_model_fit(resources, texts_of)
        return texts, {
            "OOV": "" if oov is None else f"{100 * oov:.2f}%",
            "perplexity a word": f"{word_perplexity(predicted, words):.1f}" if predicted else "",
            f"oracle of {NBEST}": "" if oracle is None else f"{100 * oracle / words:.2f}",
            "dev": f"{100 * tuned.best.words.rate:.2f}",
            "seconds": f"{seconds:.0f}",
            "weights": str(tuned.tuning.weights),
        }

    def _decode(self, decoder: Decoder) -> tuple[list[str], float]:
        began = time.monotonic()
        texts = [found[0].text for found in self.test.emissions.decode(decoder)]
        return texts, time.monotonic() - began
