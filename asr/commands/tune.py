"""`asr tune`: the decoding weights with which a model and a language model make the fewest errors."""

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from asr.commands.lm import Fit
from asr.corpora.manifest import Utterance, read_manifest
from asr.decoding.decoder import DecoderSettings, Knowledge, Search, data_digest, greedy, weighted
from asr.decoding.emissions import Emissions, compute_emissions
from asr.decoding.hypothesis import Hypothesis
from asr.device import choose_device
from asr.errors import DataError, SettingsError
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model, store_tuning
from asr.model.shipped import find_model
from asr.model.tuning import Tuning, Weights
from asr.scoring.evaluation import reference_texts
from asr.scoring.weight_search import Grid, Point, draw_surface, edges, search_weights
from asr.scoring.wer import Score, count_errors, score

__all__ = [
    "NBEST", "TuneSettings", "Tuned", "describe_fit", "fit", "oov_rate", "oracle_errors", "run", "tune",
    "word_perplexity", "write_points",
]  # fmt: skip

log = logging.getLogger("asr")

NBEST = 100  # hypotheses among which the oracle chooses


@dataclass(frozen=True)
class TuneSettings:
    """Find decoding weights on a dev set and store them with the model; one that is given keeps its value.

    Emissions are computed once; each point is a beam search over the whole manifest. A grid over LM weight
    and word bonus, then the other weights one by one, with a small beam; then the best few, and smaller steps
    of all weights around the best of them, with the beam that will be used. Last, where a second language
    model rescores, its weight, among the texts that the search finds with the others.
    """

    # JSONL of utterances that neither training nor a later score uses, with their true text
    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    # a .safetensors file, which gets the weights, or a name such as english: a copy of it in DIR gets them
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")]
    # folder for surface.png and points.jsonl
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: MODEL.LM.tuning beside the model)"),
    ] = None
    search_beam: int = 24  # prefixes kept in the grid and the lines; --beam.beam-size is for what follows
    batch_s: float = 120.0  # seconds of audio in a batch, padding included; bounds the memory that is needed
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    grid: Grid = field(default_factory=Grid)
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


