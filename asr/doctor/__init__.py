"""The doctor: what is wrong with manifests, their recordings and their transcripts, before training."""
