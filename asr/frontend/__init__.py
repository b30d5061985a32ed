"""Waveform in, log-mel frames out.

Where to read: `recordings` decodes files, `audio` makes mono samples at the model's rate of them, `features`
log-mel frames of those, normalised; `feature_stream` does this block by block. `augment` is what training
does to recordings. `voice_activity` finds speech: `segmentation` cuts long recordings by it, `endpointing` a
stream into utterances, which comes from `microphone` or `pcm`.
"""
