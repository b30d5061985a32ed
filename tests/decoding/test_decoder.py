"""Decoders from the command line: which one is used, with which weights, and what is reported."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.decoding import open_vocabulary
from asr.decoding.resources import data_digest
from asr.files import file_digest
from asr.frontend.features import FeatureConfig
from asr.lm.charrnn import CharRnn, CharRnnModel, load_charrnn, save_charrnn
from asr.lm.ngram.model import NgramModel
from asr.manifests.manifest import read_manifest
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.decoding_weights import DecodingWeights, Tuning, TuningKey
from asr.model.encoder import EncoderConfig
from asr.model.saved import load_model, save_model, store_tuning
from asr.text.phones import PhoneTokenizer
from tests.shapes import charrnn_config

pytestmark = pytest.mark.usefixtures("no_pages")

Run = Callable[..., tuple[int, str, str]]

ARPA = """\\data\\
ngram 1={ones}
ngram 2=2

\\1-grams:
-99\t<s>\t-0.3
-0.7\t</s>
-1.5\t<unk>
{words}

\\2-grams:
-0.2\t<s> {first}
-0.1\t{first} </s>

\\end\\
"""


def arpa(path: Path, words: Sequence[str]) -> Path:
    """A bigram model that prefers its first word, alone in a sentence."""
    lines = "\n".join(f"-1.0\t{word}\t-0.2" for word in words)
    path.write_text(ARPA.format(ones=len(words) + 3, words=lines, first=words[0]))
    return path


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    """Words of the language of tones; "cub", which does not occur, is none of its letters."""
    return arpa(
        tmp_path / "words.arpa", ["cab", "ab", "c", "a", "b", "bb", "abcabc", "ac", "bca", "cc", "aa"]
    )


def test_beam_finds_what_is_said(tones: Any, run: Run) -> None:
    """A beam search that is asked for and not used, or whose results go to other files."""
    status, out, err = run("transcribe", *tones.files, "--model", tones.model, "--decoder", "beam")
    assert (status, out.splitlines()) == (0, list(tones.texts.values()))
    assert "decoder: beam of 100, no language model; word-bonus 0, prior-weight 0," in err


def test_nbest_has_scores_apart(tones: Any, lm: Path, run: Run) -> None:
    """Alternatives that are missing, out of order, or whose score is not the sum of its parts."""
    status, out, _ = run(
        "transcribe", *tones.files[:2], "--model", tones.model, "--lm", lm, "--rescore", "--nbest", 3,
        "--format", "json", "--lm-weight", 0.7, "--word-bonus", 0.25,
    )  # fmt: skip
    assert status == 0
    for line, expected in zip(out.splitlines(), tones.texts.values(), strict=False):
        row = json.loads(line)
        assert row["text"] == row["nbest"][0]["text"] == expected
        assert 1 < len(row["nbest"]) <= 3
        scores = [found["score"] for found in row["nbest"]]
        assert scores == sorted(scores, reverse=True)
        for found in row["nbest"]:
            assert found["lm_log_prob"] < 0
            parts = found["acoustic_score"] + 0.7 * found["lm_log_prob"] + 0.25 * len(found["text"].split())
            assert found["score"] == pytest.approx(parts, abs=3e-3)


def test_nbest_needs_json(tones: Any, run: Run) -> None:
    """More lines than files, or alternatives that are asked for and not shown."""
    status, out, err = run("transcribe", tones.files[0], "--model", tones.model, "--nbest", 2)
    assert (status, out) == (2, "")
    assert err.startswith("error: --nbest 2 --format txt: text has one line per file.")


def test_untuned_weights_are_said_to_be_so(tones: Any, model: Path, lm: Path, run: Run) -> None:
    """A score with weights that are not reported."""
    status, out, err = run("evaluate", tones.manifest, "--model", model, "--lm", lm, "--rescore")
    assert status == 0
    assert f"Decoder: beam of 100, language model {lm}, which rescores" in out
    assert "Weights: lm-weight 0.5, word-bonus 0, " in out
    assert "defaults, not tuned" in out
    assert f"`asr tune DEV --model {model} --lm {lm} --rescore` on other" in err
    words = lm.with_name("words.txt")
    words.write_text("cab\nab\n")
    only = ("--lexicon", words, "--beam.unknown-words", "forbid")
    _, _, err = run("evaluate", tones.manifest, "--model", model, "--lm", lm, *only)
    assert f"--lm {lm} --lexicon {words} --beam.unknown-words forbid` on other" in err


def test_greedy_has_no_weights(tones: Any, run: Run) -> None:
    """A line about weights where there are none."""
    _, out, _ = run("evaluate", tones.manifest, "--model", tones.model)
    assert "\nDecoder: greedy\n" in out
    assert "Weights" not in out


def test_tuned_weights_are_used_and_named(tones: Any, model: Path, lm: Path, run: Run) -> None:
    """Tuned weights that are stored and not used, used for another language model, or not overridden."""
    utterances = read_manifest(tones.manifest)
    tuning = Tuning(
        weights=DecodingWeights(lm_weight=1.25, word_bonus=-0.5),
        key=TuningKey(lm=file_digest(lm), rescore=True), priors=(0.2,) * 5,
        manifest="dev.jsonl", data="other", utterances=12, errors=3, words=40, beam_size=100,
        date="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    store_tuning(model, tuning)
    ask = ("evaluate", tones.manifest, "--model", model, "--lm", lm, "--rescore")
    _, out, err = run(*ask)
    assert "Weights: lm-weight 1.25, word-bonus -0.5, prior-weight 0" in out
    assert "tuned on dev.jsonl (12 utterances, 7.50% there with a beam of 100) at 2026-01-02" in out
    assert "warning" not in err
    _, out, err = run(*ask, "--lm-weight", 0.75)
    assert "Weights: lm-weight 0.75, word-bonus -0.5," in out
    assert "tuned (except lm-weight, given) on dev.jsonl" in out
    other = arpa(lm.with_name("other.arpa"), ["ab", "cab", "c"])
    _, out, err = run(*ask[:-3], "--lm", other, "--rescore")
    assert "lm-weight 1.25" in out
    assert "tuned, with another language model on dev.jsonl" in out
    assert "warning: the weights are not tuned for this model and language model" in err
    _, out, _ = run(*ask[:-1])  # another kind of search
    assert "lm-weight 0.5" in out
    assert "defaults, not tuned" in out
    store_tuning(model, replace(tuning, data=data_digest(utterances)))
    _, _, err = run(*ask)
    assert "warning: the weights were tuned on these utterances (dev.jsonl)" in err
    assert len(load_model(model).settings.tunings) == 1


def test_contradictions(tones: Any, lm: Path, run: Run) -> None:
    """A setting that cannot act and is passed over in silence."""
    for options, complaint in (
        (["--decoder", "greedy", "--lm", lm], "--decoder greedy takes no --lm."),
        (["--decoder", "greedy", "--word-bonus", 1], "--decoder greedy takes no --word-bonus."),
        (["--beam.beam-size", 5], "--beam.beam-size is 5, but decoding is greedy. Leave it out, or add"),
        (
            ["--decoder", "greedy", "--beam.unknown-words", "forbid"],
            "--beam.unknown-words is forbid, but decoding is greedy.",
        ),
        (["--beam.no-recombine"], "--beam.recombine is False, but decoding is greedy."),
        (["--hotwords", "cab:inf"], "--hotwords cab:inf: the boost is inf."),
        (["--rescore"], "--rescore is given, but no language model."),
        (["--rescore-weight", 1], "--rescore-weight is given, but no language model. Name one: --rescore-lm"),
        (["--lm", lm, "--rescore", "--rescore-lm", lm], "--rescore and --rescore-lm are given."),
        (["--rescore-lm", lm], "--rescore-lm is given without --lm, whose search it rescores. Name both"),
        (["--word-bonus", 1000], "--word-bonus must be in -100..100. Got 1000."),
        (["--lm-weight", 1], "--lm-weight is given, but no language model."),
        (["--hotwords", "cab:much"], "--hotwords cab:much: 'much' is not a number."),
        (["--hotwords", ":3"], "--hotwords :3: there is no word."),
        (["--prior-weight", 0.3], "--prior-weight 0.3: the model's mean posteriors are not known yet."),
        (["--beam.beam-size", 0, "--decoder", "beam"], "--beam.beam-size must be at least 1. Got 0."),
        (["--lm", lm.parent], "is a folder. Expected a language model's file"),
        (["--lm", lm.with_name("none.arpa")], "none.arpa"),
        (["--lexicon", lm.with_name("none.txt")], "none.txt: cannot be read"),
    ):
        status, out, err = run("transcribe", tones.files[0], "--model", tones.model, *options)
        assert (status, out) == (2, ""), options
        assert err.startswith("error: "), err
        assert complaint in err, err
        assert err.count("\n") == 1, err


def test_language_model_in_another_case(tones: Any, tmp_path: Path, run: Run) -> None:
    """A language model in upper case and a model in lower case: every word is unknown, without a message."""
    upper = arpa(tmp_path / "upper.arpa", ["CAB", "AB", "C"])
    status, _, err = run("transcribe", tones.files[0], "--model", tones.model, "--lm", upper, "--rescore")
    assert status == 2
    assert err.startswith(f"error: --lm {upper}: the language model is in upper case")


def test_a_lexicon_is_all_that_is_written(tones: Any, tmp_path: Path, run: Run) -> None:
    """A vocabulary that is read and not kept to; a mere list of words refused for want of phones."""
    words = tmp_path / "words.txt"
    words.write_text("cab\nabc\nc\n")
    ask = ["transcribe", *tones.files[:2], "--model", tones.model, "--lexicon", words]
    status, out, err = run(*ask, "--beam.unknown-words", "forbid")
    assert status == 0, err
    first, second = out.splitlines()
    assert set(first.split()) <= {"cab", "abc", "c"}
    assert first != "ab c"
    assert second == "cab"
    words.write_text("\n")
    status, _, err = run(*ask)
    assert (status, "words.txt: holds no word." in err) == (2, True)


def test_a_lexicon_spells_the_words_of_a_language_model(tones: Any, tmp_path: Path, run: Run) -> None:
    """Words that the lexicon spells, refused because the letters of their names are not the model's."""
    upper = arpa(tmp_path / "upper.arpa", ["CAB", "AB", "C"])
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("CAB c a b\nAB a b\nC c\n")
    ask = ["transcribe", *tones.files[:2], "--model", tones.model, "--lm", upper]
    status, out, err = run(*ask, "--lexicon", lexicon)
    assert (status, out) == (0, "AB C\nCAB\n"), err
    assert "cannot be written" not in err
    status, _, err = run(*ask)
    assert status == 2
    assert "the language model is in upper case, the acoustic model's text is in lower case" in err


