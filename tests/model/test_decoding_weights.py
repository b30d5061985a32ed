"""Tuned weights as a saved model holds them: flat, and readable by older and newer versions."""

import json
from dataclasses import replace

import pytest

from asr.errors import ModelError
from asr.model.decoding_weights import (
    DecodingWeights,
    Tuning,
    TuningKey,
    closest_tuning,
    tunings_from_json,
    tunings_to_json,
)  # fmt: skip

# As version 0.1.0 stored it, before there were `rescore_weight`, penalties and hot words.
OLD = """{
    "lm_weight": 1.25, "word_bonus": 1.0, "prior_weight": 0.6, "acoustic_scale": 1.0, "blank_scale": 2.0,
    "lm": "8dcd", "lexicon": "0e52", "rescore": true, "unknown_words": "forbid", "priors": [0.5, 0.25],
    "manifest": "dev.jsonl", "data": "512c", "utterances": 249, "errors": 943, "words": 4101, "beam_size": 60,
    "date": "2026-11-27T22:39:18+00:00"
}"""


def test_a_record_of_an_older_version_is_read() -> None:
    """Guards models that were tuned before: every value where it belongs, new fields at their defaults."""
    [tuning] = tunings_from_json({"tunings": [json.loads(OLD)]})
    assert tuning == Tuning(
        weights=DecodingWeights(lm_weight=1.25, word_bonus=1.0, prior_weight=0.6, blank_scale=2.0),
        key=TuningKey(lm="8dcd", lexicon="0e52", rescore=True, unknown_words="forbid"),
        priors=(0.5, 0.25), manifest="dev.jsonl", data="512c", utterances=249, errors=943, words=4101,
        beam_size=60, date="2026-11-27T22:39:18+00:00",
    )  # fmt: skip
    assert tunings_from_json({}) == ()


def test_the_record_is_flat_and_complete() -> None:
    """Guards older versions, which read no nested record, and values that are lost on the way."""
    [tuning] = tunings_from_json({"tunings": [json.loads(OLD)]})
    [row] = json.loads(json.dumps(tunings_to_json((tuning,))))
    assert row.items() >= json.loads(OLD).items()
    assert not [name for name, value in row.items() if isinstance(value, dict)]
    assert tunings_from_json({"tunings": [row]}) == (tuning,)


@pytest.mark.parametrize("row", [{"lm_weight": 1.0, "mood": 2}, {"weights": {"lm_weight": 1.0}}, 3])
def test_unknown_fields_are_refused(row: object) -> None:
    """A weight that a newer version has tuned, and that this one would leave out in silence."""
    with pytest.raises(ModelError, match="unknown fields"):
        tunings_from_json({"tunings": [row]})


def test_the_closest_tuning_is_used() -> None:
    """A word added to a lexicon, or another language model, that takes all weights back to their defaults."""
    key = TuningKey(lm="8dcd", lexicon="0e52")
    english, digits = Tuning(key=key), Tuning(key=TuningKey(lexicon="77aa"))
    attention = Tuning(key=replace(key, attention=True))
    for asked, expected in (
        (key, (english, "")),
        (replace(key, hotwords="c0de"), (english, ", with other hot words")),
        (replace(key, lexicon="9999"), (english, ", with another lexicon")),
        (replace(key, lexicon="9999", hotwords="c0de"), (english, ", with another lexicon")),
        (replace(key, lm="9999"), (english, ", with another language model")),
        (replace(key, attention=True), (attention, "")),
        (TuningKey(lexicon="0e52"), (digits, ", with another lexicon")),
        (replace(key, rescore=True), (None, "")),
        (replace(key, unknown_words="forbid"), (None, "")),
        (replace(key, lm="", attention=True), (None, "")),
    ):
        assert closest_tuning([attention, digits, english], asked) == expected
    newer = replace(english, key=replace(key, lm="4f00"))
    assert closest_tuning([english, newer], replace(key, lm="9999"))[0] == newer