@dataclass(frozen=True)
class Tuned:
    """What a search for weights has found.

    Attributes:
        tuning: the best weights, as a model stores them.
        points: everything that was tried, the best first.
        greedy: score of greedy decoding on the same utterances; None where it writes phones and not words.
        plain: of a beam search without language model and with neutral weights; None likewise.
        best: of the best weights, with the full beam, decoded as `asr evaluate` does.
        oracle: errors of the best among the 100 best texts of each utterance; of fewer with a narrower beam.
        fit: how well the language model predicts the references; None without one.
        oov: share of the references' words that the search does not know; None where it knows all.
        warnings: what is doubtful about the result.
    """

    tuning: Tuning
    points: list[Point]
    greedy: Score | None
    plain: Score | None
    best: Score
    oracle: int
    fit: Fit | None
    oov: float | None
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a person."""
        words = max(self.best.words.reference_length, 1)
        oracle = f"oracle of the {min(NBEST, self.tuning.beam_size)} best"
        lines = [
            *([f"greedy                      {self.greedy.wer_line()}"] if self.greedy else []),
            *([f"beam, no language model     {self.plain.wer_line()}"] if self.plain else []),
            f"best weights                {self.best.wer_line()}",
            f"{oracle:<28}{100 * self.oracle / words:.2f}% [ {self.oracle} / {words} ]",
        ]
        if self.fit is not None:
            lines.append(f"language model on the text  {describe_fit(self.fit, words)}")
        if self.oov is not None:
            lines.append(f"words outside vocabulary    {100 * self.oov:.2f}%")
        return [*lines, f"weights                     {self.tuning}"]


def run(settings: TuneSettings) -> str:
    """Tune as the command line says; the text is for the user.

    Raises:
        AsrError: a setting, the manifest, the model or an utterance's audio cannot be used.
    """
    if settings.decoding.decoder == "greedy":
        raise SettingsError("--decoder greedy has no weights to tune. Leave it out.")
    utterances = read_manifest(settings.manifest)
    files = find_model(settings.model)
    model = load_model(files.path, choose_device(settings.device))
    decoding = settings.decoding.with_defaults_of(files)
    known = Knowledge.read(decoding, model)
    out = settings.out or files.beside(f"{_kind(decoding)}.tuning")
    out.mkdir(parents=True, exist_ok=True)  # now, not after an hour of decoding
    search = Search(model.settings.tokenizer, decoding.beam, known)  # contradictions first, likewise
    emissions = compute_emissions(model, utterances, settings.batch_s)
    tuned = tune(
        model, utterances, emissions, search, settings.grid,
        given=decoding.given, search_beam=settings.search_beam, manifest=str(settings.manifest),
    )  # fmt: skip
    for warning in tuned.warnings:
        log.warning("%s", warning)
    write_points(out, tuned, known.name)
    stored = files.path
    if files.name:  # the package's own files stay as they are
        stored = out / f"{files.name}.safetensors"
        shutil.copyfile(files.path, stored)
    store_tuning(stored, tuned.tuning)
    return "\n".join(
        [
            *tuned.lines(),
            f"Stored in {stored}; surface: {out / 'surface.png'}, {out / 'points.jsonl'}",
        ]
    )


def tune(
    model: AcousticModel,
    utterances: Sequence[Utterance],
    emissions: Emissions,
    search: Search,
    grid: Grid,
    *,
    given: Mapping[str, float] | None = None,
    search_beam: int = 24,
    manifest: str = "",
) -> Tuned:
    """Search the weights of one system.

    Args:
        model: for its alphabet and text rules.
        utterances: with their true text.
        emissions: of these utterances.
        search: with the settings of the last check; its weights and priors do not matter.
        grid: what is tried.
        given: weights that are not searched.
        search_beam: prefixes kept in the grid and the lines.
        manifest: where the utterances come from, to be stored.

    Raises:
        AsrError: there is no utterance, or the parts do not fit each other.
    """
    tokenizer, rules = model.settings.tokenizer, model.settings.normalizer
    known, beam = search.known, search.config
    if not utterances:
        raise DataError(f"{manifest or 'the dev set'}: no utterance to tune on. Expected at least one.")
    if search_beam < 1:
        raise SettingsError(f"search-beam is {search_beam}. Expected at least 1.")
    idle = [item.name for item in fields(Weights) if not known.weighs(item.name)]
    neutral = {**{name: getattr(Weights(), name) for name in idle}, "lm_weight": 0.0}
    grid = grid.holding({**{name: neutral[name] for name in idle}, **(given or {})})
    unit = known.unit(tokenizer)
    references = reference_texts(utterances, tokenizer, rules, unit)
    priors = emissions.mean_posteriors()
    full = weighted(replace(beam, nbest=NBEST), Weights(lm_weight=0.0))
    search = search.with_config(full, priors.tolist())
    narrow = replace(full, beam_size=min(search_beam, beam.beam_size), nbest=1)
    words = sum(len(text.split()) for text in references)
    first = search.without_rescorer()
    objective = _Errors(first.with_config(narrow), emissions, references)
    check = None
    if narrow.beam_size < full.beam_size and not known.key.rescore:  # a long list takes long to rescore
        check = _Errors(first.with_config(replace(full, nbest=1)), emissions, references)
    held = grid.values("rescore_weight")[:1] if known.rescorer else ()
    points = search_weights(
        objective, replace(grid, rescore_weights=held or grid.rescore_weights), words, check
    )
    if known.rescorer:
        points = _rescored(points, search, grid, emissions, references)
    best = points[0].weights
    log.info("checking the best weights with a beam of %d: %s", full.beam_size, best)
    ids = [utterance.id for utterance in utterances]

    def scored(found: Sequence[Sequence[Hypothesis]]) -> Score:
        return score(references, [one[0].text for one in found], ids, rules, unit)

    found = list(emissions.decode(search.with_config(weighted(full, best))))
    result = scored(found)
    warnings = edges(best, grid)
    wordless = replace(known, lm=None, rescorer=None, key=Tuning())
    without = by_path = None
    if wordless.unit(tokenizer) == unit:
        plain = Search(tokenizer, replace(full, nbest=1, unknown_words="allow"), wordless)
        without = scored(list(emissions.decode(plain)))
    if Knowledge().unit(tokenizer) == unit:
        by_path = scored(list(emissions.decode(greedy(tokenizer))))
    if known.lm is not None and without and result.words.errors >= without.words.errors:
        warnings.append(
            f"the language model does not help: {result.words.errors} errors with it and "
            f"{without.words.errors} without. Decode without it, use one of text like these transcripts, or "
            f"widen the grid."
        )
    tuning = replace(
        known.key, **asdict(best), priors=tuple(priors.tolist()), manifest=manifest,
        data=data_digest(utterances), utterances=len(utterances), errors=result.words.errors,
        words=words, beam_size=full.beam_size,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Tuned(
        tuning=tuning,
        points=points,
        greedy=by_path,
        plain=without,
        best=result,
        oracle=oracle_errors(references, found),
        fit=fit(known, references) if unit == "words" else None,
        oov=oov_rate(known, references),
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
    (out / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    draw_surface(tuned.points, words, out / "surface.png", name)


def oracle_errors(references: Sequence[str], found: Sequence[Sequence[Hypothesis]]) -> int:
    """Errors of the best hypothesis of each utterance, as if somebody who knows the truth chose."""
    pairs = [(said, one.text) for said, several in zip(references, found, strict=True) for one in several]
    counts = iter(count_errors(*map(list, zip(*pairs, strict=True))))
    return sum(min(next(counts) for _ in several) for several in found)


def fit(known: Knowledge, references: Sequence[str]) -> Fit | None:
    """How well the language model predicts texts; None without one."""
    lm, texts = known.lm, [text for text in references if text]
    if lm is None or not texts:
        return None
    symbols = unknown = 0
    log_prob = unknown_log_prob = 0.0
    for text in texts:
        ids, log_probs = lm.encode(text), lm.log_probs(text)
        symbols, unknown = symbols + len(ids), unknown + int((ids == 0).sum())
        log_prob += float(log_probs.sum())
        unknown_log_prob += float(log_probs[:-1][ids == 0].sum())
    return Fit(len(texts), symbols, unknown, log_prob, unknown_log_prob)


def word_perplexity(result: Fit, words: int) -> float:
    """Perplexity a word and sentence end, whatever the language model's unit is."""
    return math.exp(-result.log_prob / max(words + result.sentences, 1))


