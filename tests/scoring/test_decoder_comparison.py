"""Results of a comparison: kept by content, in words or phones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from asr.decoding.config import DecoderSettings
from asr.decoding.resources import DecodingResources
from asr.frontend.features import FeatureConfig
from asr.manifests.manifest import read_manifest
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig
from asr.model.saved import load_model
from asr.scoring.decoder_comparison import CorpusPart, DecoderComparison
from asr.scoring.weight_search import Grid
from asr.text.phones import PhoneTokenizer

Run = Callable[..., tuple[int, str, str]]


def comparison(model: AcousticModel, manifest: Path, folder: Path) -> DecoderComparison:
    utterances = read_manifest(manifest)
    dev = CorpusPart.of(folder / "dev.safetensors", model, utterances[:4], 60.0)
    test = CorpusPart.of(folder / "test.safetensors", model, utterances[4:], 60.0)
    return DecoderComparison(folder, model, dev, test, 8)


def test_results_are_kept_by_content(tones: Any, tmp_path: Path, run: Run) -> None:
    """A language model that is rewritten under the same name and gets its predecessor's score."""
    model, lm, text = load_model(tones.model), tmp_path / "lm.bin", tmp_path / "text.txt"
    one = comparison(model, tones.manifest, tmp_path)
    settings = DecoderSettings(lm=lm)

    def key(words: str, settings: DecoderSettings = settings, grid: Grid | None = None) -> list[str]:
        text.write_text(f"{words}\n" * 3)
        assert run("lm", "train", text, "--order", 2, "-o", lm)[0] == 0
        return one._key(DecodingResources.read(settings, model), settings, grid or Grid())

    first = key("ab c")
    assert key("ab c") == first
    assert key("cab") != first
    assert key("ab c", grid=Grid(refinements=1)) != first
    assert key("ab c", replace(settings, hotwords=("cab",))) != first
    changed = [replace(utterance, text="c") for utterance in one.test.utterances]
    other = replace(one, test=replace(one.test, utterances=changed))
    assert other._key(DecodingResources.read(settings, model), settings, Grid()) != first


def test_phones_have_a_phone_error_rate(tones: Any, tmp_path: Path) -> None:
    """Phones without a lexicon compared with words: more errors than words."""
    torch.manual_seed(0)
    tokenizer = PhoneTokenizer.from_texts(["cab"])
    settings = ModelSettings(
        FeatureConfig(n_mels=20), EncoderConfig(width=4, depth=1, channels=2), tokenizer, "english"
    )
    found = comparison(AcousticModel(settings), tones.manifest, tmp_path).system("greedy", None, Grid())
    assert found.scores[0].unit == "phones"
