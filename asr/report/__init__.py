"""The page about an evaluation: a score with its errors to read, see and hear."""