def test_words_that_cannot_be_written_are_named_once(tones: Any, tmp_path: Path, run: Run) -> None:
    """A warning of which there are two looks like two things that are wrong."""
    some = arpa(tmp_path / "some.arpa", ["cab", "ab", "c", "zeta"])
    for options in ([], ["--rescore"]):
        status, _, err = run("transcribe", tones.files[1], "--model", tones.model, "--lm", some, *options)
        assert status == 0
        assert err.count("1 of 4 words of the language model cannot be written with the tokens") == 1


def test_hot_words_change_what_is_written(tones: Any, run: Run) -> None:
    """Boosts that are parsed and ignored: a very large one must win against the sound."""
    ask = ["transcribe", tones.files[1], "--model", tones.model, "--hotwords"]
    assert run(*ask, "abc:0.1")[1] == "cab\n"
    assert "cabb" in run(*ask, "cabb:60")[1]


def test_a_character_model_in_the_search(tones: Any, tmp_path: Path, run: Run) -> None:
    """A language model of characters taken for one of words: nothing would be in its vocabulary."""
    text = tmp_path / "text.txt"
    text.write_text("ab c\ncab\nbb\n" * 4)
    lm = tmp_path / "chars.bin"
    assert run("lm", "train", text, "--order", 3, "--unit", "character", "-o", lm)[0] == 0
    status, out, err = run(
        "transcribe", *tones.files[:2], "--model", tones.model, "--lm", lm, "--format", "json"
    )
    assert status == 0, err
    check_language_model(out, NgramModel.load(lm), 0.5)


