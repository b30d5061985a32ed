"""The rule sets of asr.text.normalize, as tables of what goes in and what must come out."""

import random
import unicodedata

import pytest

from asr.errors import SettingsError
from asr.text.normalize import NORMALIZERS, in_language, normalize


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", ""),
        (" \t\n ", ""),
        ("  Don’t\tSTOP,\u00a0 now. ", "Don’t STOP, now."),
        ("cafe\u0301", "caf\u00e9"),
        ("\ufb01ne", "\ufb01ne"),  # a ligature is NFKC's business, not NFC's
    ],
)
def test_verbatim(written: str, expected: str) -> None:
    """Guards against a "verbatim" that rewrites more than Unicode form and white space."""
    assert normalize(written, "verbatim") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("Don't STOP,  Now.", "don't stop, now."), ("STRASSE Straße", "strasse straße"), ("E\u0301", "\u00e9")],
)
def test_lower(written: str, expected: str) -> None:
    """Guards against case folding that goes further than lower case, and against removed marks."""
    assert normalize(written, "lower") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("¿Qué?  ¡«Año» 5%!", "qué año 5%"),
        ("Grüß Gott, „Welt“ & Co.", "grüß gott welt & co"),
        ("l’été, jusqu'à 1,000", "l'été jusqu'à 1000"),
        ("Слово — дело.", "слово дело"),
    ],
)
def test_words(written: str, expected: str) -> None:
    """Guards English words in other languages: "und" is no "and"."""
    assert normalize(written, "words") == expected


@pytest.mark.parametrize(
    ("written", "language", "expected"),
    [
        ("ISPARTA'DA İYİ IŞIK", "tr", "ısparta'da iyi ışık"),
        ("I\u0307yi", "tr", "iyi"),
        ("QIZIL İNSAN", "az", "qızıl insan"),
        ("ISPARTA", "de", "isparta"),
        ("STRASSE, STRAẞE, Straße", "de", "strasse straße straße"),
        ("ΟΔΟΣ ΣΟΦΟΣ, ΦΩΣ;", "el", "οδος σοφος φως"),
        ("Col·lecció · ŀl", "ca", "col·lecció l·l"),
        ("Щедро ёж «Ы»", "ru", "щедро ёж ы"),
        ("п’ять п'ять", "uk", "п'ять п'ять"),
        ("שָׁלוֹם עוֹלָם, בית־ספר צה״ל", "he", "שלום עולם בית ספר צהל"),
        ("שָׁלוֹם", "", "שָׁלוֹם"),
        ("مَرْحَبًا بِكُم،أهـــلا؟", "ar", "مرحبا بكم أهلا"),
        ("مَرحبا", "", "مَرحبا"),
        ("آمد ﻻ", "fa", "آمد لا"),
        ("می\u200cخواهم\u200c خانه", "fa", "می\u200cخواهم خانه"),
        ("a\u200cb \u200cc", "", "ab c"),
        ("क्\u200dष नमस्ते।दुनिया", "hi", "क्\u200dष नमस्ते दुनिया"),
        ("ሰላም፡ዓለም።", "am", "ሰላም ዓለም"),
        ("བོད་སྐད།", "bo", "བོད སྐད"),
        ("今天，天气很好。 真 的！", "zh", "今天天气很好真的"),
        ("用 iPhone、iPad 和ＡＢＣ", "zh", "用 iphone ipad 和abc"),
        ("スピーチ・コーパス ﾃｽﾄ", "ja", "スピーチコーパステスト"),
        ("สวัสดี ครับ", "th", "สวัสดีครับ"),
        ("안녕하세요, 세계!", "ko", "안녕하세요 세계"),
    ],
)
def test_words_of_a_language(written: str, language: str, expected: str) -> None:
    """Guards letters and borders of words that a rule made for English would change."""
    name = f"words:{language}" if language else "words"
    assert normalize(written, name) == expected
    assert normalize(expected, name) == expected


def test_lower_of_a_language() -> None:
    """Guards the dotless i where no mark is removed: without the language a dot is left over."""
    assert normalize("I, İ!", "lower:tr") == "ı, i!"
    assert normalize("İ", "lower") == "i\u0307"
    assert normalize("שָׁ", "lower:he") == "שָׁ"
    assert normalize("I İ", "verbatim:tr") == "I İ"


