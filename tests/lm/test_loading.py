"""A language model of any kind from its file."""

from pathlib import Path

import pytest

from asr.errors import ModelError
from asr.lm.charrnn import CharRnn, CharRnnModel, save_charrnn
from asr.lm.loading import load_language_model
from asr.lm.ngram.model import NgramModel
from asr.lm.wordrnn import Vocabulary, WordRnn, WordRnnModel, save_wordrnn
from tests.shapes import charrnn_config, wordrnn_config

ARPA = """\\data\\
ngram 1=4

\\1-grams:
-1.0\t<unk>
-99\t<s>
-0.5\t</s>
-0.3\tyes

\\end\\
"""


def test_each_kind_is_told_by_its_file(tmp_path: Path) -> None:
    """A user names a file and no kind; the kinds must not be mixed up."""
    arpa = tmp_path / "lm.arpa"
    arpa.write_text(ARPA)
    assert isinstance(load_language_model(arpa), NgramModel)
    network = tmp_path / "lm.safetensors"
    save_charrnn(network, CharRnn(("a",), charrnn_config(width=4, depth=1, embedding=2)), {})
    assert isinstance(load_language_model(network), CharRnnModel)
    save_wordrnn(network, WordRnn(Vocabulary(("a",), 1), wordrnn_config(width=16, embedding=2)), {})
    assert isinstance(load_language_model(network), WordRnnModel)
    with pytest.raises(ModelError, match="is a folder"):
        load_language_model(tmp_path)
    with pytest.raises(ModelError, match=r"missing\.bin"):
        load_language_model(tmp_path / "missing.bin")
