"""The compiled part of the beam search."""
