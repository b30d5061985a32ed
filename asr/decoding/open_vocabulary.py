"""Open vocabulary: words that the search cannot write are spelled by their sound, after the search.

A word outside the vocabulary comes out of the search as one or a few known words that sound a little like it.
So each run of words of low confidence is decoded once more, as any phones at all, and the joint n-gram of
letter-to-sound, turned round, spells what was found. An unknown word takes the place of the run where its
score is higher:

    log P(audio | phones) + 0.65 log P(letters, phones) + lm_weight log P(<unk>) + unknown_penalty

against log P(audio | their phones) + lm_weight log P(words) of the run.

Source: the score is that of Bisani, Ney, "Open vocabulary speech recognition with flat hybrid models",
    Interspeech 2005, where the search holds the graphones; a second pass leaves the search as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, tensor
from torch.nn.utils.rnn import pad_sequence

from asr.decoding.alignment import align_tokens
from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.decoding.fusion.tables import build_bias
from asr.decoding.hypothesis import Hypothesis, Word
from asr.decoding.interface import Decoder, DecoderStream
from asr.decoding.rescoring import text_log_probs
from asr.decoding.resources import DecodingResources
from asr.errors import SettingsError
from asr.lm.ngram.trie import UNK
from asr.text.phones import MIN_WORDS, PhoneTokenizer
from asr.text.pronunciation.joint_ngram import learn_joint_ngram
from asr.text.pronunciation.sound_to_spelling import SoundToSpelling, Spelled
from asr.text.tokenizer import Tokenizer

__all__ = ["OpenVocabularyDecoder", "open_vocabulary"]

# The first two were chosen on the English model's dev set, see docs/decoding.md.
_SPELLING_WEIGHT = 0.65
_CERTAIN = 0.75  # a word of at least this confidence stays
_MAX_WORDS = 4  # that one unknown word takes the place of
_MIN_PHONES = 3  # of an unknown word: shorter words are in any vocabulary
_BEAM_SIZE = 32
_NBEST = 16  # sequences of phones that are spelled
_SPELLINGS = 8  # of each
_CACHED = 10_000  # sequences of phones whose spellings are kept


@dataclass(frozen=True)
class _Run:
    """Doubtful words of a hypothesis, next to each other.

    Attributes:
        words: where they are among its words.
        tokens: where their tokens are.
        begin: the first step after the word before them.
        end: the first step of the word after them.
        acoustic: log-probability of their tokens there, as the search scales it, nats.
        rest: the rest of their score, less that of an unknown word in their place, nats.
        lm: the part of it that is the language model's, unweighted.
    """

    words: slice
    tokens: slice
    begin: int
    end: int
    acoustic: float
    rest: float = 0.0
    lm: float = 0.0


@dataclass(frozen=True)
class _Unknown:
    """An unknown word that may take the place of a run.

    Attributes:
        run: the words that it replaces.
        spelling: its letters.
        gain: its score less theirs, nats.
        phones: the hypothesis that it spells, of the run's steps.
    """

    run: _Run
    spelling: str
    gain: float
    phones: Hypothesis


def open_vocabulary(
    decoder: Decoder, tokenizer: Tokenizer, config: BeamConfig, resources: DecodingResources
) -> "OpenVocabularyDecoder":
    """A decoder with a second pass that spells words outside the vocabulary.

    Args:
        decoder: of words.
        tokenizer: the model's.
        config: of the decoder.
        resources: of the decoder.

    Raises:
        SettingsError: the model's tokens are text, there is no vocabulary, unknown words are forbidden, or
            there are too few words to learn spelling from.
    """
    if not isinstance(tokenizer, PhoneTokenizer):
        raise SettingsError(
            f"--open-vocabulary is for models of phones. This one writes {tokenizer.units}, which spell any "
            f"word. Leave it out; --unknown-penalty makes words outside the vocabulary more or less likely."
        )
    if resources.vocabulary is None or config.unknown_words == "forbid":
        reason = "there is no vocabulary" if resources.vocabulary is None else "unknown words are forbidden"
        raise SettingsError(
            f"--open-vocabulary is given, but {reason}. Expected a language model of words or --lexicon, and "
            f"--beam.unknown-words allow."
        )
    pairs = resources.lexicon.pairs() if resources.lexicon else []
    if len(pairs) < MIN_WORDS:  # or a mere list of words
        pairs = tokenizer.source.pairs() if tokenizer.fallback != "nothing" else []
    if not pairs:
        raise SettingsError(
            f"--open-vocabulary: the lexicon has too few pronunciations to learn spelling from. At least "
            f"{MIN_WORDS} were expected. Use a larger lexicon."
        )
    spelling = SoundToSpelling(learn_joint_ngram(pairs))
    return OpenVocabularyDecoder(decoder, tokenizer, config, resources, spelling)


class OpenVocabularyDecoder:
    """A decoder of phones whose best hypothesis may have words outside the vocabulary.

    Args:
        decoder: of words.
        tokenizer: the model's.
        config: of the decoder.
        resources: of the decoder: the words that it knows, and hot words, which stay even if they are
            doubtful.
        spelling: spells the model's phones.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: PhoneTokenizer,
        config: BeamConfig,
        resources: DecodingResources,
        spelling: SoundToSpelling,
    ) -> None:
        free = BeamConfig(
            beam_size=_BEAM_SIZE, nbest=_NBEST, weights=config.weights, priors=config.priors,
            threads=config.threads,
        )  # fmt: skip
        lm = resources.lm
        self._decoder, self._weights = decoder, config.weights
        self._vocabulary = vocabulary = resources.vocabulary or frozenset[str]()
        self._hotwords = frozenset(word for phrase in resources.hotwords for word in phrase.split())
        # Where words come from the search, their scores hold this language model's.
        self._lm = lm if lm and lm.unit == "word" and not resources.key.rescore else None
        self._phones = BeamDecoder(tokenizer, free)
        self._bias = build_bias(tokenizer.vocab_size, free)
        self._lm_words = frozenset(self._lm.words if self._lm else ()) or vocabulary

        @lru_cache(_CACHED)
        def spellings(phones: str) -> list[Spelled]:
            return spelling.search(phones.split(), _SPELLINGS)

        self._spellings = spellings

    def stream(self, step_s: float) -> DecoderStream:
        """Raises a SettingsError: what fits no known word is found in whole utterances."""
        raise SettingsError("--open-vocabulary needs whole utterances. Leave it out in a stream.")

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None = None
    ) -> Sequence[Sequence[Hypothesis]]:
        """See `Decoder`; the best hypothesis of each utterance may have unknown words."""
        found = self._decoder.decode(log_probs, step_lengths, step_s, encoded)
        rows = zip(found, log_probs.detach().cpu(), step_lengths.tolist(), strict=True)
        return [[self._open(best[0], row[:steps], step_s), *best[1:]] for best, row, steps in rows]

    def _open(self, hypothesis: Hypothesis, log_probs: Tensor, step_s: float) -> Hypothesis:
        """The hypothesis with unknown words in place of the runs that they fit better.

        Args:
            hypothesis: of the search.
            log_probs: (steps, vocab) natural logs.
            step_s: seconds per step.
        """
        adjusted = self._weights.acoustic_scale * log_probs.double().numpy() + self._bias
        runs = self._promising(hypothesis, list(self._runs(hypothesis, adjusted, step_s)), adjusted)
        if not runs:
            return hypothesis
        rows = pad_sequence([log_probs[run.begin : run.end] for run in runs], batch_first=True)
        lengths = tensor([run.end - run.begin for run in runs])
        nbests = self._phones.decode(rows, lengths, step_s)
        spelled = (self._spell(run, nbest) for run, nbest in zip(runs, nbests, strict=True))
        chosen: list[_Unknown] = []
        for unknown in sorted(filter(None, spelled), key=lambda unknown: -unknown.gain):
            if all(_apart(unknown.run.words, other.run.words) for other in chosen):
                chosen.append(unknown)
        # From the end, so that indices stay.
        for unknown in sorted(chosen, key=lambda unknown: -unknown.run.words.start):
            hypothesis = _replace(hypothesis, unknown, step_s)
        return hypothesis

    def _runs(self, hypothesis: Hypothesis, adjusted: NDArray[np.float64], step_s: float) -> Iterator[_Run]:
        """The runs of doubtful words of a hypothesis.

        Args:
            hypothesis: of the search.
            adjusted: (steps, vocab) float64 log-probabilities as the search scales them, nats.
            step_s: seconds per step.
        """
        words = hypothesis.words
        begins = [round(word.start_s / step_s) for word in words]
        ends = [round(word.end_s / step_s) for word in words]
        first = [*np.searchsorted(hypothesis.steps, begins).tolist(), len(hypothesis.tokens)]
        doubtful = [word.confidence < _CERTAIN and word.text not in self._hotwords for word in words]
        for start in range(len(words)):
            for stop in range(start + 1, min(start + _MAX_WORDS, len(words)) + 1):
                if not doubtful[stop - 1]:
                    break
                begin = ends[start - 1] if start else 0
                end = begins[stop] if stop < len(words) else len(adjusted)
                tokens = slice(first[start], first[stop])
                ids = np.array(hypothesis.tokens[tokens], np.int32)
                _, acoustic = align_tokens(adjusted[begin:end], ids)
                yield _Run(slice(start, stop), tokens, begin, end, acoustic)

    def _promising(
        self, hypothesis: Hypothesis, runs: list[_Run], adjusted: NDArray[np.float64]
    ) -> list[_Run]:
        """The runs that some phones could beat, whatever they are, with the rest of their scores."""
        # All paths together: an upper bound of the log-probability of any phones.
        ceilings = [np.logaddexp.reduce(adjusted[run.begin : run.end], 1).sum() for run in runs]
        penalty, bonus = self._weights.unknown_penalty, self._weights.word_bonus
        names = [word.text for word in hypothesis.words]
        if self._lm is not None and runs:
            others = [[*names[: run.words.start], UNK, *names[run.words.stop :]] for run in runs]
            texts = [hypothesis.text, *map(" ".join, others)]
            before, *after = text_log_probs(self._lm, [texts])[0].tolist()
            runs = [replace(run, lm=before - log_prob) for run, log_prob in zip(runs, after, strict=True)]
        scored = []
        for run in runs:
            replaced = names[run.words]
            paid = penalty * sum(word not in self._lm_words for word in replaced)
            nats = self._weights.lm_weight * run.lm + bonus * (len(replaced) - 1) + paid - penalty
            scored.append(replace(run, rest=nats))
        return [
            run for run, ceiling in zip(scored, ceilings, strict=True) if ceiling > run.acoustic + run.rest
        ]

    def _spell(self, run: _Run, nbest: Sequence[Hypothesis]) -> _Unknown | None:
        """The best unknown word for a run, if there is one that fits better than the run's words.

        Args:
            run: with all parts of its score.
            nbest: phones of its steps.
        """
        best: _Unknown | None = None
        for phones in nbest:
            # Letters only lower it.
            limit = phones.acoustic_score - run.acoustic - run.rest
            if len(phones.tokens) < _MIN_PHONES or limit <= (best.gain if best else 0.0):
                continue
            for spelled in self._spellings(phones.text):
                gain = limit + _SPELLING_WEIGHT * spelled.log_prob
                if gain > (best.gain if best else 0.0) and spelled.letters not in self._vocabulary:
                    best = _Unknown(run, spelled.letters, gain, phones)
        return best


