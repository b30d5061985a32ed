import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asr.batching.examples import Examples, TextConfig, learn_tokenizer, make_examples
from asr.errors import DataError, SettingsError
from asr.frontend.features import FeatureConfig
from asr.manifests.arrow import ArrowManifest, write_arrow
from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance
from asr.model.loss.ctc import required_steps, required_steps_of_all
from asr.text.characters import CharTokenizer
from asr.text.token_lists import TokenLists
from asr.text.tokenizer import Units

TOKENIZER = CharTokenizer.from_texts(["abc "])


def utterance(name: str, text: str, seconds: float) -> Utterance:
    return Utterance(id=name, audio_filepath=Path("x.wav"), duration=seconds, text=text)


def make(
    *utterances: Utterance, speeds: tuple[float, ...] = (1.0,), kind: str = "training", **config: Any
) -> Examples:
    return make_examples(
        utterances, TOKENIZER, TextConfig(**config), FeatureConfig(), subsampling=4, speeds=speeds, kind=kind
    )


def test_too_short_is_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Guards CTC's limit: 0.2 s are 21 frames and 6 steps, which carry 6 tokens, or 5 with one doubled
    letter."""
    examples = make(
        utterance("fits", "abcabc", 0.2),
        utterance("long", "abcabca", 0.2),
        utterance("double", "abcaab", 0.2),
    )
    assert [item.utterance.id for item in examples] == ["fits"]
    assert examples[0].tokens == tuple(TOKENIZER.encode("abcabc"))
    assert "2 of 3 training utterances are too short for their transcripts" in caplog.text
    assert "long (7 tokens need 7 steps, its audio has 6); double (6 tokens need 7 steps" in caplog.text
    assert "They are left out" in caplog.text


def test_too_short_can_fail() -> None:
    """Guards the setting for people who want to correct their data."""
    with pytest.raises(DataError, match=r"1 of 2 dev utterances .*long \(7 tokens .*--text.too-long drop"):
        make(utterance("fits", "a", 1), utterance("long", "abcabca", 0.2), too_long="fail", kind="dev")


def test_many_too_short_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Guards against a message of a thousand names: five are named, the rest is counted."""
    make(utterance("fits", "a", 1), *(utterance(f"u{number}", "abcabca", 0.2) for number in range(9)))
    assert "u4 (" in caplog.text
    assert "u5 (" not in caplog.text
    assert "and 4 more" in caplog.text


def test_less_than_a_window(caplog: pytest.LogCaptureFixture) -> None:
    """Guards 0.01 s of audio, which has no features at all and would fail in the middle of the cache."""
    examples = make(utterance("fits", "a", 0.03), utterance("click", "a", 0.01))
    assert [item.utterance.id for item in examples] == ["fits"]
    assert "click (1 tokens need 1 steps, its audio has 0)" in caplog.text


def test_lower_speeds_only(caplog: pytest.LogCaptureFixture) -> None:
    """Guards against speeding up an utterance until its transcript no longer fits."""
    caplog.set_level(logging.INFO, "asr")
    fast, slow = make(utterance("fast", "abcabc", 0.2), utterance("slow", "a", 0.2), speeds=(0.9, 1.0, 1.1))
    assert (fast.top_speed, slow.top_speed) == (1.0, 1.1)
    assert "1 training utterances are spoken too fast for the highest speed" in caplog.text
    # 6 steps of 4 frames of 160 samples: the sixth begins after 5
    assert (fast.min_samples, slow.min_samples) == (5 * 640, 400)
    (rescued,) = make(utterance("faster", "abcabca", 0.2), utterance("x", "b" * 30, 0.2), speeds=(0.8, 1.0))
    assert rescued.top_speed == 0.8


def test_unknown_characters() -> None:
    """Guards against characters that vanish from dev transcripts: utterance and character are named."""
    with pytest.raises(DataError, match=r"u1.*'z'"):
        make(utterance("u0", "a", 1), utterance("u1", "az", 1), kind="dev")