def test_names_of_rules_with_a_language() -> None:
    """Guards English words in Turkish text because nobody had chosen other rules, and misspelt languages."""
    assert in_language("english", "tr") == "words:tr"
    assert in_language("english", "en") == "english"
    assert in_language("english", "") == "english"
    assert in_language("lower", "az") == "lower:az"
    with pytest.raises(SettingsError, match=r"'turkish' is no language.*ISO 639"):
        in_language("words", "turkish")
    with pytest.raises(SettingsError, match=r"are for English, not for 'tr'.*words:tr"):
        normalize("", "english:tr")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", ""),
        ("?!", ""),
        ("I", "i"),
        ("Hello, World!", "hello world"),
        ("well,no;so:then", "well no so then"),
        ("don’t don‘t don`t don´t donʼt don＇t", "don't don't don't don't don't don't"),
        ("the dogs' bone, 'tis rock 'n' roll", "the dogs' bone 'tis rock 'n' roll"),
        ("5' tall, 6'' wide, ' alone '", "5 tall 6 wide alone"),
        ("''so'' “said” «she»", "so said she"),
        ("the 1990's", "the 1990's"),
        ("mother-in-law", "mother in law"),
        ("a–b — c −5", "a b c 5"),
        ("and/or back\\slash snake_case", "and or back slash snake case"),
        ("wait... what… yes", "wait what yes"),
        ("U.S.A. Mr. Smith", "usa mr smith"),
        ("AT&T R ＆ B", "at and t r and b"),
        ("50% 3.5 % sure", "50 percent 3.5 percent sure"),
        ("1,000,000 and 10:30, 1, 2", "1000000 and 10 30 1 2"),
        ("3.5. .5 5.", "3.5 5 5"),
        ("$5 + 3 = €8", "$5 + 3 = €8"),
        ("(re)start [noise] {x}", "restart noise x"),
        ("ﬁve ＦＵＬＬ", "five full"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffbom", "softhyphen zero width bom"),
        ("Ünïcode NAÏVE É", "ünïcode naïve é"),
        ("a|b~c ^ d", "abc d"),
    ],
)
def test_english(written: str, expected: str) -> None:
    """Guards each rule of the English set, the joining and parting of words above all.

    They change word counts.
    """
    assert normalize(written, "english") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1,000", "1000"),
        ("12,345 and 123,456", "12345 and 123456"),
        ("$1,234,567.89", "$1234567.89"),
        ("1,000th 5,000km", "1000th 5000km"),
        ("1,000-2,000 or 3,000/4,000", "1000 2000 or 3000 4000"),
        ("(1,000), 2,000.", "1000 2000"),
        ("10,000:1", "10000 1"),
        ("１，０００", "1000"),
        # lists
        ("1,2,3 in 1999,2000", "1 2 3 in 1999 2000"),
        ("1,2", "1 2"),
        ("10,20,300", "10 20 300"),
        ("1,000,2", "1 000 2"),
        ("1000,200", "1000 200"),
        ("1,0000", "1 0000"),
        ("1,23,456", "1 23 456"),
        ("0,123 00,123", "0 123 00 123"),
        ("3.5,100 and 10:30,100", "3.5 100 and 10 30 100"),
        ("2,5.5", "2 5.5"),
        ("3,a a,300", "3 a a 300"),
    ],
)
def test_commas_between_digits(written: str, expected: str) -> None:
    """Guards lists of numbers against being joined into one, and grouped numbers against being parted."""
    assert normalize(written, "english") == expected


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalising_twice_changes_nothing(name: str) -> None:
    """Guards against rules that depend on marks which another rule removes.

    Text would drift with each pass.
    """
    generator = random.Random(5)
    hard = "aB50 .,'’‘`´-–&%/_:;…\u0301\u00ad\u200b\u0149\u2033ßİΣ\t\u2028½ﬁ"
    for _ in range(3000):
        text = "".join(
            generator.choice(hard) if generator.random() < 0.8 else chr(generator.randrange(0x20, 0x3000))
            for _ in range(generator.randrange(12))
        )
        once = normalize(text, name)
        assert normalize(once, name) == once, repr(text)
        assert once == " ".join(once.split())
        assert unicodedata.is_normalized("NFC", once), repr(text)


def test_english_leaves_no_punctuation() -> None:
    """Guards against a mark that no rule covers.

    After the rules only apostrophes and decimal points remain.
    """
    every = "".join(chr(code) for code in range(0x3100) if unicodedata.category(chr(code)).startswith("P"))
    assert normalize(" ".join(every), "english").split() == ["percent", "and"]


def test_unknown_name_lists_the_known_ones() -> None:
    """Guards against a misspelt normaliser that is ignored.

    The score would be of other rules than it names.
    """
    with pytest.raises(SettingsError, match=r"verbatim, lower, english, words\. Got 'English'"):
        normalize("x", "English")
