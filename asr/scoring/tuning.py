"""Tuning of a decoder: the weights with the fewest errors on a dev set, and reference points for them."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hypothesis import Hypothesis, output_unit
from asr.decoding.rescoring import RESCORED, TwoPassDecoder
from asr.decoding.resources import DecodingResources, data_digest
from asr.errors import DataError, check_number
from asr.files import json_line, write_text
from asr.lm.perplexity import PerplexityResult, sentence_perplexity
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.model.decoding_weights import WEIGHT_NAMES, DecodingWeights, Tuning, TuningKey
from asr.recognition.emissions import Emissions
from asr.scoring.evaluation import reference_texts
from asr.scoring.objective import ErrorCounter, NBestLists, oracle_errors
from asr.scoring.weight_search import Grid, Point, draw_surface, edges, search_weights
from asr.scoring.wer import Score, counted_unit, score, split_units
from asr.text.tokenizer import BLANK

__all__ = ["NBEST", "Tuned", "language_model_fit", "oov_rate", "tune", "word_perplexity", "write_points"]

log = logging.getLogger("asr")

NBEST = RESCORED  # hypotheses among which the oracle chooses


@dataclass(frozen=True)
class Tuned:
    """The result of tuning.

    Attributes:
        tuning: the best weights, as a model stores them.
        points: everything that was tried, the best first.
        greedy: score of greedy decoding on the same utterances; None where it writes phones and not words.
        plain: of a beam search without language model and with neutral weights; None likewise.
        best: of the best weights, with the full beam, decoded as `asr evaluate` does.
        oracle: errors of the best among the 100 best texts of each utterance; of fewer with a narrower beam.
        fit: how well the language model predicts the references; None without one.
        oov: fraction of the references' words outside the vocabulary; None without a vocabulary.
        warnings: doubts about the result.
    """

    tuning: Tuning
    points: list[Point]
    greedy: Score | None
    plain: Score | None
    best: Score
    oracle: int
    fit: PerplexityResult | None
    oov: float | None
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report, line by line."""
        words = max(self.best.words.reference_length, 1)
        oracle = f"oracle of the {min(NBEST, self.tuning.beam_size)} best"
        lines = [
            *([f"greedy                      {self.greedy.wer_line()}"] if self.greedy else []),
            *([f"beam, no language model     {self.plain.wer_line()}"] if self.plain else []),
            f"best weights                {self.best.wer_line()}",
            f"{oracle:<28}{100 * self.oracle / words:.2f}% [ {self.oracle} / {words} ]",
        ]
        if self.fit is not None:
            lines.append(f"language model on the text  {_describe_fit(self.fit, words)}")
        if self.oov is not None:
            lines.append(f"words outside vocabulary    {100 * self.oov:.2f}%")
        return [*lines, f"weights                     {self.tuning.weights}"]


