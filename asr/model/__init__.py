"""Frames in, log-probabilities out.

Where to read: `acoustic.AcousticModel` normalises features and runs `encoder.Encoder` on them: convolutions,
the layers of `recurrent`, an output layer. Its losses are in `loss`, its attention decoder is
`recurrent_decoder.RecurrentDecoder`. `acoustic_stream` runs it block by block, `saved` writes and reads it,
`shipped` finds the models of this package. The networks that pronounce words are in `sequence`.
"""
