"""Recurrent layers: cells, layers of them, and the ways to run them over time."""
