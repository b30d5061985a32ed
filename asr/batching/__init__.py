"""Utterances in, padded batches out."""
