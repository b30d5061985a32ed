"""Scripts without spaces between words: what is one, and where words begin and end."""

import pytest

from asr.text.scripts import close_up, is_unspaced, join_words, split_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天天气很好", True),
        ("カタカナとひらがな", True),
        ("สวัสดีครับ", True),
        ("ភាសាខ្មែរ", True),
        ("မြန်မာဘာသာ", True),
        ("𠀀𠀁", True),
        ("한국어 문장", False),
        ("tiếng việt", False),
        ("בוקר טוב", False),
        ("مرحبا بالعالم", False),
        ("नमस्ते दुनिया", False),
        ("我用 speech recognition", False),
        ("我用语音识别 app", True),
        ("", False),
    ],
)
def test_unspaced(text: str, expected: bool) -> None:
    """A language that has spaces scored by character, or one without by whole sentences."""
    assert is_unspaced([text]) is expected


def test_most_of_a_corpus_decides() -> None:
    """One foreign sentence that changes what is counted in a corpus."""
    assert is_unspaced(["今天天气很好", "hi", ""])
    assert not is_unspaced(["a sentence of many words", "天气"])


@pytest.mark.parametrize(
    ("text", "words", "joined"),
    [
        ("今天", ["今", "天"], "今天"),
        ("今天 天气", ["今", "天", "天", "气"], "今天天气"),
        ("我用 iphone 手机", ["我", "用", "iphone", "手", "机"], "我用 iphone 手机"),
        ("ที่นี่", ["ที่", "นี่"], "ที่นี่"),
        ("「今天。」好", ["「今", "天。」", "好"], "「今天。」好"),
        ("two words", ["two", "words"], "two words"),
        ("für été", ["für", "été"], "für été"),
        ("", [], ""),
    ],
)
def test_words(text: str, words: list[str], joined: str) -> None:
    """Marks that lose their letter, and spaces that appear in Chinese or vanish from English."""
    assert split_words(text) == words
    assert close_up(text) == joined
    assert join_words(words) == joined
