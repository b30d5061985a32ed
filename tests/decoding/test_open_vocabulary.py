"""Open vocabulary: a word that the vocabulary lacks is spelled, and nothing else changes."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.commands.evaluate import _lines_by_vocabulary
from asr.decoding import open_vocabulary as module
from asr.decoding.config import BeamConfig
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.open_vocabulary import open_vocabulary
from asr.decoding.rescoring import TwoPassDecoder
from asr.decoding.resources import DecodingResources
from asr.errors import SettingsError
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel
from asr.scoring.wer import score
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer
from asr.text.tokenizer import Tokenizer

Run = Callable[..., tuple[int, str, str]]

SOUNDS = {"b": "B", "d": "D", "m": "M", "a": "AA", "i": "IY"}
WORDS = tuple(
    "".join(letters) for letters in itertools.product("bdm", "ai", "bdm", "ai") if "".join(letters) != "mimi"
)
LEXICON = Lexicon({word: (tuple(SOUNDS[letter] for letter in word),) for word in WORDS}, "the test's lexicon")
TOKENIZER = PhoneTokenizer(tuple(sorted(SOUNDS.values())), LEXICON, fallback="nothing")
CONFIG = BeamConfig(threads=1).with_weights(unknown_penalty=0.0, lm_weight=0.5, word_bonus=0.5)
STEP_S = 0.04


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> NgramModel:
    folder = tmp_path_factory.mktemp("lm")
    text = folder / "text.txt"
    text.write_text("\n".join(f"{one} {other}" for one, other in itertools.product(WORDS, WORDS)) + "\n")
    return build([text], NgramConfig(order=2), folder / "lm.bin")


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_WORDS", 20)


def emissions(text: str, certainty: float = 0.999) -> torch.Tensor:
    """(steps, vocab) log-probabilities: each letter's phone once, a blank after it; the rest is noise."""
    path = [number for letter in text for number in (TOKENIZER.symbols.index(SOUNDS[letter]) + 1, 0)]
    probs = torch.full((len(path), TOKENIZER.vocab_size), (1 - certainty) / (TOKENIZER.vocab_size - 1))
    probs[torch.arange(len(path)), torch.tensor(path)] = certainty
    return probs.log()


def decode(rows: torch.Tensor, config: BeamConfig, lm: NgramModel | None, **parts: Any) -> list[Hypothesis]:
    resources = DecodingResources(lm=lm, lexicon=LEXICON, **parts)
    first = TwoPassDecoder(TOKENIZER, config, resources)
    decoder = open_vocabulary(first, TOKENIZER, config, resources)
    return list(decoder.decode(rows[None], torch.tensor([len(rows)]), STEP_S)[0])


@pytest.mark.parametrize("with_lm", [True, False])
def test_an_unknown_word_is_spelled(with_lm: bool, lm: NgramModel) -> None:
    """Guards the whole way: the word, its mark, its times and tokens; the words around it stay."""
    rows = emissions("bada" + "mimi" + "dami")
    (best,) = decode(rows, CONFIG, lm if with_lm else None)
    assert best.text == "bada mimi dami"
    assert [word.unknown for word in best.words] == [False, True, False]
    assert TOKENIZER.decode(best.tokens) == "B AA D AA M IY M IY D AA M IY"
    assert list(best.steps) == list(range(0, 24, 2))
    middle = best.words[1]
    assert (middle.start_s, middle.end_s) == pytest.approx((8 * STEP_S, 15 * STEP_S))
    assert middle.confidence == pytest.approx(0.999, abs=1e-3)
    assert [word.start_s for word in best.words] == sorted(word.start_s for word in best.words)


def test_its_score_is_that_of_the_formula(lm: NgramModel) -> None:
    """Guards the score against the sum that the module's docstring has, of the whole text."""
    from asr.decoding.alignment import align_tokens
    from asr.decoding.rescoring import text_log_probs
    from asr.text.pronunciation.joint_ngram import learn_joint_ngram
    from asr.text.pronunciation.sound_to_spelling import SoundToSpelling

    rows = emissions("bada" + "mimi" + "dami")
    (best,) = decode(rows, CONFIG, lm)
    _, acoustic = align_tokens(rows.double().numpy(), torch.tensor(best.tokens, dtype=torch.int32).numpy())
    language = float(text_log_probs(lm, [["bada <unk> dami"]])[0][0])
    (spelled,) = SoundToSpelling(learn_joint_ngram(LEXICON.pairs())).search(("M", "IY", "M", "IY"))
    assert best.lm_log_prob == pytest.approx(language)
    assert best.acoustic_score == pytest.approx(acoustic, abs=0.02)  # of parts that are decoded alone
    expected = acoustic + 0.65 * spelled.log_prob + 0.5 * language + 3 * 0.5
    assert best.score == pytest.approx(expected, abs=0.02)


