"""Log-probabilities in, hypotheses out."""