def _kind(decoding: DecoderSettings) -> str:
    """A name for what is tuned: what has weights of its own in the model has a folder of its own."""
    parts = [decoding.lm.stem if decoding.lm else "beam"]
    parts += ["rescore"] if decoding.rescore else []
    parts += [decoding.rescore_lm.stem, "rescores"] if decoding.rescore_lm else []
    parts += ["hotwords"] if decoding.hotwords else []
    parts += [decoding.lexicon.stem] if decoding.lexicon else []
    parts += ["forbid"] if decoding.beam.unknown_words == "forbid" else []
    return ".".join(parts)


def describe_fit(result: Fit, words: int) -> str:
    """Perplexity and unknown symbols, in one line."""
    unknown = f"{100 * result.unknown / max(result.symbols, 1):.2f}% of its symbols unknown"
    return f"perplexity {word_perplexity(result, words):.1f} a word, {unknown}"


def oov_rate(known: Knowledge, references: Sequence[str]) -> float | None:
    """Share of the references' words outside the search's vocabulary; None where it has none."""
    if known.lexicon is not None:
        vocabulary = known.lexicon.entries.keys()
    elif known.lm is not None and known.lm.unit == "word":
        vocabulary = dict.fromkeys(known.lm.words).keys()
    else:
        return None
    words = [word for text in references for word in text.split()]
    return sum(word not in vocabulary for word in words) / max(len(words), 1)


