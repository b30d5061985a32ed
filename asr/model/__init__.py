"""Frames in, log-probabilities out."""
