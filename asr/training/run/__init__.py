"""A run: its folder, how it is resumed and stopped, and what it records of itself and of its faults."""
