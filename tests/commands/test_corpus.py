"""`asr corpus`: the list, manifests of a corpus, what is left out, and what goes wrong."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.corpora import asterisk
from asr.corpora.catalogue import CORPORA
from asr.corpora.corpus import Corpus
from asr.manifests.manifest import read_manifest, write_manifest
from asr.manifests.utterance import Utterance
from tests.corpora import look_alikes
from tests.corpora.look_alikes import sound
from tests.corpora.test_download import _deb, _tar

Run = Callable[..., tuple[int, str, str]]


def test_list(run: Run) -> None:
    """A corpus that nobody finds, or whose licence is seen only after the download."""
    status, out, _ = run("corpus", "list")
    assert status == 0
    rows = {line.split()[0]: line for line in out.splitlines()[1:] if line and not line.startswith("-")}
    assert {*rows} == {*CORPORA}
    for name, corpus in CORPORA.items():
        assert corpus.licence in rows[name]
        assert corpus.languages in rows[name]
    assert re.search(r"^libritts +585 +2,456 +CC BY 4\.0 +--download +English$", out, re.MULTILINE)
    assert re.search(r"^wsj .* LDC +--root DIR ", out, re.MULTILINE)


def test_list_of_some(run: Run) -> None:
    """Addresses, sizes, checksums and parts; a missing checksum is called so."""
    status, out, _ = run("corpus", "list", "speechocean762", "libritts", "common_voice")
    assert status == 0
    assert "https://www.openslr.org/resources/101/speechocean762.tar.gz\n    521 MB, unverified" in out
    assert re.search(r"60/dev-clean\.tar\.gz\n    1\.3 GB, sha256 da0864e1", out)
    assert "--parts: any of train-clean-100 " in out
    assert "how to get it: Download a release of your language from commonvoice" in out
    status, _, err = run("corpus", "list", "libritt")
    assert status == 2
    assert "no corpus 'libritt'. Did you mean libritts?" in err


def test_prepare(run: Run, tmp_path: Path) -> None:
    """Manifests that other commands cannot read, figures that are not those of the manifests."""
    look_alikes.ljspeech(tmp_path)
    status, out, err = run("corpus", "prepare", "ljspeech", "--root", tmp_path, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    folder = tmp_path / "out" / "ljspeech"
    assert sorted(path.name for path in folder.iterdir()) == ["dev.jsonl", "test.jsonl", "train.jsonl"]
    found = {split: read_manifest(folder / f"{split}.jsonl") for split in ("train", "dev", "test")}
    assert [len(utterances) for utterances in found.values()] == [8, 1, 1]
    words = sum(len(one.text.split()) for one in found["train"])
    row = rf"^{re.escape(str(folder / 'train.jsonl'))} +8 +0\.00 +1 +{words}$"
    assert re.search(row, out, re.MULTILINE)
    assert "speakers of dev or test who are in train, too: 1" in out
    assert all("wavs/LJ001" in str(one.audio_filepath) for one in found["train"])


def test_what_is_left_out_is_listed(run: Run, tmp_path: Path) -> None:
    """Status 0 for half a corpus; a list that does not hold all; a list of the last time."""
    look_alikes.ljspeech(tmp_path)
    wavs = tmp_path / "LJSpeech-1.1" / "wavs"
    (wavs / "LJ001-0001.wav").rename(wavs / "LJ001-9999.wav")
    command = ("corpus", "prepare", "ljspeech", "--root", tmp_path, "-o", tmp_path / "out")
    status, out, err = run(*command)
    assert status == 1
    assert "train.jsonl" in out
    assert "1 transcript without audio, such as 'LJ001-0001'; 1 audio without transcript, such as" in err
    listed = tmp_path / "out" / "ljspeech" / "left_out.jsonl"
    assert str(listed) in err
    assert [json.loads(line) for line in listed.read_text().splitlines()] == [
        {"what": "LJ001-0001", "why": "transcript without audio", "expected": False},
        {"what": str(wavs / "LJ001-9999.wav"), "why": "audio without transcript", "expected": False},
    ]
    (wavs / "LJ001-9999.wav").rename(wavs / "LJ001-0001.wav")
    assert run(*command)[0] == 0
    assert not listed.exists()


def test_what_every_copy_lacks_is_no_error(run: Run, tmp_path: Path) -> None:
    """Beeps, and the sentences of TIMIT that are never used, that look like a damaged copy."""
    look_alikes.asterisk(tmp_path)
    status, out, err = run("corpus", "prepare", "asterisk", "--root", tmp_path, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    assert "left out, as in every copy: 2 a sound or silence, no speech, such as 'beep'" in out
    assert (tmp_path / "out" / "asterisk" / "left_out.jsonl").is_file()


def test_parts_and_text_rules(run: Run, tmp_path: Path) -> None:
    """A language that overwrites another one's manifests, and rules that are not those of the option."""
    look_alikes.common_voice(tmp_path)
    out = tmp_path / "out"
    options = ("--root", tmp_path, "-o", out, "--parts", "de", "--normalizer", "verbatim")
    assert run("corpus", "prepare", "common_voice", *options)[0] == 1  # a speaker of a delta is in test
    (test,) = read_manifest(out / "common_voice-de" / "test.jsonl")
    assert test.text == "Grüß Gott, „Welt“!"


