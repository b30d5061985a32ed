"""Transcripts in, token ids out: the named rules of normalisation, and the alphabet of a model."""
