"""Hypotheses and references in, word and character error rates out."""
