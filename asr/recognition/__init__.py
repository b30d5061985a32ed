"""A model run over recordings: audio in, transcripts or log-probabilities out."""