def test_unknown_characters_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Guards the other setting: tokens without them, but the reference keeps them, so that they count as
    errors."""
    (item,) = make(utterance("u1", "zaz y", 1), unknown="drop", kind="dev")
    assert item.tokens == tuple(TOKENIZER.encode("a "))
    assert item.text == "zaz y"
    assert "3 characters of dev transcripts are not in the alphabet and were left out: " in caplog.text
    assert "'y' 1 x, 'z' 2 x" in caplog.text


def test_transcript_of_nothing_but_punctuation(caplog: pytest.LogCaptureFixture) -> None:
    """Guards against a transcript that the text rules empty without a warning."""
    (item,) = make(utterance("u1", "...", 1))
    assert item.tokens == ()
    assert "the english rules leave nothing of 1 training transcripts" in caplog.text


def test_nothing_left() -> None:
    """Guards empty sets, which would fail later and less clearly."""
    with pytest.raises(DataError, match="none of 1 dev utterances can be used"):
        make(utterance("long", "abcabca", 0.2), kind="dev")
    with pytest.raises(DataError, match="none of 0 training utterances"):
        make()


def test_same_id_twice() -> None:
    """Guards two manifests with the same ids: the cache would give one the other's features."""
    with pytest.raises(DataError, match=r"1 ids name more than one training utterance: u\. Expected"):
        make(utterance("u", "a", 1), utterance("v", "a", 1), utterance("u", "b", 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unknown": "skip"}, r"text\.unknown must be one of error, drop. Got 'skip'"),
        ({"too_long": "cut"}, r"text\.too-long must be one of drop, fail. Got 'cut'"),
        ({"normalizer": "klingon"}, "english, words. Got 'klingon'"),
        ({"units": "words"}, r"text\.units must be one of characters, bpe, phones. Got 'words'"),
        ({"bpe_size": 2}, r"text\.bpe-size must be at least 3. Got 2"),
        ({"lexicon": Path("x.txt"), "units": "bpe"}, r"text\.lexicon x.txt is for phones, but .* bpe"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    """Guards settings made in Python, which the command line does not check."""
    with pytest.raises(SettingsError, match=message):
        TextConfig(**settings)


def test_alphabet_is_that_of_the_normalised_training_text() -> None:
    """Guards against an alphabet with capitals and punctuation that no token ever uses."""
    assert set(learn_tokenizer([utterance("u", "Cab, B!", 1)], TextConfig()).symbols) == set("abc ")
    lower = replace(TextConfig(), normalizer="lower")
    assert "," in learn_tokenizer([utterance("u", "Cab, B!", 1)], lower).symbols


def test_with_phones_the_target_is_phones(caplog: pytest.LogCaptureFixture) -> None:
    """Guards the dev score against comparing phones with letters, and words that no lexicon has."""
    config = TextConfig(units="phones")
    utterances = [utterance("u", "The cat!", 1), utterance("v", "read", 1)]
    tokenizer = learn_tokenizer(utterances, config)
    examples = make_examples(utterances, tokenizer, config, FeatureConfig(), 4)
    assert [item.text for item in examples] == ["DH AH K AE T", "R EH D"]
    assert [len(item.tokens) for item in examples] == [5, 3]
    assert not caplog.text


def test_words_outside_a_lexicon_are_named_with_their_utterance(tmp_path: Path) -> None:
    """Guards against an utterance that is left out because one of its words has no pronunciation."""
    (tmp_path / "lexicon.txt").write_text("ja j a:\n")
    config = TextConfig(units="phones", lexicon=tmp_path / "lexicon.txt")
    tokenizer = learn_tokenizer([utterance("u", "ja", 1)], config)
    with pytest.raises(DataError, match="utterance v: no pronunciation for 'nein'"):
        make_examples([utterance("v", "ja nein", 1)], tokenizer, config, FeatureConfig(), 4)


def test_bpe_is_learned_in_the_size_that_was_asked_for() -> None:
    """Guards --text.bpe-size, and tokens that are fewer than the characters."""
    pytest.importorskip("sentencepiece")
    utterances = [utterance(f"u{number}", "abab cab abc", 1) for number in range(3)]
    config = TextConfig(units="bpe", bpe_size=8)
    tokenizer = learn_tokenizer(utterances, config)
    assert tokenizer.vocab_size == 8
    (first, *_) = make_examples(utterances, tokenizer, config, FeatureConfig(), 4)
    assert first.text == "abab cab abc"
    assert len(first.tokens) < len(first.text)


def test_a_block_of_transcripts_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Guards what is counted of a whole block against what each example has, empty transcripts among them."""
    texts = ["abba", "", "b", "aa bb", "", "cab", "", ""]
    tokens = TOKENIZER.encode_all(texts)
    assert tokens is not None
    assert tokens.ids.tolist() == [number for text in texts for number in TOKENIZER.encode(text)]
    lists = [TOKENIZER.encode(text) for text in texts]
    assert required_steps_of_all(tokens).tolist() == [required_steps(ids) for ids in lists]
    assert required_steps_of_all(TokenLists.of([[], []])).tolist() == [0, 0]
    examples = make(*(utterance(f"u{number}", text, 1.0) for number, text in enumerate(texts)))
    assert examples.columns.token_counts.tolist() == [len(item.tokens) for item in examples]
    assert TOKENIZER.encode_all(["ab", "az"]) is None


@pytest.mark.parametrize("units", ["characters", "bpe", "phones"])
def test_arrow_gives_the_same_examples(units: Units, tmp_path: Path) -> None:
    """Guards a training from Arrow: alphabet, tokens, speeds and what is left out are those of the lines."""
    pytest.importorskip("pyarrow")
    if units == "bpe":
        pytest.importorskip("sentencepiece")
    (tmp_path / "x.wav").touch()
    listed = [
        Utterance(id=name, audio_filepath=tmp_path / "x.wav", duration=seconds, text=text)
        for name, seconds, text in (
            ("a", 1.0, "The cat!"),
            ("b", 0.05, "read"),
            ("c", 0.3, "no"),
            ("d", 2, "Ohé"),
        )
        if units != "phones" or name != "d"
    ]
    write_manifest(tmp_path / "m.jsonl", listed)
    config = TextConfig(units=units, bpe_size=20)
    for rules in ("", "english"):
        write_arrow(tmp_path / "m.jsonl", tmp_path / "m.arrow", rules)
        found = ArrowManifest([tmp_path / "m.arrow"])
        tokenizer = learn_tokenizer(found, config)
        assert tokenizer == learn_tokenizer(listed, config)
        examples, wanted = (
            make_examples(utterances, tokenizer, config, FeatureConfig(), 4, (0.9, 1.1))
            for utterances in (found, listed)
        )
        assert [item.utterance.id for item in examples] == [item.utterance.id for item in wanted]
        assert [replace(item, utterance=listed[0]) for item in examples] == [
            replace(item, utterance=listed[0]) for item in wanted
        ]
        assert len(examples) == len(listed) - 1
