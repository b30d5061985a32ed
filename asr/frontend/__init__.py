"""Waveform in, log-mel frames out."""
