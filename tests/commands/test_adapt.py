"""`asr adapt`: text and words in, a folder out that is a model like one that ships."""

import lzma
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors import safe_open

from asr.errors import ModelError
from asr.files import file_digest
from asr.frontend.features import FeatureConfig
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.decoding_weights import DecodingWeights, Tuning, TuningKey
from asr.model.saved import save_release
from asr.model.shipped import SHIPPED_MODELS, ModelFiles, find_model
from asr.text.lexicon import read_lexicon
from asr.text.phones import PhoneTokenizer
from tests.shapes import encoder_config

Run = Callable[..., tuple[int, str, str]]

KNOWN = ["the", "valve", "pump", "turns", "opens", "red", "green", "near", "old", "new", "house", "tree"]
LINES = [
    f"The {a} pump opens the {b} flange." for a in ("red", "old", "new") for b in ("green", "near", "old")
]
WEIGHTS = DecodingWeights(lm_weight=0.7, word_bonus=0.3)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of a model that ships; a word's phones are its letters."""
    folder = tmp_path_factory.mktemp("source")
    files = ModelFiles.of_folder(folder)
    assert files.lm
    assert files.lexicon
    rows = "".join(f"{word}\t{' '.join(word)}\n" for word in [*KNOWN, "fang", "flag", "gel", "quiz", "jam"])
    files.lexicon.write_bytes(lzma.compress(rows.encode()))
    (folder / "text.txt").write_text("\n".join(f"the {a} {b}" for a in KNOWN for b in KNOWN) + "\n")
    build([folder / "text.txt"], NgramConfig(order=2), files.lm)
    lexicon = read_lexicon(files.lexicon)
    tokenizer = PhoneTokenizer(lexicon.symbols, lexicon, fallback="nothing")
    key = TuningKey(lm=file_digest(files.lm), lexicon=file_digest(files.lexicon))
    tunings = (Tuning(key=TuningKey(lm="another")), Tuning(weights=WEIGHTS, key=key))
    shape = encoder_config(width=4, depth=1, channels=2)
    settings = ModelSettings(FeatureConfig(n_mels=20), shape, tokenizer, "english", tunings=tunings)
    save_release(files.path, AcousticModel(settings), {})
    return folder


def file_dtypes(path: Path) -> set[str]:
    """The precisions of the weights in a file."""
    with safe_open(path, framework="np") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a dict)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "my text.txt"
    path.write_text("\n".join([*LINES, "The pump of 2024 opens.", "The house."]) + "\n")
    return path


def test_text_and_words_become_a_model(source: Path, text: Path, tmp_path: Path, run: Run) -> None:
    """A folder whose language model, lexicon and weights do not belong together; a word that is lost."""
    out, words = tmp_path / "mine", tmp_path / "words.txt"
    words.write_text("Jet\nvalve\n")
    status, printed, said = run("adapt", source, "--text", text, "--words", words, "-o", out)
    assert status == 0, said
    assert "text: 11 lines, 70 words\n" in printed
    weights = dict(re.findall(r"(\S+) (\d\.\d\d)(?:, |$)", re.search(r"^weights: (.*)$", printed, re.M)[1]))
    assert [*weights] == [str(source), "text", "words"]
    assert sum(map(float, weights.values())) == pytest.approx(1, abs=0.011)
    assert "words: 3 added, 3 of them by letter-to-sound (flange, of, jet)" in printed
    assert "left out: 1 (2024)" in printed
    assert "decoding weights: those of the model before" in printed
    files = find_model(out)
    assert files == ModelFiles.of_folder(out)
    assert files.lm
    assert files.lexicon
    lexicon = read_lexicon(files.lexicon)
    assert lexicon.entries["flange"] == (tuple("flange"),)
    assert lexicon.entries.items() > read_lexicon(source / "lexicon.txt.xz").entries.items()
    assert (out / "words.txt").read_text().startswith("jet\tj e t\t# letter-to-sound\n")
    lm = NgramModel.load(files.lm)
    assert {"flange", "jet", "of", "tree"} < lm.ids.keys()
    assert "2024" not in lm.ids
    assert file_dtypes(files.path) == file_dtypes(source / "acoustic.safetensors") == {"I8", "F32", "F16"}
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    status, _, said = run("transcribe", tmp_path / "noise.wav", "--model", out)
    assert status == 0, said
    assert f"language model {files.lm}, lexicon {files.lexicon}; lm-weight 0.7, word-bonus 0.3" in said
    assert "tuned, with another language model" in said


