"""Vocabularies in the beam: lexicons, phones, and words that cannot be spelled; against exhaustive search."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.lm.ngram.model import NgramModel
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer
from tests.decoding.fusion.exhaustive import (
    TOKENIZER,
    UNLIMITED,
    Enumerate,
    Expected,
    Outside,
    Rows,
    Words,
    compare,
    decode_one,
    exhaust,
    fused_word_scores,
    spelled,
)

PRONOUNCED = Lexicon(
    {
        "a": (("X",), ("Y",)),  # two pronunciations
        "ab": (("X", "Y"),),
        "b": (("Y",), ("Y", "X")),  # sounds like a
        "bba": (("X", "Y"),),  # sounds like ab
        "c": (("Y", "Y"),),  # the language model does not know it
    },
    "the test's lexicon",
)


def segmentations(names: tuple[str, ...], lexicon: Lexicon) -> list[Words]:
    """All word sequences that sound like this."""
    if not names:
        return [()]
    return [
        (word, *rest)
        for word, spellings in lexicon.entries.items()
        for one in spellings
        if names[: len(one)] == one
        for rest in segmentations(names[len(one) :], lexicon)
    ]


@pytest.mark.parametrize("hot", [{}, {"ab": 1.2}])
@pytest.mark.parametrize("outside", [False, True])
def test_phones_with_lexicon_are_exhaustive_search(
    hot: dict[str, float],
    outside: bool,
    models: dict[str, NgramModel],
    enumerated: Enumerate,
    random_rows: Rows,
) -> None:
    """Guards homophones, more than one pronunciation, words that end where others continue, and words that
    only the lexicon knows: each costs the penalty for unknown words, but not for its letters."""
    tokenizer = PhoneTokenizer(("X", "Y"), PRONOUNCED, fallback="nothing")
    log_probs = random_rows(14, steps=7, vocab=3, sharpness=1.0)
    lm = Outside(models["word"]) if outside else models["word"]
    decoder = BeamDecoder(tokenizer, UNLIMITED, lm=lm, lexicon=PRONOUNCED, hotwords=hot)
    free = UNLIMITED.with_weights(unknown_letter_penalty=0.0)
    expected = exhaust(
        enumerated(log_probs),
        lambda tokens: segmentations(tuple(tokenizer.symbols[n - 1] for n in tokens), PRONOUNCED),
        fused_word_scores(models["word"], free, hot),
    )
    compare(decode_one(decoder, log_probs), expected)


@pytest.mark.parametrize("with_lm", [True, False])
def test_probabilities_of_pronunciations(
    with_lm: bool, models: dict[str, NgramModel], enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards the weights of pronunciations: each costs its log-probability below the word's best one, times
    the language model's weight where there is one, as exhaustive search finds."""
    probs = {word: [1.0, 0.05][: len(spellings)] for word, spellings in PRONOUNCED.entries.items()}
    log_probs_of = {word: tuple(map(math.log, one)) for word, one in probs.items()}
    lexicon = Lexicon(PRONOUNCED.entries, "with probabilities", log_probs_of)
    tokenizer = PhoneTokenizer(("X", "Y"), PRONOUNCED, fallback="nothing")
    log_probs = random_rows(17, steps=6, vocab=3, sharpness=1.0)
    free = UNLIMITED.with_weights(unknown_letter_penalty=0.0)
    decoder = BeamDecoder(tokenizer, free, lm=models["word"] if with_lm else None, lexicon=lexicon)
    scale = free.weights.lm_weight if with_lm else 1.0
    fuse = fused_word_scores(models["word"], free, {})

    def cost(names: tuple[str, ...], words: Words) -> float:
        if not words:
            return -math.inf if names else 0.0
        rows = zip(lexicon.entries[words[0]], log_probs_of[words[0]], strict=True)
        costs = [nats + cost(names[len(one) :], words[1:]) for one, nats in rows if names[: len(one)] == one]
        return max(costs, default=-math.inf)

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        nats, lm = fuse(tokens, words) if with_lm else (free.weights.word_bonus * len(words), 0.0)
        return nats + scale * cost(tuple(tokenizer.symbols[n - 1] for n in tokens), words), lm

    expected = exhaust(
        enumerated(log_probs),
        lambda tokens: segmentations(tuple(tokenizer.symbols[n - 1] for n in tokens), PRONOUNCED),
        fused,
    )
    compare(decode_one(decoder, log_probs), expected)


