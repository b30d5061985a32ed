"""`asr info`: what a model file says of itself."""

import json
from collections.abc import Callable
from typing import Any

Run = Callable[..., tuple[int, str, str]]


def test_a_trained_model(tones: Any, run: Run) -> None:
    """A number of another network; settings or an origin that are in the file and not on the screen."""
    status, out, err = run("info", tones.model)
    assert status == 0, err
    rows = dict(line.split("  ", 1) for line in out.splitlines() if "  " in line)
    assert rows["file"].strip() == str(tones.model)
    assert " M weights" in rows["network"]
    assert rows["tokens"].strip() == "4 characters: '  a b c'"
    assert rows["text rules"].strip() == "english"
    status, out, _ = run("info", tones.model, "--json")
    record = json.loads(out)
    assert {"features", "encoder", "tokenizer", "normalizer", "provenance"} <= record.keys()


def test_a_model_that_ships(run: Run) -> None:
    """A name that is taken for a path; a command to repeat a training that is not shown."""
    status, out, err = run("info", "english")
    assert status == 0, err
    assert "39 phones: 'AA AE" in out
    assert "tuned on" in out
    assert "commit " in out
    assert "; dev: 249 utterances" in out  # a part of the provenance is read, not parsed
    assert "{" not in out


def test_no_model(run: Run) -> None:
    """A traceback for a name with a slip."""
    status, _, err = run("info", "englsh")
    assert status == 2
    assert err.startswith("error: englsh: no such model.")
