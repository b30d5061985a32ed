"""Text in, a language model out."""