def _rescored(
    points: list[Point], search: Search, grid: Grid, emissions: Emissions, references: Sequence[str]
) -> list[Point]:
    """The points, and before them those of the second language model's weight beside the best of them.

    The search is done once; its texts are rescored once; then each weight is a choice among them.
    """
    best = points[0].weights
    lists = _Lists.of(
        list(emissions.decode(search.with_config(weighted(replace(search.config, nbest=NBEST), best)))),
        references,
        best,
    )
    others = {
        item.name: getattr(best, item.name) for item in fields(Weights) if item.name != "rescore_weight"
    }
    words = sum(len(text.split()) for text in references)
    return [*search_weights(lists.errors_with, grid.holding(others), words), *points]


class _Errors:
    """Errors of a point: a decode of everything, or, where the language model only rescores, a choice."""

    def __init__(self, search: Search, emissions: Emissions, references: Sequence[str]) -> None:
        self._search, self._emissions, self._references = search, emissions, references
        self._lists: dict[Weights, _Lists] = {}

    def __call__(self, weights: Weights) -> int:
        if self._search.known.key.rescore:
            return self._chosen(weights)
        search = self._search.with_config(weighted(self._search.config, weights))
        texts = [found[0].text for found in self._emissions.decode(search)]
        return sum(count_errors(self._references, texts))

    def _chosen(self, weights: Weights) -> int:
        acoustic = replace(weights, lm_weight=0.0, word_bonus=0.0)
        if acoustic not in self._lists:
            narrow = self._search.config
            config = replace(weighted(narrow, acoustic), nbest=narrow.beam_size)
            found = list(self._emissions.decode(self._search.with_config(config)))
            self._lists[acoustic] = _Lists.of(found, self._references, config.weights)
        return self._lists[acoustic].errors_with(weights)


@dataclass(frozen=True)
class _Lists:
    """The best texts of each utterance as numbers, all (utterances, n); where there is no text, -inf.

    Attributes:
        score: of the search, without what weights can still change: what a rescorer adds.
        lm: log-probability of the language model that rescores.
        words: of the text.
        errors: of the text.
        second: whether that is a second one, so that `score` holds the first with its weights.
    """

    score: NDArray[np.float64]
    lm: NDArray[np.float64]
    words: NDArray[np.float64]
    errors: NDArray[np.int64]
    second: bool

    @classmethod
    def of(
        cls, found: Sequence[Sequence[Hypothesis]], references: Sequence[str], weights: Weights
    ) -> "_Lists":
        """The lists of a search with these weights, rescored with them."""
        shape = len(found), max(map(len, found))
        scores, lm = np.full(shape, -np.inf), np.zeros(shape)
        words, errors = np.zeros(shape), np.zeros(shape, np.int64)
        second = any(one.rescore_lm_score for hypotheses in found for one in hypotheses)
        for row, (hypotheses, reference) in enumerate(zip(found, references, strict=True)):
            here = np.s_[row, : len(hypotheses)]
            lm[here] = [one.rescore_lm_score if second else one.lm_score for one in hypotheses]
            words[here] = [len(one.text.split()) for one in hypotheses]
            added = weights.rescore_weight * lm[here] if second else 0.0
            scores[here] = np.array([one.score for one in hypotheses]) - added
            errors[here] = count_errors([reference] * len(hypotheses), [one.text for one in hypotheses])
        return cls(scores, lm, words, errors, second)

    def errors_with(self, weights: Weights) -> int:
        """Errors of the best texts with other weights of the rescorer."""
        if self.second:
            total = self.score + weights.rescore_weight * self.lm
        else:
            total = self.score + weights.lm_weight * self.lm + weights.word_bonus * self.words
        return int(np.take_along_axis(self.errors, total.argmax(1)[:, None], 1).sum())
