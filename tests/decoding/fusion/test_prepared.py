"""Language models, vocabularies and hot words in the beam, against exhaustive search."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.decoding.fusion import sources
from asr.decoding.hypothesis import Hypothesis
from asr.errors import SettingsError
from asr.lm.charrnn import CharRnn, CharRnnModel
from asr.lm.ngram.model import NgramModel
from asr.model.recurrent.initialization import Cell
from asr.model.tuning import Weights
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer
from asr.text.tokenizer import Piece, cut_words
from tests.shapes import charrnn_config

TOKENIZER = CharTokenizer((" ", "a", "b"))
UNLIMITED = BeamConfig(
    beam_size=20000,
    nbest=20000,
    beam_threshold=math.inf,
    token_threshold=math.inf,
    blank_skip=1.0,
    recombine=False,
    threads=1,
    weights=Weights(lm_weight=0.8, word_bonus=0.6, unknown_penalty=-1.5, unknown_letter_penalty=-0.4),
)

Rows = Callable[..., Tensor]
Enumerate = Callable[[Tensor], dict[tuple[int, ...], float]]
Words = tuple[str, ...]

WORD_ARPA = """\\data\\
ngram 1=7
ngram 2=6
ngram 3=3

\\1-grams:
-1.3 <unk> -0.1
-99 <s> -0.4
-0.9 </s>
-0.7 a -0.3
-0.8 ab -0.2
-1.1 b -0.25
-1.4 bba

\\2-grams:
-0.5 <s> a -0.2
-0.3 a b -0.15
-0.6 b a
-0.2 ab </s>
-0.9 b ab -0.1
-0.8 a <unk>

\\3-grams:
-0.2 <s> a b
-0.1 a b ab
-0.7 b ab </s>

\\end\\
"""

CHARACTER_ARPA = """\\data\\
ngram 1=6
ngram 2=6
ngram 3=2

\\1-grams:
-2.0 <unk>
-99 <s> -0.4
-0.9 </s>
-0.7 a -0.3
-0.6 <space> -0.2
-1.1 b -0.25

\\2-grams:
-0.5 <s> a -0.2
-0.3 a b -0.15
-0.6 b a
-0.2 b </s>
-0.9 b <space> -0.1
-1.8 <space> <space>

\\3-grams:
-0.2 <s> a b
-0.1 a b <space>

