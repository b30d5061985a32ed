"""Public corpora: each is read from a tiny look-alike of its layout, whole and with gaps; some for real."""

import json
from collections import Counter
from pathlib import Path

import pytest

from asr.corpora.catalogue import CORPORA, find_corpus
from asr.corpora.corpus import Reading, hold_out
from asr.errors import AsrError, DataError, SettingsError
from asr.manifests.manifest import read_manifest
from tests.corpora.look_alikes import (
    LEFT_OUT,
    LOOK_ALIKES,
    common_voice,
    ljspeech,
    mls,
    sound,
    tedlium,
    whole_librispeech,
    write,
)


def reasons(reading: Reading) -> dict[str, int]:
    return dict(Counter(one.why for one in reading.left_out))


def test_every_corpus_has_a_look_alike() -> None:
    """A corpus in the catalogue that no test reads."""
    assert set(LOOK_ALIKES) == set(CORPORA)


@pytest.mark.parametrize("name", CORPORA)
def test_look_alike(name: str, tmp_path: Path) -> None:
    """Wrong splits, speakers, ids or transcripts; a speaker or an utterance in two splits; a wrong length."""
    rows = LOOK_ALIKES[name](tmp_path)
    reading = CORPORA[name].prepare(tmp_path)
    assert {*reading.splits} == {"train", "dev", "test"}
    for split, expected in rows.items():
        found = [(one.id, one.speaker, one.text) for one in reading.splits[split]]
        assert [row for row in found if row in expected] == expected
    assert reasons(reading) == LEFT_OUT.get(name, {})
    everything = [one for utterances in reading.splits.values() for one in utterances]
    assert len({one.id for one in everything}) == len(everything)
    for one in everything:
        assert one.audio_filepath.is_absolute()
        assert one.audio_filepath.is_file()
        # MP3 and Opus are padded to whole frames.
        assert one.duration == pytest.approx(0.4 if one.offset else 0.1, abs=0.08)


@pytest.mark.parametrize("name", CORPORA)
def test_facts(name: str) -> None:
    """A corpus that cannot be got, an archive without a checksum that pretends to have one."""
    corpus = CORPORA[name]
    assert corpus.downloadable or corpus.embedded or corpus.instructions
    assert corpus.title
    assert corpus.licence
    assert corpus.source.startswith("http")
    archives = [*corpus.archives, *(one for part in corpus.parts.values() for one in part)]
    for archive in archives:
        algorithm, digest = archive.checksum
        assert len(digest) == {"sha256": 64, "md5": 32, "": 0}[algorithm]
        assert archive.url.endswith(archive.name)
        assert archive.licence


