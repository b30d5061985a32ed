"""What `import asr` gives: these names and no others, at no cost until they are used."""

import subprocess
import sys
import typing
from pathlib import Path

import pytest

import asr

NAMES = {
    "AsrError", "AugmentConfig", "BatchConfig", "BeamConfig", "DecoderSettings", "EncoderConfig",
    "EndpointConfig", "FeatureConfig", "Hypothesis", "Model", "RecognitionStream", "Score",
    "SegmentationConfig", "StreamConfig", "StreamResult", "TextConfig", "TrainConfig", "Transcript", "Word",
    "__version__", "load", "score",
}  # fmt: skip


def test_names() -> None:
    """A public name that disappears, or that is public by mistake; one that cannot be imported."""
    assert set(asr.__all__) == NAMES
    for name in NAMES - {"__version__"}:
        value = getattr(asr, name)
        assert value.__name__ == name
        assert value.__doc__
        typing.get_type_hints(value)  # a type that does not exist
    assert set(dir(asr)) >= NAMES
    with pytest.raises(AttributeError, match="module 'asr' has no attribute 'transcribe'"):
        _ = asr.transcribe  # type: ignore[attr-defined]


def test_import_is_light() -> None:
    """`asr --help` that waits for torch."""
    code = "import asr, sys; print({'torch', 'numpy', 'tyro', 'jiwer'} & sys.modules.keys())"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "set()\n"
    code = "import asr, sys; asr.AsrError; print('torch' in sys.modules)"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "False\n"


def test_score() -> None:
    """The example of the documentation; a single text scored letter by letter."""
    result = asr.score(["stand in the ice box"], ["stand in an ice box"])
    assert result.wer == 0.2
    assert result.cer == pytest.approx(3 / 20)
    assert result.wer_line() == "%WER 20.00 [ 1 / 5, 0 ins, 0 del, 1 sub ]"
    result = asr.score(["the cat sat"], ["the bat sat down"])
    assert result.wer_line() == "%WER 66.67 [ 2 / 3, 1 ins, 0 del, 1 sub ]"
    assert result.utterances[0].operations == "CSCI"
    assert asr.score(["A b"], ["a b"], normalizer="lower").wer == 0
    assert [row.id for row in asr.score(["a", "b"], ["a", "b"]).utterances] == ["1", "2"]
    with pytest.raises(asr.AsrError, match="a single text was given"):
        asr.score("abc", "abd")


def test_examples_of_the_docstrings() -> None:
    """An example that nobody has tried: those of `asr` and of `asr.score` are the ones tested above."""
    examples = asr.__doc__ or ""
    assert "asr.load(" in examples
    assert 'asr.score(["stand in the ice box"], ["stand in an ice box"]).wer' in examples
    assert 'asr.score(["the cat sat"], ["the bat sat down"])' in (asr.score.__doc__ or "")
    assert Path(asr.__file__).with_name("py.typed").is_file()
