"""A model and a manifest in, a score out: recognise every utterance and compare it with its transcript."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr.decoding.decoder import DescribedDecoder
from asr.decoding.hypothesis import Hypothesis, OutputUnit, output_unit
from asr.errors import AudioError, first_few
from asr.manifests.left_out import OnError, report_left_out
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.recognition.recognise import Segment, recognise
from asr.scoring.wer import Score, score
from asr.text.normalize import normalize
from asr.text.phones import report_guesses
from asr.text.tokenizer import Tokenizer

__all__ = ["Evaluation", "evaluate", "reference_texts"]

log = logging.getLogger("asr")

_MAX_NAMED = 8  # characters that a message names; further ones are only counted


@dataclass(frozen=True)
class Evaluation:
    """A score with all that was recognised.

    Attributes:
        score: of the utterances that could be used.
        utterances: those, in the same order.
        hypotheses: of each of them, as the model wrote it.
        left_out: why an utterance could not be used, by its id.
    """

    score: Score
    utterances: tuple[Utterance, ...]
    hypotheses: tuple[Hypothesis, ...]
    left_out: Mapping[str, str]

    @classmethod
    def of(
        cls,
        model: AcousticModel,
        utterances: Sequence[Utterance],
        *,
        normalizer: str | None = None,
        batch_s: float = 120.0,
        decoder: DescribedDecoder | None = None,
        on_error: OnError = "stop",
    ) -> "Evaluation":
        """Recognise utterances and score the result: words, or phones where the decoder writes these.

        Args:
            model: on its device.
            utterances: with their transcripts.
            normalizer: text rules for both sides; None for the model's.
            batch_s: seconds of audio in a batch, padding included.
            decoder: from `build_decoder`; None decodes greedily.
            on_error: whether an utterance whose audio cannot be used ends it, or is left out and reported.

        Raises:
            AudioError: an utterance's audio cannot be used, and it is not to be left out, or none can.
            DataError: the units are phones, and a reference cannot be pronounced.
            SettingsError: the normalizer is unknown, or batch_s is not above 0.
        """
        rules = normalizer or model.settings.text_normalizer
        unit = decoder.unit if decoder else output_unit(model.settings.tokenizer)
        references = reference_texts(utterances, model.settings.tokenizer, rules, unit)
        segments = list(map(Segment.of, utterances))
        used: list[tuple[Utterance, str, Hypothesis]] = []
        left_out: dict[str, str] = {}
        results = recognise(model, segments, batch_s, decoder)
        for utterance, reference, result in zip(utterances, references, results, strict=True):
            if not isinstance(result.outcome, AudioError):
                used.append((utterance, reference, result.outcome))
            elif on_error == "skip":
                left_out[utterance.id] = str(result.outcome)
            else:
                raise AudioError(f"utterance {utterance.id}: {result.outcome}")
        report_left_out(left_out, len(utterances), "utterances")
        kept, kept_references, hypotheses = zip(*used, strict=True)
        texts = [hypothesis.text for hypothesis in hypotheses]
        ids, speakers = zip(*((utterance.id, utterance.speaker) for utterance in kept), strict=True)
        return cls(score(kept_references, texts, ids, rules, unit, speakers), kept, hypotheses, left_out)


def evaluate(
    model: AcousticModel, utterances: Sequence[Utterance], decoder: DescribedDecoder | None = None
) -> Score:
    """The score of a model, without what was recognised; see `Evaluation.of`.

    Raises:
        AudioError: an utterance's audio cannot be used. A score of the others would not be comparable.
        DataError: the units are phones, and a reference cannot be pronounced.
    """
    return Evaluation.of(model, utterances, decoder=decoder).score


def reference_texts(
    utterances: Sequence[Utterance], tokenizer: Tokenizer, rules: str, unit: OutputUnit
) -> list[str]:
    """The references of a score: normalised words, or their phones; doubtful ones are logged.

    Raises:
        DataError: the units are phones, and a reference cannot be pronounced.
        SettingsError: the rules are unknown.
    """
    texts = [normalize(utterance.text, rules) for utterance in utterances]
    if unit == "words":
        if tokenizer.pieces:
            _warn_about_alphabet(texts, tokenizer, rules)
        return texts
    report_guesses(tokenizer, texts, "the")
    return [
        tokenizer.decode(tokenizer.encode(text, utterance=utterance.id))
        for text, utterance in zip(texts, utterances, strict=True)
    ]


def _warn_about_alphabet(references: Sequence[str], tokenizer: Tokenizer, rules: str) -> None:
    """Warn where references have characters that no hypothesis can have: their words are always errors."""
    pieces = tokenizer.pieces or ()
    letters = {character for piece in pieces for character in piece.text}
    letters |= {" "} if any(piece.begins_word for piece in pieces) else set()
    writable = letters.union(*(normalize(letter, rules) for letter in letters))
    missing = Counter(character for text in references for character in text if character not in writable)
    if not missing:
        return
    affected = sum(not writable.issuperset(text) for text in references)
    counts = [f"{character!r} x {count}" for character, count in missing.most_common()]
    named = first_few(counts, most=_MAX_NAMED)
    case = any(character.swapcase() in writable for character in missing)
    log.warning(
        "%d characters in %d of %d references are ones that the model cannot write: %s. The words that "
        "contain them count as errors. Correct the transcripts, or choose other rules%s.",
        missing.total(),
        affected,
        len(references),
        named,
        ": --normalizer lower compares without case" if case else f" than --normalizer {rules}",
    )
