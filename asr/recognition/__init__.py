"""A model run over recordings: audio in, transcripts or log-probabilities out.

Where to read: `recognise` runs a model over segments, in batches, while threads read the next ones.
`long_audio` cuts recordings of any length into segments for it, and `joining` puts together what was found;
that is `asr transcribe`, and from Python `transcription`. `streaming` takes audio while it is spoken.
`emissions` keeps log-probabilities that are decoded many times; `long_emissions` has those of recordings of
any length, to which `aligning` and `text_alignment` align a text, and which `cutting` makes utterances of.

A *recording* is what the user has named: a file, or a part or channel of it. A *segment* is what the model
takes at once: a short recording, or a part of a long one.
"""
