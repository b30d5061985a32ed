"""Gradients through time: measured, explained, drawn."""