def test_what_stays(lm: NgramModel) -> None:
    """Guards known words: all of them where they fit, hot words, and every word where the penalty is high."""
    (known,) = decode(emissions("bada" + "mibi" + "dami"), CONFIG, lm)
    assert known.text == "bada mibi dami"
    assert not any(word.unknown for word in known.words)
    rows = emissions("bada" + "mimi" + "dami")
    dear = CONFIG.with_weights(unknown_penalty=-30.0)
    (without,) = decode(rows, dear, lm)
    assert not any(word.unknown for word in without.words)
    hot = {word.text: 0.1 for word in without.words}
    (kept,) = decode(rows, CONFIG, lm, hotwords=hot)
    assert kept.text == without.text


def test_no_known_word_is_unknown(lm: NgramModel) -> None:
    """Guards the mark: where all is doubtful and unknown words are cheap, none is in the vocabulary."""
    cheap = CONFIG.with_weights(unknown_penalty=20.0)
    (best,) = decode(emissions("bada" + "mibi" + "dami", certainty=0.6), cheap, lm)
    spelled = [word.text for word in best.words if word.unknown]
    assert spelled
    assert not LEXICON.entries.keys() & set(spelled)


def test_the_best_does_not_depend_on_nbest(lm: NgramModel) -> None:
    """Guards --nbest: only the best text has unknown words, and it is the same for any number."""
    from dataclasses import replace

    rows = emissions("bada" + "mimi" + "dami")
    found = decode(rows, replace(CONFIG, nbest=4), lm)
    assert found[0] == decode(rows, CONFIG, lm)[0]
    assert len(found) == 4
    assert not any(word.unknown for one in found[1:] for word in one.words)


@pytest.mark.parametrize(
    ("tokenizer", "parts", "config", "message"),
    [
        (
            CharTokenizer(("a",)),
            {"lexicon": LEXICON},
            CONFIG,
            "is for models of phones. This one writes char",
        ),
        (TOKENIZER, {}, CONFIG, "there is no vocabulary. Expected a language model of words or --lexicon"),
        (TOKENIZER, {"lexicon": LEXICON}, BeamConfig(unknown_words="forbid"), "unknown words are forbidden"),
        (TOKENIZER, {"lexicon": Lexicon({"a": ()}, "list")}, CONFIG, "too few pronunciations to learn"),
    ],
)
def test_settings_that_cannot_be(
    tokenizer: Tokenizer, parts: dict[str, Any], config: BeamConfig, message: str
) -> None:
    """Guards one clear line in place of a decoder that never finds an unknown word."""

    class Nothing:
        def decode(self, *_: Any) -> Sequence[Sequence[Hypothesis]]:
            raise NotImplementedError

    with pytest.raises(SettingsError, match=message):
        open_vocabulary(Nothing(), tokenizer, config, DecodingResources(**parts))


def test_commands(tones: Any, run: Run, tmp_path: Path) -> None:
    """Guards the option on the way to the decoder, and `asr tune`, which would tune a search without it."""
    status, _, err = run("transcribe", *tones.files, "--model", tones.model, "--open-vocabulary")
    assert status == 2
    assert "--open-vocabulary is for models of phones" in err
    status, _, err = run("tune", tmp_path / "none.jsonl", "--model", tones.model, "--open-vocabulary")
    assert status == 2
    assert "--open-vocabulary is not tuned" in err


def test_evaluate_tells_the_two_kinds_apart() -> None:
    """Guards the report: errors of utterances with words outside the vocabulary, and of the others."""
    found = score(["a b", "a c", "a"], ["a a", "a a", "a"], ["1", "2", "3"])
    assert _lines_by_vocabulary(found, {"a", "b"}) == [
        "1 utterances with words outside the vocabulary: %WER 50.00 [ 1 / 2, 0 ins, 0 del, 1 sub ]",
        "2 utterances without words outside the vocabulary: %WER 33.33 [ 1 / 3, 0 ins, 0 del, 1 sub ]",
    ]
    assert len(_lines_by_vocabulary(found, {"a", "b", "c"})) == 1