def _apart(first: slice, second: slice) -> bool:
    return bool(first.stop <= second.start or second.stop <= first.start)


def _replace(hypothesis: Hypothesis, unknown: _Unknown, step_s: float) -> Hypothesis:
    """The hypothesis with an unknown word in place of a run."""
    run, phones = unknown.run, unknown.phones
    offset_s = run.begin * step_s
    word = Word(
        text=unknown.spelling,
        start_s=phones.words[0].start_s + offset_s,
        end_s=phones.words[-1].end_s + offset_s,
        confidence=sum(phone.confidence for phone in phones.words) / len(phones.words),
        unknown=True,
    )
    words = (*hypothesis.words[: run.words.start], word, *hypothesis.words[run.words.stop :])
    steps = tuple(step + run.begin for step in phones.steps)
    return replace(
        hypothesis,
        text=" ".join(word.text for word in words),
        words=words,
        tokens=(
            *hypothesis.tokens[: run.tokens.start],
            *phones.tokens,
            *hypothesis.tokens[run.tokens.stop :],
        ),
        steps=(*hypothesis.steps[: run.tokens.start], *steps, *hypothesis.steps[run.tokens.stop :]),
        score=hypothesis.score + unknown.gain,
        acoustic_score=hypothesis.acoustic_score + phones.acoustic_score - run.acoustic,
        lm_log_prob=hypothesis.lm_log_prob - run.lm,
    )