\\end\\
"""


class Outside:
    """An n-gram model that does not look like one: the beam has to ask it through its three calls."""

    def __init__(self, model: NgramModel) -> None:
        self._model = model
        self.unit = model.unit
        self.words = model.words

    def start(self) -> tuple[int]:
        return (self._model.start(),)

    def score(self, states: Sequence[Any], symbols: Sequence[str]) -> tuple[Any, list[Any]]:
        nats, after = self._model.score([state for (state,) in states], symbols)
        return nats, [(state,) for state in after]

    def finish(self, states: Sequence[Any]) -> Any:
        return self._model.finish([state for (state,) in states])


@dataclass(frozen=True)
class Pieces:
    """A tokenizer of word pieces, `_` for the beginning of a word."""

    names: tuple[str, ...] = ("_", "_a", "_ab", "a", "b")
    units = "bpe"

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.names

    @property
    def vocab_size(self) -> int:
        return len(self.names) + 1

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return (Piece("", False), *(Piece(n.removeprefix("_"), n.startswith("_")) for n in self.names))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.names[n - 1] for n in ids).replace("_", " ").removeprefix(" ")

    def words(self, ids: Sequence[int]) -> list[slice]:
        return cut_words(ids, self.pieces)

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        return ((1,),) if word and set(word) <= {"a", "b"} else ()  # the search walks letters, not these


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NgramModel]:
    folder = tmp_path_factory.mktemp("lm")
    found = {}
    for unit, text in (("word", WORD_ARPA), ("character", CHARACTER_ARPA)):
        path = folder / f"{unit}.arpa"
        path.write_text(text)
        found[unit] = NgramModel.load(path)
        assert found[unit].unit == unit
    return found


@dataclass(frozen=True)
class Expected:
    """What exhaustive search finds."""

    text: str
    tokens: tuple[int, ...]
    score: float
    acoustic: float
    lm: float


def exhaust(
    sums: dict[tuple[int, ...], float],
    readings: Callable[[tuple[int, ...]], Iterable[Words]],
    fused: Callable[[tuple[int, ...], Words], tuple[float, float]],
) -> list[Expected]:
    """Every reading of every token sequence; of each text the best, best first.

    Args:
        sums: token sequences and their log-probabilities.
        readings: the word sequences that tokens can stand for.
        fused: of tokens and words, nats beside the acoustics and the language model's log-probability.
    """
    best: dict[str, Expected] = {}
    for tokens, acoustic in sums.items():
        for words in readings(tokens):
            nats, lm = fused(tokens, words)
            one = Expected(" ".join(words), tokens, acoustic + nats, acoustic, lm)
            if one.text not in best or one.score > best[one.text].score:
                best[one.text] = one
    return sorted(best.values(), key=lambda one: -one.score)


def compare(found: list[Hypothesis], expected: list[Expected], tolerance: float = 1e-9) -> None:
    assert len(found) == len(expected)
    assert [hypothesis.score for hypothesis in found] == sorted([h.score for h in found], reverse=True)
    by_text = {one.text: one for one in expected}
    for hypothesis in found:
        one = by_text.pop(hypothesis.text)
        assert hypothesis.tokens == one.tokens
        assert hypothesis.score == pytest.approx(one.score, abs=tolerance)
        assert hypothesis.acoustic_score == pytest.approx(one.acoustic, abs=tolerance)
        assert hypothesis.lm_score == pytest.approx(one.lm, abs=tolerance)
        assert " ".join(word.text for word in hypothesis.words) == one.text


def decode_one(decoder: BeamDecoder, log_probs: Tensor) -> list[Hypothesis]:
    [found] = decoder.decode(log_probs[None], torch.tensor([len(log_probs)]), 0.04)
    return found


def spelled(tokens: tuple[int, ...], tokenizer: Any = TOKENIZER) -> list[Words]:
    return [tuple(tokenizer.decode(tokens).split())]


def fused_word_scores(
    model: NgramModel, config: BeamConfig, boosts: dict[str, float] | None = None, hot: Sequence[str] = ()
) -> Callable[[tuple[int, ...], Words], tuple[float, float]]:
    """The scores of a sentence, scored by the model at once; hot words are in the vocabulary."""

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        del tokens
        lm = float(model.log_probs(" ".join(words)).sum())
        unknown = [word for word in words if word not in model.ids and word not in hot]
        if unknown and config.unknown_words == "forbid":
            return -math.inf, lm
        nats = config.weights.lm_weight * lm + config.weights.word_bonus * len(words)
        nats += sum(
            config.weights.unknown_penalty + config.weights.unknown_letter_penalty * len(word)
            for word in unknown
        )
        return nats + sum((boosts or {}).get(word, 0.0) for word in words), lm

    return fused


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unknown", ["allow", "forbid"])
@pytest.mark.parametrize("outside", [False, True])
def test_word_ngram_is_exhaustive_search(
    seed: int,
    unknown: str,
    outside: bool,
    models: dict[str, NgramModel],
    enumerated: Enumerate,
    random_rows: Rows,
) -> None:
    """Guards partial words, look-ahead that must be taken back, back-off, unknown words and the end of the
    sentence, compiled and through the three calls."""
    config = replace(UNLIMITED, unknown_words=unknown)
    log_probs = random_rows(seed, steps=6, vocab=4, sharpness=1.0)
    lm = Outside(models["word"]) if outside else models["word"]
    found = decode_one(BeamDecoder(TOKENIZER, config, lm=lm), log_probs)
    expected = exhaust(enumerated(log_probs), spelled, fused_word_scores(models["word"], config))
    compare(found, [one for one in expected if one.score > -math.inf])


@pytest.mark.parametrize("outside", [False, True])
def test_character_ngram_is_exhaustive_search(
    outside: bool, models: dict[str, NgramModel], enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards spaces (doubled ones are characters too) and the end of the sentence."""
    model = models["character"]
    log_probs = random_rows(11, steps=6, vocab=4, sharpness=1.0)

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        lm = float(model.log_probs(TOKENIZER.decode(tokens)).sum())
        return UNLIMITED.weights.lm_weight * lm + UNLIMITED.weights.word_bonus * len(words), lm

    found = decode_one(BeamDecoder(TOKENIZER, UNLIMITED, lm=Outside(model) if outside else model), log_probs)
    compare(found, exhaust(enumerated(log_probs), spelled, fused))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_character_network_is_exhaustive_search(cell: Cell, enumerated: Enumerate, random_rows: Rows) -> None:
    """Guards hidden states that are made when they are needed: each prefix is scored as its text at once."""
    torch.manual_seed(5)
    network = CharRnn((" ", "a", "b"), charrnn_config(cell=cell, width=8, depth=2, embedding=4))
    for weights in network.parameters():
        weights.data.mul_(3)  # the text before matters
    model = CharRnnModel(network)
    log_probs = random_rows(12, steps=6, vocab=4, sharpness=1.0)

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        lm = float(model.log_probs(TOKENIZER.decode(tokens)).sum())
        return UNLIMITED.weights.lm_weight * lm + UNLIMITED.weights.word_bonus * len(words), lm

    found = decode_one(BeamDecoder(TOKENIZER, UNLIMITED, lm=model), log_probs)
    compare(found, exhaust(enumerated(log_probs), spelled, fused), tolerance=1e-4)


