"""Hypotheses and references in, word and character error rates out.

Where to read: `wer` counts errors, and `evaluation` runs a model over a manifest for that. `significance`
says how sure a rate is, `pair` whether two systems differ by chance (`asr compare`). `results` writes a score
as text and JSON, `breakdown` finds where its errors are. `tuning` chooses decoding weights (`asr tune`), by
`objective` and `weight_search`. `system_table` is a table of systems; `decoder_comparison` fills one with
decoders.
"""
