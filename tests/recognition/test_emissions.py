"""Emissions: a model's output computed once, stored, recognised, and decoded like the model itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from asr.decoding.greedy import GreedyDecoder
from asr.manifests.manifest import read_manifest
from asr.model.saved import load_model
from asr.recognition.emissions import cached_emissions, compute_emissions


def test_decoded_as_the_model_itself(tones: Any) -> None:
    """Utterances that change their order in the sorted batches, or padding that is kept as steps."""
    model = load_model(tones.model)
    emissions = compute_emissions(model, read_manifest(tones.manifest), 3.0)
    found = list(emissions.decode(GreedyDecoder(model.settings.tokenizer)))
    assert [one[0].text for one in found] == list(tones.texts.values())
    priors = emissions.mean_posteriors()
    every = torch.cat(emissions.log_probs).double().exp()
    assert priors == pytest.approx(every.mean(0).numpy())
    assert len({len(row) for row in emissions.log_probs}) > 1


def test_kept_ones_are_used_only_where_they_belong(
    tones: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Emissions of another model or of other utterances taken for those asked for; a damaged file fatal."""
    caplog.set_level("INFO", "asr")
    model, utterances = load_model(tones.model), read_manifest(tones.manifest)
    path = tmp_path / "deep" / "e.safetensors"
    first = cached_emissions(path, model, utterances, 60.0)
    again = cached_emissions(path, model, utterances, 60.0)
    assert "8 utterances, computed before" in caplog.text
    assert first.key == again.key
    assert all(torch.equal(a, b) for a, b in zip(first.log_probs, again.log_probs, strict=True))
    fewer = cached_emissions(path, model, utterances[1:], 60.0)
    assert len(fewer.log_probs) == 7
    assert fewer.key != first.key
    with torch.no_grad():
        model.encoder.output.weight.mul_(0.5)
    assert cached_emissions(path, model, utterances[1:], 60.0).key != fewer.key
    path.write_bytes(b"damaged")
    assert len(cached_emissions(path, model, utterances, 60.0).log_probs) == 8
    assert caplog.text.count("computed again") == 3