def check_language_model(out: str, lm: Any, weight: float) -> None:
    """Whether the model's own log-probabilities of the texts are in the scores."""
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["text"] for row in rows] == ["ab c", "cab"]
    for row in rows:
        assert row["lm_log_prob"] == pytest.approx(float(lm.log_probs(row["text"]).sum()), abs=2e-3)
        assert row["score"] == pytest.approx(row["acoustic_score"] + weight * row["lm_log_prob"], abs=3e-3)


def test_a_character_network_in_the_search(tones: Any, tmp_path: Path, run: Run) -> None:
    """The network beside the compiled search, from its file to the text, and again as rescorer."""
    torch.manual_seed(0)
    lm = tmp_path / "network.safetensors"
    save_charrnn(lm, CharRnn((" ", "a", "b", "c"), charrnn_config(width=8, depth=1)), {})
    ask = ["transcribe", *tones.files[:2], "--model", tones.model, "--lm", lm, "--lm-weight", 0.1]
    for options in ([], ["--rescore"]):
        status, out, err = run(*ask, *options, "--format", "json")
        assert status == 0, err
        check_language_model(out, CharRnnModel(load_charrnn(lm)), 0.1)


def test_an_ngram_in_the_search_and_a_network_after_it(
    tones: Any, tmp_path: Path, lm: Path, run: Run
) -> None:
    """A second language model that is read and not used, or replaces the first one."""
    torch.manual_seed(0)
    network = tmp_path / "network.safetensors"
    save_charrnn(network, CharRnn((" ", "a", "b", "c"), charrnn_config(width=8, depth=1)), {})
    ask = ["transcribe", tones.files[0], "--model", tones.model, "--lm", lm, "--rescore-lm", network]
    status, out, err = run(*ask, "--rescore-weight", 0.3, "--nbest", 3, "--format", "json")
    assert status == 0, err
    assert f"rescored by {network}" in err
    row = json.loads(out)
    words, characters = NgramModel.load(lm), CharRnnModel(load_charrnn(network))
    assert len(row["nbest"]) == 3
    for one in [row, *row["nbest"]]:
        in_vocabulary = [word in words.ids for word in one["text"].split()]
        first, second = one["lm_log_prob"], one["rescore_lm_log_prob"]
        assert first == pytest.approx(float(words.log_probs(one["text"]).sum()), abs=2e-3)
        assert second == pytest.approx(float(characters.log_probs(one["text"]).sum()), abs=2e-3)
        if all(in_vocabulary):
            language = 0.5 * (0.7 * first + 0.3 * second)
            assert one["score"] == pytest.approx(one["acoustic_score"] + language, abs=3e-3)


