"""Language models in the beam, against exhaustive search, and parts that do not fit each other."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.errors import SettingsError
from asr.lm.charrnn import CharRnn, CharRnnModel
from asr.lm.ngram.model import NgramModel
from asr.model.recurrent.factory import Cell
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer
from tests.decoding.fusion.exhaustive import (
    TOKENIZER,
    UNLIMITED,
    Enumerate,
    Outside,
    Pieces,
    Rows,
    Words,
    compare,
    decode_one,
    exhaust,
    fused_word_scores,
    spelled,
)
from tests.shapes import charrnn_config


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


def fused_character_scores(
    model: NgramModel | CharRnnModel,
) -> Callable[[tuple[int, ...], Words], tuple[float, float]]:
    """What a model of characters adds to the score of a text, and its log-probability of it."""

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        lm = float(model.log_probs(TOKENIZER.decode(tokens)).sum())
        return UNLIMITED.weights.lm_weight * lm + UNLIMITED.weights.word_bonus * len(words), lm

    return fused


@pytest.mark.parametrize("outside", [False, True])
def test_character_ngram_is_exhaustive_search(
    outside: bool, models: dict[str, NgramModel], enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards spaces (doubled ones are characters too) and the end of the sentence."""
    model = models["character"]
    log_probs = random_rows(11, steps=6, vocab=4, sharpness=1.0)

    found = decode_one(BeamDecoder(TOKENIZER, UNLIMITED, lm=Outside(model) if outside else model), log_probs)
    compare(found, exhaust(enumerated(log_probs), spelled, fused_character_scores(model)))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_character_network_is_exhaustive_search(cell: Cell, enumerated: Enumerate, random_rows: Rows) -> None:
    """Guards hidden states that are made when they are needed: each prefix is scored as its text at once."""
    torch.manual_seed(5)
    network = CharRnn((" ", "a", "b"), charrnn_config(cell=cell, width=8, depth=2, embedding=4))
    for weights in network.parameters():
        weights.data.mul_(3)  # the text before matters
    model = CharRnnModel(network)
    log_probs = random_rows(12, steps=6, vocab=4, sharpness=1.0)

    found = decode_one(BeamDecoder(TOKENIZER, UNLIMITED, lm=model), log_probs)
    compare(found, exhaust(enumerated(log_probs), spelled, fused_character_scores(model)), tolerance=1e-4)


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


def test_parts_that_do_not_fit(models: dict[str, NgramModel], tmp_path: Path) -> None:
    """Guards each combination that could only decode nonsense against being accepted."""
    pronounced = Lexicon({"a": (("X",),), "b": (("Y",),)}, "the test's lexicon")
    phones = PhoneTokenizer(("X", "Y"), pronounced, fallback="nothing")
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
    with pytest.raises(SettingsError, match="A lexicon was expected with hot words"):
        BeamDecoder(phones, hotwords={"a": 1.0})
    with pytest.raises(SettingsError, match="'a b' is more than one word"):
        BeamDecoder(phones, lexicon=pronounced, hotwords={"a b": 1.0})


def test_arrays_of_a_mapped_file(models: dict[str, NgramModel], tmp_path: Path) -> None:
    """Guards arrays that are mapped from a file against another class or flag: one compilation serves all."""
    models["word"].save(tmp_path / "words.bin")
    mapped = NgramModel.load(tmp_path / "words.bin")
    decoder = BeamDecoder(TOKENIZER, lm=mapped)
    assert all(
        type(array) is np.ndarray and array.flags.writeable for array in decoder._setup.prepared.ngrams
    )