@pytest.mark.parametrize("unknown", ["allow", "forbid"])
@pytest.mark.parametrize("outside", [False, True])
def test_word_pieces_are_exhaustive_search(
    unknown: str, outside: bool, models: dict[str, NgramModel], enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards tokens that end one word and begin the next at once, and words cut in more than one way."""
    pieces = Pieces()
    config = replace(UNLIMITED, unknown_words=unknown)
    log_probs = random_rows(12, steps=5, vocab=6, sharpness=1.0)
    lm = Outside(models["word"]) if outside else models["word"]
    found = decode_one(BeamDecoder(pieces, config, lm=lm), log_probs)
    fused = fused_word_scores(models["word"], config)
    expected = exhaust(enumerated(log_probs), lambda tokens: spelled(tokens, pieces), fused)
    compare(found, [one for one in expected if one.score > -math.inf])


@pytest.mark.parametrize("outside", [False, True])
def test_word_pieces_and_characters(
    outside: bool, models: dict[str, NgramModel], enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards pieces of more characters: each is scored, and the space before the first word is not."""
    pieces, model = Pieces(("_a", "_ab", "a", "b")), models["character"]
    log_probs = random_rows(13, steps=5, vocab=5, sharpness=1.0)

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        lm = float(model.log_probs(pieces.decode(tokens)).sum())
        return UNLIMITED.weights.lm_weight * lm + UNLIMITED.weights.word_bonus * len(words), lm

    found = decode_one(BeamDecoder(pieces, UNLIMITED, lm=Outside(model) if outside else model), log_probs)
    compare(found, exhaust(enumerated(log_probs), lambda tokens: spelled(tokens, pieces), fused))


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
    """Guards homophones, more than one pronunciation, words that end where others go on, and words that only
    the
    lexicon knows."""
    tokenizer = PhoneTokenizer(("X", "Y"), PRONOUNCED, fallback="nothing")
    log_probs = random_rows(14, steps=7, vocab=3, sharpness=1.0)
    lm = Outside(models["word"]) if outside else models["word"]
    decoder = BeamDecoder(tokenizer, UNLIMITED, lm=lm, lexicon=PRONOUNCED, hotwords=hot)
    # not for words of the lexicon
    free = UNLIMITED.with_weights(unknown_penalty=0.0, unknown_letter_penalty=0.0)
    expected = exhaust(
        enumerated(log_probs),
        lambda tokens: segmentations(tuple(tokenizer.symbols[n - 1] for n in tokens), PRONOUNCED),
        fused_word_scores(models["word"], free, hot),
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


@pytest.mark.parametrize("unit", [None, "word", "character"])
def test_hot_words_are_exhaustive_search(
    unit: str | None, models: dict[str, NgramModel], enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards boosts that are given in advance.

    They are taken back where the word does not become complete, count once for each word, for a phrase across
    its spaces, and for a phrase that begins within another.
    """
    boosts = {"ab": 1.1, "b a": 2.3, "a b": 0.7, "bb": 0.9}
    log_probs = random_rows(17, steps=7, vocab=4, sharpness=1.0)
    model = models[unit] if unit else None

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        nats, lm = UNLIMITED.weights.word_bonus * len(words), 0.0
        if unit == "word":
            nats, lm = fused_word_scores(models["word"], UNLIMITED, hot=["ab", "b", "a", "bb"])(tokens, words)
        elif unit == "character":
            lm = float(models["character"].log_probs(TOKENIZER.decode(tokens)).sum())
            nats += UNLIMITED.weights.lm_weight * lm
        for phrase, boost in boosts.items():
            parts = tuple(phrase.split())
            nats += boost * sum(words[i : i + len(parts)] == parts for i in range(len(words)))
        return nats, lm

    found = decode_one(BeamDecoder(TOKENIZER, UNLIMITED, lm=model, hotwords=boosts), log_probs)
    compare(found, exhaust(enumerated(log_probs), spelled, fused))


@pytest.mark.parametrize("size", [2, 8, 40])
@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.parametrize("seed", range(3))
def test_three_calls_equal_compiled_at_any_beam(
    size: int,
    unit: str,
    seed: int,
    models: dict[str, NgramModel],
    random_rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards the slower path, room making and pruning included: the same hypotheses with the same scores."""
    monkeypatch.setattr("asr.decoding.beam_search._CAPACITY", 64)
    # the look-ahead takes unigrams where it can; the three calls have none
    monkeypatch.setattr(sources, "_score_words", lambda lm, words, lm_ids: -1.0 - np.arange(len(words)))
    log_probs = random_rows(20 + seed, steps=40, vocab=4, sharpness=1.5)
    # which prefixes recombine depends on the numbers of states, which differ
    config = BeamConfig(beam_size=size, nbest=1 if seed == 0 else size, recombine=seed == 0, threads=1)
    hot = {"ab": 1.0}
    compiled = decode_one(BeamDecoder(TOKENIZER, config, lm=models[unit], hotwords=hot), log_probs)
    outside = decode_one(BeamDecoder(TOKENIZER, config, lm=Outside(models[unit]), hotwords=hot), log_probs)
    assert [h.text for h in outside] == [h.text for h in compiled]
    assert [h.score for h in outside] == pytest.approx([h.score for h in compiled], abs=1e-9)
    assert [h.lm_score for h in outside] == pytest.approx([h.lm_score for h in compiled], abs=1e-9)


def test_states_that_cannot_be_compared(models: dict[str, NgramModel], random_rows: Rows) -> None:
    """Guards models whose states have no hash: equal ones are not found, and nothing else changes."""

    class Listed(Outside):
        def start(self) -> Any:
            return [super().start()]

        def score(self, states: Sequence[Any], symbols: Sequence[str]) -> Any:
            log_probs, after = super().score([state for [state] in states], symbols)
            return log_probs, [[state] for state in after]

        def finish(self, states: Sequence[Any]) -> Any:
            return super().finish([state for [state] in states])

    log_probs = random_rows(31, steps=20, vocab=4, sharpness=1.0)
    config = BeamConfig(beam_size=10, nbest=10, recombine=False)
    found = [
        decode_one(BeamDecoder(TOKENIZER, config, lm=lm), log_probs)
        for lm in (Outside(models["character"]), Listed(models["character"]))
    ]
    assert found[0] == found[1]


def test_a_batch_asks_together(models: dict[str, NgramModel], random_rows: Rows) -> None:
    """Guards whose answer is whose, and that a batch asks no more often than the longest of it alone."""
    asked: list[int] = []

    class Counted(Outside):
        def score(self, states: Sequence[Any], symbols: Sequence[str]) -> Any:
            asked.append(len(states))
            return super().score(states, symbols)

    steps = [30, 0, 12, 21]
    rows = [
        random_rows(40 + number, steps=count, vocab=4, sharpness=1.0) for number, count in enumerate(steps)
    ]
    decoder = BeamDecoder(TOKENIZER, BeamConfig(beam_size=8, nbest=8), lm=Counted(models["character"]))
    alone, calls = [], []
    for row in rows:
        alone.append(decode_one(decoder, row))
        calls.append(len(asked))
        asked.clear()
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    assert decoder.decode(batch, torch.tensor(steps), 0.04) == alone
    assert len(asked) == max(calls) < sum(calls)


def test_few_waiting_prefixes_at_a_time(
    models: dict[str, NgramModel], random_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a step with more new prefixes than are asked at once: none may be lost."""
    log_probs = random_rows(30, steps=12, vocab=4, sharpness=0.5)
    decoder = BeamDecoder(TOKENIZER, BeamConfig(beam_size=30, nbest=30), lm=Outside(models["word"]))
    expected = decode_one(decoder, log_probs)
    monkeypatch.setattr("asr.decoding.beam_search._PENDING", 3)
    assert decode_one(decoder, log_probs) == expected


def test_language_model_decides_between_equals(models: dict[str, NgramModel]) -> None:
    """Guards the direction of lm-weight: of two words that sound the same the more probable one wins."""
    probs = torch.full((3, 4), 0.01, dtype=torch.float64)
    probs[0, 2], probs[1, 1], probs[2, 2], probs[2, 3] = 0.97, 0.97, 0.49, 0.49  # "a a" or "a b"
    [best] = decode_one(
        BeamDecoder(TOKENIZER, BeamConfig().with_weights(lm_weight=1.0), lm=models["word"]), probs.log()
    )
    assert best.text == "a b"


def test_all_end_within_a_word(models: dict[str, NgramModel]) -> None:
    """Guards an utterance that breaks off where unknown words are forbidden: it still has a text."""
    lexicon = Lexicon({"ab": (("a", "b"),)}, "the test's lexicon")
    probs = torch.full((3, 4), 1e-9, dtype=torch.float64)
    probs[:, 2] = 1.0 - 3e-9
    config = BeamConfig(unknown_words="forbid", beam_threshold=5.0)
    [best] = decode_one(BeamDecoder(TOKENIZER, config, lexicon=lexicon), probs.log())
    assert best.text == "a"


def test_weights_can_be_changed(models: dict[str, NgramModel], random_rows: Rows) -> None:
    """Guards tuning: another weight on the shared vocabulary equals a decoder that was made with it."""
    log_probs = random_rows(31, steps=20, vocab=4)
    config = BeamConfig(nbest=5).with_weights(lm_weight=0.3)
    decoder = BeamDecoder(TOKENIZER, BeamConfig().with_weights(lm_weight=2.0), lm=models["word"])
    expected = decode_one(BeamDecoder(TOKENIZER, config, lm=models["word"]), log_probs)
    assert decode_one(decoder.with_config(config), log_probs) == expected
    with pytest.raises(SettingsError, match="unknown-words cannot be changed"):
        decoder.with_config(BeamConfig(unknown_words="forbid"))


def test_parts_that_do_not_fit(models: dict[str, NgramModel], tmp_path: Path) -> None:
    """Guards each combination that could only decode nonsense against being accepted."""
    phones = PhoneTokenizer(("X", "Y"), PRONOUNCED, fallback="nothing")
    upper = CharTokenizer((" ", "A", "B"))
    with pytest.raises(SettingsError, match=r"the language model is in lower case, the .* in upper case"):
        BeamDecoder(upper, lm=models["word"])
    with pytest.raises(SettingsError, match="characters cannot be used with an acoustic model of phones"):
        BeamDecoder(phones, lm=models["character"])
    with pytest.raises(SettingsError, match="unknown-words is forbid, but there is no vocabulary"):
        BeamDecoder(TOKENIZER, BeamConfig(unknown_words="forbid"))
    with pytest.raises(SettingsError, match="none of the 1 words of the vocabulary can be spelled"):
        BeamDecoder(TOKENIZER, lexicon=Lexicon({"x": ()}, "empty"))
    shouted = Lexicon({"AB": (("a", "b"),), "A": (("a",),)}, "shouted.txt")
    with pytest.raises(
        SettingsError, match=r"shouted.txt is in upper case, the language model in lower case"
    ):
        BeamDecoder(TOKENIZER, lm=models["word"], lexicon=shouted)
    with pytest.raises(SettingsError, match=r"hotwords: 'ac' has 'c', which the model cannot write"):
        BeamDecoder(TOKENIZER, hotwords={"ac": 1.0})
    with pytest.raises(SettingsError, match=r"hotwords: 'AB' is not in lower case"):
        BeamDecoder(TOKENIZER, hotwords={"AB": 1.0})
    with pytest.raises(SettingsError, match=r"hotwords: 'bb' is not in the vocabulary of 4 words"):
        BeamDecoder(TOKENIZER, BeamConfig(unknown_words="forbid"), lm=models["word"], hotwords={"bb": 1.0})
    with pytest.raises(SettingsError, match="A lexicon was expected beside hot words"):
        BeamDecoder(phones, hotwords={"a": 1.0})
    with pytest.raises(SettingsError, match="'a b' is more than one word"):
        BeamDecoder(phones, lexicon=PRONOUNCED, hotwords={"a b": 1.0})


def test_words_that_cannot_be_spelled_are_counted(
    models: dict[str, NgramModel], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a vocabulary that shrinks in silence."""
    with caplog.at_level("INFO", logger="asr"):
        BeamDecoder(CharTokenizer((" ", "a")), lexicon=Lexicon({"a": (("a",),), "ab": ()}, "two"))
    assert "1 of 2 words of the vocabulary cannot be spelled" in caplog.text
    assert "'ab'" in caplog.text


def test_arrays_of_a_mapped_file(models: dict[str, NgramModel], tmp_path: Path) -> None:
    """Guards arrays that are mapped from a file against another class or flag: one compilation serves all."""
    models["word"].save(tmp_path / "words.bin")
    mapped = NgramModel.load(tmp_path / "words.bin")
    decoder = BeamDecoder(TOKENIZER, lm=mapped)
    assert all(type(array) is np.ndarray and array.flags.writeable for array in decoder._sources.ngrams)


def test_a_weight_of_0_forgets_impossible_words(models: dict[str, NgramModel], random_rows: Rows) -> None:
    """Guards 0 times the logarithm of 0: the text would be no number, and fall out."""
    log_probs = random_rows(3, steps=6, vocab=4)

    class Never(Outside):
        def score(self, states: Sequence[Any], symbols: Sequence[str]) -> tuple[Any, list[Any]]:
            nats, after = super().score(states, symbols)
            return np.full_like(nats, -np.inf), after

    config = replace(UNLIMITED, nbest=1).with_weights(lm_weight=0.0)
    [best] = decode_one(BeamDecoder(TOKENIZER, config, lm=Never(models["word"])), log_probs)
    [expected] = decode_one(BeamDecoder(TOKENIZER, config, lm=models["word"]), log_probs)
    assert (best.text, best.score) == (expected.text, pytest.approx(expected.score))


def test_rare_symbols_have_a_floor() -> None:
    """Guards priors of symbols that a dev set hardly has: divided by 1e-9, "b" is all that is written."""
    log_probs = torch.tensor([[0.05, 0.05, 0.89995, 5e-5]] * 3, dtype=torch.float64).log()
    log_probs = log_probs - log_probs.logsumexp(1, keepdim=True)
    priors = np.array([0.7, 0.1, 0.2, 1e-9])
    [best] = decode_one(
        BeamDecoder(TOKENIZER, BeamConfig().with_weights(prior_weight=0.6), priors=priors), log_probs
    )
    assert best.text == "a"