def test_phones_become_words(tones: Any, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phones scored as words, or words as phones; a language model that phones cannot be compared with; a
    lexicon with stress marks, which no model of phones without them could use."""
    torch.manual_seed(0)
    tokenizer = PhoneTokenizer.from_texts(["cab"])
    settings = ModelSettings(
        FeatureConfig(n_mels=20), EncoderConfig(width=4, depth=1, channels=2), tokenizer, "english"
    )
    path = tmp_path / "phones.safetensors"
    save_model(path, AcousticModel(settings), {})
    lm = arpa(tmp_path / "real.arpa", ["cab", "see", "bee"])
    ask = ["evaluate", tones.manifest, "--model", path, "--out", tmp_path / "out"]
    status, out, err = run(*ask, "--lm", lm)
    assert status == 0, err
    assert out.startswith("%WER ")
    assert " / 19, " in out
    assert run(*ask)[1].startswith("%PER ")
    lexicon = tmp_path / "stressed.txt"
    lexicon.write_text("cab\t1.0\tK AE1 B\nsee\t1.0\tS IY0\nBEE(2)\t0.5\tB IY1\n")
    monkeypatch.setattr(open_vocabulary, "MIN_WORDS", 3)
    status, out, err = run(*ask, "--lm", lm, "--lexicon", lexicon, "--open-vocabulary")
    assert status == 0, err
    assert "stressed.txt: stress marks are left out, which the model's phones do not have" in err
    assert "learning letter-to-sound from 3 words" in err
    assert "open vocabulary\n" in out
    assert " utterances with words outside the vocabulary: %WER " in out
    for options in (["--lm", lm, "--rescore"], ["--lm", arpa(tmp_path / "c.arpa", ["a", "<space>", "b"])]):
        status, _, err = run(*ask, *options)
        assert status == 2
        assert "error: --lm " in err
        assert "the model writes phones, which this language model cannot score. Name a lexicon" in err


def test_second_opinion(tones: Any, model: Path, lm: Path, tmp_path: Path, run: Run) -> None:
    """The whole way: a decoder is trained on the frozen encoder, its share is tuned and stored, it rescores,
    and writes alone; without the option the model decodes as before."""
    run_dir = tmp_path / "run"
    status, _, err = run(
        "train", tones.manifest, "--dev", tones.manifest, "--train.warm-start", model, "--train.freeze",
        "front", "recurrent", "output", "--model.attention-decoder", "dot", "--model.decoder-width", 24,
        "--model.decoder-dropout", 0, "--train.run-dir", run_dir, "--train.epochs", 3,
        "--train.learning-rate", 0.02, "--train.precision", "float32", "--augment.speeds", 1.0,
        "--batch.cache-dir", tmp_path / "features", "--batch.workers", 0,
    )  # fmt: skip
    assert status == 0, err
    both = run_dir / "model.safetensors"
    ask = ("--model", both, "--lm", lm)
    grid = ("--grid.lm-weights", 0.5, "--grid.word-bonuses", 0, "--grid.refinements", 0)
    assert run("tune", tones.manifest, *ask, *grid, "--rescore-attention")[0] == 0
    (tuning,) = load_model(both).settings.tunings
    assert tuning.key.attention
    points = run_dir / "model.words.attention.tuning" / "points.jsonl"
    tried = {json.loads(line)["attention_weight"] for line in points.read_text().splitlines()}
    assert tried == {0.0, 0.1, 0.2, 0.3, 0.5, 0.7}
    _, out, _ = run("evaluate", tones.manifest, *ask, "--rescore-attention")
    assert ", rescored by the attention decoder" in out
    assert f"attention-weight {tuning.weights.attention_weight:g}" in out
    assert ": tuned on" in out
    share = ("--rescore-attention", "--attention-weight", 0.4, "--nbest", 3, "--format", "json")
    _, out, _ = run("transcribe", tones.files[0], *ask, *share)
    for found in json.loads(out)["nbest"]:
        parts = 0.6 * found["acoustic_score"] + 0.4 * found["attention_score"] + 0.5 * found["lm_log_prob"]
        assert found["attention_score"] < 0
        assert found["score"] == pytest.approx(parts, abs=3e-3)
    same = [run("transcribe", *tones.files, *options)[1] for options in (("--model", model), ask[:2])]
    assert same[0] == same[1]
    status, out, err = run("evaluate", tones.manifest, "--model", both, "--decoder", "attention")
    assert "\nDecoder: attention decoder, beam of 1\n" in out
    assert status == 0, err
    assert "%WER " in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rescore-attention"], "--rescore-attention: the model has no attention decoder. Train one"),
        (["--decoder", "attention"], "--decoder attention: the model has no attention decoder. Train one"),
        (["--attention-weight", 0.5], "--attention-weight is given, but no attention decoder rescores. Add"),
        (
            ["--decoder", "attention", "--rescore-attention"],
            "--decoder attention takes no --rescore-attention",
        ),
        (
            ["--decoder", "attention", "--beam.token-top", 3],
            "--beam.token-top is 3, but decoding is by the att",
        ),
    ],
)
def test_no_second_opinion(tones: Any, run: Run, options: list[object], message: str) -> None:
    """Options that would be ignored; a share that is none."""
    status, _, err = run("transcribe", tones.files[0], "--model", tones.model, *options)
    assert status == 2
    assert err.startswith(f"error: {message}")