def tune(
    model: AcousticModel,
    utterances: Sequence[Utterance],
    emissions: Emissions,
    decoder: TwoPassDecoder,
    grid: Grid,
    *,
    given: Mapping[str, float] | None = None,
    search_beam: int = 24,
    manifest: str = "",
) -> Tuned:
    """Tune the weights of one system.

    Args:
        model: for its alphabet and text rules.
        utterances: with their true text.
        emissions: of these utterances.
        decoder: with the settings of the final check; its weights and priors do not matter.
        grid: the weights that are tried.
        given: weights that are fixed.
        search_beam: prefixes kept in the grid and the lines.
        manifest: name of the file of the utterances, to be stored.

    Raises:
        AsrError: there is no utterance, the model outputs nothing but blanks, or the parts do not fit each
            other.
    """
    tokenizer, rules = model.settings.tokenizer, model.settings.text_normalizer
    resources, beam = decoder.resources, decoder.config
    if not utterances:
        raise DataError(f"{manifest or 'the dev set'}: no utterance to tune on. Expected at least one.")
    check_number("--search-beam", search_beam, least=1)
    grid = _grid_for(resources, grid, given or {})
    if all(bool((rows.argmax(1) == BLANK).all()) for rows in emissions.log_probs):
        raise DataError(
            f"{manifest or 'the dev set'}: the model writes no text, because the blank is its best token at "
            f"every step of all {len(utterances)} utterances. Weights do not help that. Train it longer."
        )
    unit = resources.unit(tokenizer)
    references = reference_texts(utterances, tokenizer, rules, unit)
    priors = tuple(emissions.mean_posteriors().tolist())
    full = replace(beam, nbest=NBEST, weights=DecodingWeights(lm_weight=0.0), priors=priors)
    decoder = decoder.with_config(full)
    points = _search(decoder, grid, emissions, references, search_beam)
    best = points[0].weights
    log.info("checking the best weights with a beam of %d: %s", full.width.beam_size, best)
    ids = [utterance.id for utterance in utterances]

    def scored(found: Sequence[Sequence[Hypothesis]]) -> Score:
        return score(references, [hypotheses[0].text for hypotheses in found], ids, rules, unit)

    found = list(emissions.decode(decoder.with_config(replace(full, weights=best))))
    result = scored(found)
    greedy_score = plain_score = None
    if output_unit(tokenizer) == unit:
        greedy_score = scored(list(emissions.decode(GreedyDecoder(tokenizer))))
    without_lm = replace(resources, lm=None, rescorer=None, attention=None, key=TuningKey())
    if without_lm.unit(tokenizer) == unit:
        plain = TwoPassDecoder(tokenizer, replace(full, nbest=1, unknown_words="allow"), without_lm)
        plain_score = scored(list(emissions.decode(plain)))
    warnings = edges(best, grid)
    if resources.lm is not None and plain_score and result.words.errors >= plain_score.words.errors:
        warnings.append(
            f"the language model does not help: {result.words.errors} errors with it and "
            f"{plain_score.words.errors} without. Decode without it, use one of text like these transcripts, "
            "or widen the grid."
        )
    tuning = Tuning(
        weights=best, key=resources.key, priors=priors, manifest=manifest,
        data=data_digest(utterances), utterances=len(utterances), errors=result.words.errors,
        words=_count_units(references), beam_size=full.width.beam_size,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Tuned(
        tuning=tuning,
        points=points,
        greedy=greedy_score,
        plain=plain_score,
        best=result,
        oracle=oracle_errors(references, found),
        fit=language_model_fit(resources, references) if unit == "words" else None,
        oov=oov_rate(resources, references),
        warnings=tuple(warnings),
    )


def write_points(out: Path, tuned: Tuned, name: str) -> None:
    """Write everything that was tried, in the order of its errors, and the picture of it.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    words = tuned.tuning.words
    rows = [
        {**asdict(point.weights), "errors": point.errors, "words": words, "phase": point.phase}
        for point in tuned.points
    ]
    write_text(out / "points.jsonl", map(json_line, rows))
    draw_surface(tuned.points, words, out / "surface.png", name)


def _grid_for(resources: DecodingResources, grid: Grid, given: Mapping[str, float]) -> Grid:
    """The grid in which weights that are given keep their values, and those without effect neutral ones."""
    defaults = asdict(DecodingWeights(lm_weight=0.0))
    neutral = {name: defaults[name] for name in WEIGHT_NAMES if not resources.uses(name)}
    return grid.holding({**neutral, **given})


def _search(
    decoder: TwoPassDecoder, grid: Grid, emissions: Emissions, references: Sequence[str], search_beam: int
) -> list[Point]:
    """Everything that was tried, the best first: the weights of the search, then those that only rescore.

    Args:
        decoder: with the settings of the final check.
        grid: the weights that are tried.
        emissions: of the dev set.
        references: its texts.
        search_beam: prefixes kept in the grid and the lines.
    """
    resources, full = decoder.resources, decoder.config
    narrow = replace(full, beam_size=min(search_beam, full.width.beam_size), nbest=1)
    first_pass = decoder.without_rescorers()
    fast = ErrorCounter(first_pass.with_config(narrow), emissions, references)
    check = None
    # A long list takes long to rescore.
    if narrow.width.beam_size < full.width.beam_size and not resources.key.rescore:
        check = ErrorCounter(first_pass.with_config(replace(full, nbest=1)), emissions, references)
    last = [name for name in ("rescore_weight", "attention_weight") if resources.uses(name)]
    first = {name: grid.values(name)[0] for name in last}
    points = search_weights(fast, grid.holding(first), _count_units(references), check)
    return _tune_second_pass(points, decoder, grid, emissions, references, last) if last else points


def _tune_second_pass(
    points: list[Point],
    decoder: TwoPassDecoder,
    grid: Grid,
    emissions: Emissions,
    references: Sequence[str],
    names: Sequence[str],
) -> list[Point]:
    """The points, after further ones: the best with other weights of what only rescores.

    The search is done once and its texts are rescored once; each weight then is a choice among them.

    Args:
        points: of the search, the best first.
        decoder: with all that rescores.
        grid: the weights that are tried.
        emissions: of the dev set.
        references: its texts.
        names: of the weights.
    """
    best = points[0].weights
    lists = NBestLists.of(
        list(emissions.decode(decoder.with_config(replace(decoder.config, nbest=NBEST, weights=best)))),
        references,
        best,
        names,
    )
    others = {name: getattr(best, name) for name in WEIGHT_NAMES if name not in names}
    tried = search_weights(lists.errors_with, grid.holding(others), _count_units(references))
    return [*tried, *points]


def _count_units(references: Sequence[str]) -> int:
    """Words of the references, or characters where these are what is scored."""
    unit = counted_unit(references)
    return sum(len(split_units(text, unit)) for text in references if text)


def language_model_fit(resources: DecodingResources, references: Sequence[str]) -> PerplexityResult | None:
    """How well the language model predicts the references; None without one."""
    lm, texts = resources.lm, [text for text in references if text]
    if lm is None or not texts:
        return None
    return sum((sentence_perplexity(lm, text) for text in texts), start=PerplexityResult(0, 0, 0, 0.0, 0.0))


def word_perplexity(result: PerplexityResult, words: int) -> float:
    """Perplexity a word and sentence end, whatever the language model's unit is."""
    return math.exp(-result.log_prob / max(words + result.sentences, 1))


def _describe_fit(result: PerplexityResult, words: int) -> str:
    """Perplexity and unknown symbols, in one line."""
    unknown = f"{100 * result.unknown / max(result.symbols, 1):.2f}% of its symbols unknown"
    return f"perplexity {word_perplexity(result, words):.1f} a word, {unknown}"


def oov_rate(resources: DecodingResources, references: Sequence[str]) -> float | None:
    """Fraction of the references' words outside the vocabulary; None without a vocabulary."""
    vocabulary = resources.vocabulary
    if vocabulary is None:
        return None
    words = [word for text in references for word in text.split()]
    return sum(word not in vocabulary for word in words) / max(len(words), 1)