@pytest.mark.parametrize("name", CORPORA)
def test_wrong_folder(name: str, tmp_path: Path) -> None:
    """A folder of something else is read as an empty corpus, or its error does not say what was missed."""
    (tmp_path / "holiday pictures").mkdir()
    with pytest.raises(AsrError) as caught:
        CORPORA[name].prepare(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "--data.root" in str(caught.value)
    with pytest.raises(AsrError, match=r"no such folder|does not exist"):
        CORPORA[name].prepare(tmp_path / "missing")
    (tmp_path / "corpus.zip").touch()
    with pytest.raises(
        AsrError, match=r"corpus\.zip: is a file\. .* Unpack it, if it is an archive, and name"
    ):
        CORPORA[name].prepare(tmp_path / "corpus.zip")


# Of each corpus that may have gaps: a recording that is removed, and one that is added.
GAPS = {
    "an4": ("an4/wav/an4_clstk/f001/an1-f001-b.sph", "an4/wav/an4_clstk/f001/an2-f001-b.sph"),
    "asterisk": (
        "usr/share/asterisk/sounds/es_MX_f_Allison/dir/p1.g722",
        "usr/share/asterisk/sounds/es_MX_f_Allison/new.g722",
    ),
    "timit": ("TIMIT/TEST/DR1/MDAB0/SX49.WAV", "TIMIT/TEST/DR1/MDAB0/SX50.WAV"),
    "cmu_arctic": ("cmu_us_slt_arctic/wav/arctic_a0001.wav", "cmu_us_slt_arctic/wav/arctic_a0002.wav"),
    "ljspeech": ("LJSpeech-1.1/wavs/LJ001-0001.wav", "LJSpeech-1.1/wavs/LJ002-0001.wav"),
    "vctk": (
        "VCTK-Corpus-0.92/wav48_silence_trimmed/p1/p1_001_mic2.flac",
        "VCTK-Corpus-0.92/wav48_silence_trimmed/p1/p1_002_mic2.flac",
    ),
    "voxforge": ("ann1-20120412-hge/wav/a0405.wav", "ann1-20120412-hge/wav/a0406.wav"),
    "tedlium2": ("TEDLIUM_release2/train/sph/Ann_train.sph", "TEDLIUM_release2/train/sph/Bob.sph"),
    "libritts": (
        "LibriTTS/dev-clean/84/121123/84_121123_000001_000000.wav",
        "LibriTTS/dev-clean/84/121123/84_121123_000009_000000.wav",
    ),
    "fleurs": ("fleurs/en_us/audio/dev/10031.wav", "fleurs/en_us/audio/dev/10099.wav"),
    "mls": (
        "mls_polish_opus/dev/audio/6891/10049/6891_10049_000000.opus",
        "mls_polish_opus/dev/audio/6891/10049/6891_10049_000009.opus",
    ),
}


@pytest.mark.parametrize("name", GAPS)
def test_gaps_are_counted(name: str, tmp_path: Path) -> None:
    """Audio without a transcript, or the reverse, that disappears without a word."""
    LOOK_ALIKES[name](tmp_path)
    before = sum(map(len, CORPORA[name].splits(tmp_path).values()))
    removed, added = GAPS[name]
    (tmp_path / removed).rename(tmp_path / added)
    reading = CORPORA[name].prepare(tmp_path)
    assert sum(map(len, reading.splits.values())) == before - 1
    gaps = {one.why: one.what for one in reading.left_out if not one.expected}
    assert {*gaps} == {"transcript without audio", "audio without transcript"}
    assert gaps["audio without transcript"] == str(tmp_path / added)


def test_half_extracted(tmp_path: Path) -> None:
    """A transcript whose folder of audio was not unpacked: the first path that is missing is named."""
    ljspeech(tmp_path)
    for path in (tmp_path / "LJSpeech-1.1/wavs").iterdir():
        path.unlink()
    with pytest.raises(
        DataError, match=r"no utterance of LJ Speech can be used: 10 transcript without audio"
    ):
        CORPORA["ljspeech"].prepare(tmp_path)
    (tmp_path / "LJSpeech-1.1/wavs").rmdir()
    missing = r"LJSpeech-1\.1/wavs: does not exist\. Expected the folder of LJ Speech; .* holds metadata\.csv"
    with pytest.raises(DataError, match=missing):
        CORPORA["ljspeech"].prepare(tmp_path)


def test_damaged_recordings_are_left_out(tmp_path: Path) -> None:
    """One empty or damaged file of 290,000 that ends the work of an hour."""
    ljspeech(tmp_path)
    wavs = tmp_path / "LJSpeech-1.1/wavs"
    (wavs / "LJ001-0001.wav").write_bytes(b"")
    (wavs / "LJ001-0002.wav").write_bytes(b"no sound at all")
    reading = CORPORA["ljspeech"].prepare(tmp_path)
    assert sum(map(len, reading.splits.values())) == 8
    assert [Path(one.what).name for one in reading.left_out] == ["LJ001-0001.wav", "LJ001-0002.wav"]
    assert all(one.why.startswith("unreadable audio: ") for one in reading.left_out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("LJ001-0001|a|für\n".encode("utf-16"), r"metadata\.csv is UTF-16\. .*iconv -f UTF-16 -t UTF-8"),
        ("LJ001-0001|a|b\n".encode("utf-16-le"), r"metadata\.csv is UTF-16LE\."),
        ("LJ001-0001|a|b\n".encode("utf-32"), r"metadata\.csv is UTF-32\."),
        (
            "LJ001-0001|a|für\n".encode("latin-1"),
            r"line 1: byte 0xfc, number 15 .*It reads '.*\|für' in WINDOWS-1252",
        ),
        ("LJ001-0001|a|да\n".encode("cp1251"), r"line 1: byte 0xe4.*\|да' in WINDOWS-1251"),
    ],
)
def test_other_encodings_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    """Transcripts of question marks, or an error with the wrong remedy."""
    ljspeech(tmp_path)
    (tmp_path / "LJSpeech-1.1/metadata.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        CORPORA["ljspeech"].prepare(tmp_path)


@pytest.mark.parametrize("name", ["librispeech", "mini_librispeech"])
def test_damaged_transcripts_of_librispeech(name: str, tmp_path: Path) -> None:
    """A traceback in place of the file's name."""
    LOOK_ALIKES[name](tmp_path)
    path = sorted(tmp_path.rglob("*.trans.txt"))[0]
    path.write_bytes("1-9-0000 GO DO".encode("utf-16"))
    with pytest.raises(DataError, match=rf"{path.name} is UTF-16\. .*iconv -f UTF-16 -t UTF-8"):
        CORPORA[name].prepare(tmp_path)


def test_talks_that_were_cut_short(tmp_path: Path) -> None:
    """A talk of TED-LIUM that was not unpacked to its end, which is found when it is decoded."""
    tedlium(tmp_path)
    below = tmp_path / "TEDLIUM_release2"
    sound(below / "dev/sph/Ann_dev.sph", 0.3)
    (below / "test/sph/Ann_test.sph").write_bytes(b"")
    stm = below / "dev/stm/Ann_dev.stm"
    stm.write_text(
        stm.read_text() + "Ann_dev 1 Ann_dev 0.3 0.4 <o> late\nAnn_dev 1 Ann_dev 0.2 0.9 <o> out\n"
    )
    reading = CORPORA["tedlium2"].prepare(tmp_path)
    assert [*reading.splits] == ["train", "dev"]
    assert [one.duration for one in reading.splits["dev"]] == [pytest.approx(0.2)]
    assert [one.why.partition(":")[0] for one in reading.left_out if not one.expected] == [
        "after the end of its recording", "after the end of its recording", "unreadable audio",
    ]  # fmt: skip


def test_strange_names(tmp_path: Path) -> None:
    """Folders and speakers with spaces, quotes, newlines and other scripts."""
    base = tmp_path / 'a "b" \n c' / "данные"
    name = 'o\'neill "x"\nй-20120412-hge'
    write(base / name / "etc/PROMPTS", "x/mfc/a'1 IT IS\n")
    sound(base / name / "wav/a'1.wav")
    (utterance,) = CORPORA["voxforge"].splits(base)["train"]
    assert utterance.id == f"{name}-a'1"
    assert utterance.speaker == 'o\'neill "x"\nй'


def test_lines_that_are_no_transcripts(tmp_path: Path) -> None:
    """Lines with too few fields, segments that end before they begin, that disappear without a word."""
    ljspeech(tmp_path)
    path = tmp_path / "LJSpeech-1.1/metadata.csv"
    path.write_text(path.read_text() + "LJ001-0042 no bar\n")
    tedlium(tmp_path)
    stm = tmp_path / "TEDLIUM_release2/dev/stm/Ann_dev.stm"
    stm.write_text(stm.read_text() + "Ann_dev 1 Ann_dev 0.9 0.8 <o> no\nAnn_dev 1 x\n")
    for name, expected in (
        ("ljspeech", {"not three fields with | between them"}),
        (
            "tedlium2",
            {
                "ends before it begins", "to be ignored, says the corpus",
                "not a line of STM: talk channel speaker begin end <label> words",
            },
        ),
    ):  # fmt: skip
        assert {*reasons(CORPORA[name].prepare(tmp_path))} == expected


def test_empty_transcripts_are_left_out(tmp_path: Path) -> None:
    """An utterance without words, which no training can use."""
    ljspeech(tmp_path)
    path = tmp_path / "LJSpeech-1.1/metadata.csv"
    path.write_text(path.read_text().replace("In one 3 B.C. “he”", " … "))
    reading = CORPORA["ljspeech"].prepare(tmp_path)
    assert [(one.what, one.why) for one in reading.left_out] == [("LJ001-0003", "no words in its transcript")]


def test_the_same_utterance_twice(tmp_path: Path) -> None:
    """An utterance in train and test: a score on training data is no score."""
    mls(tmp_path)
    base = tmp_path / "mls_polish_opus"
    key = "6890_10049_000000"
    write(base / "test/transcripts.txt", f"{key}\tżona\n")
    sound(base / f"test/audio/6890/10049/{key}.opus")
    with pytest.raises(DataError, match=f"'{key}' is twice in train and test"):
        CORPORA["mls"].prepare(tmp_path)


def test_parts(tmp_path: Path) -> None:
    """Parts that are read besides the chosen ones, unknown parts, and two languages in one manifest."""
    whole_librispeech(tmp_path)
    splits = CORPORA["librispeech"].splits(tmp_path, ["dev-clean", "train-other-500"])
    assert {name: [one.id for one in found] for name, found in splits.items()} == {
        "train": ["1-9-0000"],
        "dev": ["2-9-0000"],
    }
    with pytest.raises(SettingsError, match=r"librispeech has no part 'dev'\. Expected of dev-clean, "):
        CORPORA["librispeech"].choose(["dev"])
    with pytest.raises(SettingsError, match=r"polish, german are corpora of their own"):
        CORPORA["mls"].choose(["polish", "german"])
    with pytest.raises(SettingsError, match=r"mls: --data\.parts is missing\. Expected one of english, "):
        CORPORA["mls"].download(tmp_path, ())
    (tmp_path / "cv-corpus-1" / "fr").mkdir(parents=True)
    common_voice(tmp_path)
    write(tmp_path / "cv-corpus-1/fr/validated.tsv", "client_id\tpath\tsentence\n")
    with pytest.raises(SettingsError, match=r"holds de, fr\. Expected one language"):
        CORPORA["common_voice"].prepare(tmp_path)
    assert CORPORA["common_voice"].splits(tmp_path, ["de"])


def test_held_out() -> None:
    """A split that depends on the order of files, is empty, or has a key twice."""
    names = [f"speaker {number}" for number in range(40)]
    split = hold_out(names)
    assert split == hold_out(list(reversed(names)))
    assert Counter(split.values()) == {"train": 32, "dev": 4, "test": 4}
    assert Counter(hold_out(["a", "b", "c"]).values()) == {"train": 1, "dev": 1, "test": 1}
    assert hold_out(["a", "b"]) == {"a": "train", "b": "train"}
    assert Counter(hold_out(names, dev=0.2, test=0).values()) == {"train": 32, "dev": 8}


def test_unknown_corpus() -> None:
    """A name that is nearly right."""
    with pytest.raises(SettingsError, match=r"no corpus 'librispech'\. Did you mean librispeech\?"):
        find_corpus("librispech")


# ------------------------------------------------------------------------------------------------- for real


@pytest.mark.parametrize(
    ("name", "folder", "counts"),
    [
        ("ljspeech", "LJSpeech", {"train": 387, "dev": 48, "test": 48}),
        ("common_voice", "common_voice", {"train": 1617, "dev": 320, "test": 236}),
        ("speechocean762", "speechocean762", {"train": 1880, "dev": 200, "test": 1880}),
        ("yesno", ".", {"train": 25, "dev": 5, "test": 30}),
    ],
)
def test_real_folders(name: str, folder: str, counts: dict[str, int], speech: Path) -> None:
    """Real distributions, of which only the ending of the audio differs: nothing is left out."""
    reading = CORPORA[name].prepare(speech / folder)
    assert {split: len(found) for split, found in reading.splits.items()} == counts
    assert reading.left_out == []


def test_real_vctk(speech: Path, tmp_path: Path) -> None:
    """Real recordings and texts in the layout of VCTK 0.80."""
    for row in map(json.loads, (speech / "vctk/manifest.jsonl").read_text().splitlines()):
        speaker = row["id"].partition("_")[0]
        write(tmp_path / f"txt/{speaker}/{row['id']}.txt", row["raw_text"] + "\n")
        link = tmp_path / f"wav48/{speaker}/{row['id']}.opus"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(speech / "vctk" / row["audio_filepath"])
    splits = CORPORA["vctk"].splits(tmp_path)
    assert {split: len(found) for split, found in splits.items()} == {"train": 20, "dev": 10, "test": 10}
    texts = {one.id: one.text for one in read_manifest(speech / "vctk/manifest.jsonl")}
    assert {one.id: one.text for found in splits.values() for one in found} == texts


@pytest.mark.parametrize("name", ["common_voice", "fleurs"])
def test_the_folder_names_the_language(name: str, tmp_path: Path) -> None:
    """A lone dot from every Turkish capital, which becomes a letter of its own."""
    LOOK_ALIKES[name](tmp_path)
    for old in [path for path in tmp_path.rglob("*") if path.name in ("de", "en_us")]:
        old.rename(old.with_name("tr" if old.name == "de" else "tr_tr"))
    for path in tmp_path.rglob("*.tsv"):
        text = path.read_text(encoding="utf-8").replace("Grüß", "İyi IŞIK").replace("what is", "İyi IŞIK")
        path.write_text(text, encoding="utf-8")
    splits = CORPORA[name].splits(tmp_path)
    assert splits["train"][0].text.startswith("iyi ışık")
    assert CORPORA[name].prepare(tmp_path, normalizer="words").splits["train"][0].text.startswith("i\u0307yi")
