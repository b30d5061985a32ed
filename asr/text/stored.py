"""The tokenizer in a saved model, of whichever kind it is."""

import json

from asr.errors import ModelError
from asr.text.tokenizer import CharTokenizer, Tokenizer

__all__ = ["tokenizer_from_json"]


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer that some `to_json` wrote.

    Raises:
        ModelError: the text is not such a record.
    """
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ModelError(
            f"the stored tokenizer is not JSON ({error}). The model file may be damaged."
        ) from None
    kind = record.get("type") if isinstance(record, dict) else None
    if kind == "characters":
        return CharTokenizer.from_record(record)
    # Imported here, because a model of characters needs nothing of these.
    if kind == "bpe":
        from asr.text.bpe import BpeTokenizer

        return BpeTokenizer.from_record(record)
    if kind == "phones":
        from asr.text.phones import PhoneTokenizer

        return PhoneTokenizer.from_record(record)
    raise ModelError(
        f"the stored tokenizer is of type {kind!r}. Expected characters, bpe or phones. "
        "The model may come from a newer version of this package."
    )