@pytest.mark.parametrize("unknown", ["allow", "forbid"])
def test_characters_with_lexicon_are_exhaustive_search(
    unknown: str, models: dict[str, NgramModel], enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards words whose name is not their spelling, and words that share a spelling."""
    lexicon = Lexicon({"ab": (("a", "b"),), "b": (("a", "b"), ("b",)), "c": (("a",),)}, "the test's lexicon")
    config = replace(UNLIMITED, unknown_words=unknown)
    log_probs = random_rows(15, steps=6, vocab=4, sharpness=1.0)
    model = models["word"]

    def readings(tokens: tuple[int, ...]) -> Iterable[Words]:
        choices = []
        for word in TOKENIZER.decode(tokens).split():
            names = [name for name, spellings in lexicon.entries.items() if tuple(word) in spellings]
            choices.append(names or [f"?{word}"])
        return itertools.product(*choices)

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        del tokens
        lm = float(model.log_probs(" ".join(words)).sum())
        unknown = [word for word in words if word.startswith("?")]
        if unknown and config.unknown_words == "forbid":
            return -math.inf, lm
        nats = config.weights.word_bonus * len(words)
        nats += config.weights.unknown_penalty * words.count("c")  # the language model does not know it
        nats += sum(
            config.weights.unknown_penalty + config.weights.unknown_letter_penalty * (len(word) - 1)
            for word in unknown
        )
        return config.weights.lm_weight * lm + nats, lm

    best = [one for one in exhaust(enumerated(log_probs), readings, fused) if one.score > -math.inf]
    texts: dict[str, Expected] = {}
    for one in best:  # an unknown word is written as its letters are
        text = one.text.replace("?", "")
        texts.setdefault(text, replace(one, text=text))
    found = decode_one(BeamDecoder(TOKENIZER, config, lm=model, lexicon=lexicon), log_probs)
    compare(found, list(texts.values()))


def test_lexicon_without_language_model(enumerated: Enumerate, random_rows: Rows) -> None:
    """Guards the vocabulary alone: nothing else is written when unknown words are forbidden."""
    lexicon = Lexicon({"ab": (("a", "b"),), "ba": (("b", "a"),)}, "the test's lexicon")
    config = replace(UNLIMITED, unknown_words="forbid").with_weights(word_bonus=0.0)
    log_probs = random_rows(16, steps=6, vocab=4)
    expected = [
        one
        for one in exhaust(enumerated(log_probs), spelled, lambda tokens, words: (0.0, 0.0))
        if set(one.text.split()) <= {"ab", "ba"}
    ]
    compare(decode_one(BeamDecoder(TOKENIZER, config, lexicon=lexicon), log_probs), expected)


@pytest.mark.parametrize("lm", ["word", None])
@pytest.mark.parametrize(
    ("tokenizer", "path"),
    [
        (TOKENIZER, (2, 3, 1, 2, 2, 2)),
        (PhoneTokenizer(("X", "Y"), PRONOUNCED, fallback="nothing"), (1, 2, 2, 1)),
    ],
    ids=["letters", "phones"],
)
def test_all_end_within_a_word(
    tokenizer: CharTokenizer | PhoneTokenizer,
    path: tuple[int, ...],
    lm: str | None,
    models: dict[str, NgramModel],
) -> None:
    """Guards an utterance that breaks off where unknown words are forbidden: its text are the words before,
    not `<unk>` or a part of a word that is none."""
    spellings = {"ab": (("a", "b"),)} if isinstance(tokenizer, CharTokenizer) else {"ab": (("X", "Y"),)}
    probs = torch.full((len(path), tokenizer.vocab_size), 1e-9, dtype=torch.float64)
    probs[range(len(path)), list(path)] = 1.0 - (tokenizer.vocab_size - 1) * 1e-9
    decoder = BeamDecoder(
        tokenizer,
        BeamConfig(unknown_words="forbid", beam_threshold=5.0),
        lm=models["word"] if lm else None,
        lexicon=Lexicon(spellings, "the test's lexicon"),
    )
    [best] = decode_one(decoder, probs.log())
    assert best.text == "ab"
    assert [word.text for word in best.words] == ["ab"]
    assert best.words[0].confidence > 0.9
    stream = decoder.stream(0.04)
    stream.accept(probs.log())
    assert stream.finish() == [best]


def test_words_that_cannot_be_spelled_are_counted(
    models: dict[str, NgramModel], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a vocabulary that shrinks in silence."""
    with caplog.at_level("INFO", logger="asr"):
        BeamDecoder(CharTokenizer((" ", "a")), lexicon=Lexicon({"a": (("a",),), "ab": ()}, "two"))
    assert "1 of 2 words of the vocabulary cannot be spelled" in caplog.text
    assert "'ab'" in caplog.text


def test_the_penalty_of_words_that_the_language_model_lacks(models: dict[str, NgramModel]) -> None:
    """Guards a lexicon with many words that the language model lacks: each would be as likely as all unknown
    words together, and the text would be full of them. A hot word is expected, and costs nothing."""
    tokenizer = PhoneTokenizer(("X", "Y"), PRONOUNCED, fallback="nothing")
    probs = torch.full((3, 3), 1e-3, dtype=torch.float64)
    probs[0, 2] = probs[1, 0] = probs[2, 2] = 0.998  # "Y Y": "c", or twice "a" or "b"

    def best(penalty: float, **more: Any) -> str:
        config = BeamConfig().with_weights(lm_weight=0.5, word_bonus=-2.0, unknown_penalty=penalty)
        decoder = BeamDecoder(tokenizer, config, lexicon=PRONOUNCED, **more)
        return decode_one(decoder, probs.log())[0].text

    assert best(0.0, lm=models["word"]) == "c"
    assert best(-5.0, lm=models["word"]) == "a b"
    assert best(-5.0, lm=models["word"], hotwords={"c": 0.1}) == "c"
    assert best(-5.0) == best(0.0)  # without a language model every word of the lexicon is known


@pytest.mark.parametrize("named", [False, True])
def test_characters_without_a_space(models: dict[str, NgramModel], named: bool) -> None:
    """Guards an alphabet without a space, whose words end where the search has completed them: they were
    taken for one word, and decoding ended in a traceback."""
    tokenizer = CharTokenizer(("a", "b"))
    lexicon = Lexicon({"one": (("a", "b"),), "two": (("b", "a"),)}, "two words") if named else None
    probs = torch.full((6, 3), 1e-6, dtype=torch.float64)
    for step, token in enumerate((1, 2, 0, 2, 0, 1)):  # "a b b a"
        probs[step, token] = 1 - 2e-6
    lm = None if named else models["word"]
    decoder = BeamDecoder(tokenizer, BeamConfig(nbest=2), lm=lm, lexicon=lexicon)
    best, *others = decode_one(decoder, probs.log())
    names = [word.text for word in best.words]
    assert names == (["one", "two"] if named else ["a", "bba"])
    assert best.text.split() == names
    assert best.words[1].start_s == (0.12 if named else 0.04)
    assert all(0 < word.confidence <= 1 for word in best.words)
    stream = decoder.stream(0.04)
    partial = [stream.accept(probs.log()[step : step + 2]) for step in (0, 2, 4)]
    assert stream.finish() == [best, *others]
    assert names[: len(partial[-1].stable.split())] == partial[-1].stable.split()
