"""What is fused into a beam search: language model, vocabulary, hot words."""
