"""Transcripts in, token ids out: normalisation, tokenizers, pronunciations."""