def test_words_without_a_text(source: Path, tmp_path: Path, run: Run) -> None:
    """Names that can only be given together with ten sentences; a word that the model would never choose."""
    out, words = tmp_path / "mine", tmp_path / "words.txt"
    words.write_text("Jet\nvalve\n")
    status, printed, said = run("adapt", source, "--words", words, "-o", out)
    assert status == 0, said
    assert f"weights: {source} 0.9998, words 0.0002\n" in printed
    assert "perplexity" not in printed
    assert "words: 1 added, 1 of them by letter-to-sound (jet)" in printed
    assert {"jet", "valve", "tree"} < NgramModel.load(out / "lm.bin").ids.keys()
    words.write_text("2024\n")
    status, _, said = run("adapt", source, "--words", words, "-o", out)
    assert (status, "words.txt: no word that can be pronounced" in said) == (2, True)
    assert "neither --text nor --words" in run("adapt", source, "-o", out)[2]


def test_corrections_are_taken(source: Path, text: Path, tmp_path: Path, run: Run) -> None:
    """A list that is corrected in vain, and a word that already had a pronunciation."""
    out = tmp_path / "mine"
    assert run("adapt", source, "--text", text, "-o", out)[0] == 0
    listed = out / "words.txt"
    listed.write_text(listed.read_text().replace("f l a n g e", "f l a n j") + "the\tt e\nzest\tz e s t\n")
    status, printed, said = run("adapt", source, "--text", text, "-o", out, "--lexicon", listed)
    assert status == 0, said
    assert "words: 4 added, 0 of them by letter-to-sound" in printed
    assert "check them" not in printed
    entries = read_lexicon(out / "lexicon.txt.xz").entries
    assert [entries[word] for word in ("flange", "the", "zest")] == [
        (tuple("flanj"),), (tuple("te"),), (tuple("zest"),),
    ]  # fmt: skip
    assert "flange\tf l a n j\t# given\n" in listed.read_text()
    listed.write_text("flange\tf l XX\n")
    status, _, said = run("adapt", source, "--text", text, "-o", out, "--lexicon", listed)
    assert (status, "'flange' is spelled with 'XX'" in said) == (2, True)


def test_commands_of_the_page(
    source: Path, text: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that a user copies from docs/decoding.md, and that fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SHIPPED_MODELS, "english", ModelFiles.of_folder(source, "english", 100))
    text.rename("my.txt")
    Path("my-words.txt").write_text("jet\n")
    soundfile.write("talk.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    page = (Path(__file__).parents[2] / "docs" / "decoding.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S) if "asr adapt" in one)
    for line in block.splitlines():
        status, _, said = run(*line.split()[1:])
        assert status == 0, (line, said)


def test_what_cannot_be_adapted(source: Path, text: Path, tmp_path: Path, run: Run) -> None:
    """A model that loses its files, or a traceback."""
    for model, out, message in (
        (source / "acoustic.safetensors", tmp_path / "a", "is an acoustic model alone. Expected"),
        (source, source, "would overwrite the model"),
        (source, text, "is a file. Name a folder"),
        (tmp_path, tmp_path / "a", "is a folder. Expected a model file"),
    ):
        status, _, said = run("adapt", model, "--text", text, "-o", out)
        assert (status, said.count("\n")) == (2, 1), said
        assert message in said
    (tmp_path / "acoustic.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is a folder without lm\.bin"):
        find_model(tmp_path)
