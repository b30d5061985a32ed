"""N-gram language models: text is counted, smoothed, pruned and packed."""