def test_embedded(run: Run, tmp_path: Path) -> None:
    """The digits that come with the repository need neither a folder nor a download."""
    status, out, _ = run("corpus", "prepare", "fsdd", "-o", tmp_path)
    assert status == 0
    assert re.search(r"test\.jsonl +500 ", out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["yesno"], "yesno: neither --root nor --download is given. Expected --root DIR or --download."),
        (["wsj"], "wsj: --root is missing. Get WSJ0 and WSJ1 (LDC93S6A, LDC94S13A) from the"),
        (["wsj", "--download"], "Wall Street Journal cannot be downloaded by a program. Get WSJ0 and WSJ1"),
        (["wsj", "--offline"], "Consortium. Then give the folder of their disks as --root."),
        (["common_voice", "--offline"], "Common Voice cannot be downloaded by a program. Download a release"),
        (["fsdd", "--download"], "It comes with the project's repository, and is read without --root."),
        (["yesno", "--root", "."], "Correct --root, or give --download in its place to fetch the corpus."),
        (["yesno", "--root", "x", "--download"], "--root and a download are given"),
        (["mls", "--download"], "mls: --parts is missing. Expected one of english, german"),
        (["mls", "--root", ".", "--parts", "latin"], "--parts: mls has no part 'latin'"),
        (["yesno", "--root", "x", "--parts", "a"], "--parts: yesno has no part 'a'. The corpus has none."),
        (["ljspeech", "--root", "nowhere"], "nowhere: no such folder. Expected the folder of LJ Speech"),
        (["yesno", "--offline", "--dir", "d"], "d/waves_yesno.tar.gz: does not exist, and --offline"),
        (["nothing"], "no corpus 'nothing'"),
    ],
)
def test_wrong_use(
    options: list[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that names options of recipes, or does not say what to do."""
    monkeypatch.chdir(tmp_path)
    status, out, err = run("corpus", "prepare", *options)
    assert (status, out) == (2, "")
    assert message in err
    assert "--data." not in err
    assert not list(tmp_path.iterdir())


def test_target_that_cannot_be_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only folder or a file as the target that is found after an hour of reading."""
    monkeypatch.setattr(Corpus, "prepare", lambda *_: pytest.fail("the corpus was read"))
    command = ("corpus", "prepare", "ljspeech", "--root", tmp_path, "-o", tmp_path / "out")
    (tmp_path / "out").write_text("")
    status, _, err = run(*command)
    assert (status, err.count("\n")) == (2, 1)
    assert "--output: " in err
    assert "out is a file. Expected a folder. Choose another one." in err
    (tmp_path / "out").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere but on a read-only disk
    status, _, err = run(*command)
    assert status == 2
    assert f"--output: {tmp_path} cannot be written to. Expected a folder. Choose another one." in err


def test_names_that_are_not_utf8(run: Run, tmp_path: Path) -> None:
    """A traceback at the end, when the manifest is written; a manifest that does not find the file."""
    name = os.fsdecode(b"caf\xe9")
    look_alikes.write(tmp_path / f"{name}-20120412-x/etc/PROMPTS", "x/a GO\nx/b DO\n")
    look_alikes.sound(tmp_path / f"{name}-20120412-x/wav/a.wav")
    status, _, _ = run("corpus", "prepare", "voxforge", "--root", tmp_path, "-o", tmp_path / "out")
    assert status == 1
    (utterance,) = read_manifest(tmp_path / "out/voxforge/train.jsonl")
    assert utterance.speaker == name
    assert utterance.audio_filepath.is_file()
    (line,) = (tmp_path / "out/voxforge/left_out.jsonl").read_text().splitlines()
    assert json.loads(line)["what"] == f"{name}-20120412-x-b"


def _packages(folder: Path) -> None:
    """The two Debian packages of the Spanish prompts."""
    tree = folder.parent / "tree"
    look_alikes.asterisk(tree)
    files = {
        path.relative_to(tree).as_posix().replace("/", "__"): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file()
    }
    shutil.rmtree(tree)
    folder.mkdir(parents=True)
    texts = {name: content for name, content in files.items() if "__doc__" in name}
    for name, chosen in (("", texts), ("-g722", {k: v for k, v in files.items() if k not in texts})):
        package = folder / f"asterisk-core-sounds-es{name}_1.6.1-1_all.deb"
        package.write_bytes(_deb(_tar(**chosen)))


def test_asterisk_from_packages(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that have to be installed; packages that are fetched although they are there."""
    _packages(tmp_path / "data" / "asterisk" / "es")
    options = ("corpus", "prepare", "asterisk", "--parts", "es", "--dir", tmp_path / "data", "-o", tmp_path)
    status, _, err = run(*options, "--offline")
    assert (status, err) == (0, "")
    assert len(read_manifest(tmp_path / "asterisk-es" / "train.jsonl")) == 8

    calls: list[list[str]] = []

    def apt(command: list[str], cwd: Path, **_: object) -> object:
        calls.append(command[1:])
        for package in (tmp_path / "data/asterisk/es").glob("*.deb"):
            shutil.copy(package, cwd / package.name.replace("-es", "-it"))
        return type("Result", (), {"returncode": 0})

    monkeypatch.setattr(asterisk.shutil, "which", lambda _: "apt-get")
    monkeypatch.setattr(asterisk.subprocess, "run", apt)
    status, _, err = run(*("it" if one == "es" else one for one in options), "--download")
    assert calls == [["download", "asterisk-core-sounds-it", "asterisk-core-sounds-it-g722"]]
    assert "licence CC BY 3.0" in err  # before the download
    assert "core-sounds-it.txt.gz: does not exist" in err  # the packages are the Spanish ones


def test_asterisk_without_apt(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems other than Debian, and a package that apt does not find."""
    options = ("corpus", "prepare", "asterisk", "--parts", "es", "--dir", tmp_path, "--download")
    monkeypatch.setattr(asterisk.shutil, "which", lambda _: None)
    status, _, err = run(*options)
    assert status == 2
    assert "this computer has no apt-get. Expected these Debian packages. Put their .deb files" in err
    failed = type("Result", (), {"returncode": 100, "stderr": "E: Unable to locate package\n"})
    monkeypatch.setattr(asterisk.shutil, "which", lambda _: "apt-get")
    monkeypatch.setattr(asterisk.subprocess, "run", lambda *_, **__: failed)
    status, _, err = run(*options)
    assert status == 2
    assert "E: Unable to locate package. Run apt-get update" in err


def test_convert_for_millions_of_utterances(run: Run, tmp_path: Path) -> None:
    """Guards the way from JSON Lines to tar files to Arrow, which other commands read as well."""
    pytest.importorskip("pyarrow")
    sound(tmp_path / "a.wav", 1.0)
    lines, tars = tmp_path / "m.jsonl", tmp_path / "tars"
    write_manifest(lines, [Utterance(id="a", audio_filepath=tmp_path / "a.wav", duration=1.0, text="One.")])
    for manifest, form, more, written in (
        (lines, "webdataset", (), tars / "manifest.jsonl"),
        (tars / "manifest.jsonl", "arrow", ("--normalizer", "english"), tars / "manifest.arrow"),
        (tars / "manifest.arrow", "csv", (), tmp_path / "csv" / "manifest.csv"),
    ):
        status, out, _ = run("corpus", "convert", manifest, "--to", form, "-o", written.parent, *more)
        assert (status, out) == (0, f"1 utterances: {written}\n")
    assert (tmp_path / "csv" / "manifest.csv").read_text().endswith(":32044,0.0,1.0,,,one\n")
    status, out, _ = run("doctor", tars / "manifest.arrow")
    assert "1 utterance," in out
    for arguments, message in (
        ((lines, "--to", "csv", "--normalizer", "lower"), "--normalizer is for --to arrow"),
        ((tars / "manifest.arrow", "--to", "arrow"), "is Arrow already. Expected JSONL"),
        ((tars / "manifest.jsonl", "--to", "webdataset"), "would be overwritten"),
    ):
        status, _, err = run("corpus", "convert", *arguments, "-o", tars)
        assert status == 2
        assert message in err
