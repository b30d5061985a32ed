"""Log-probabilities in, hypotheses out.

Where to read: `greedy` is the simplest decoder. `beam_decoder` decodes a batch by prefix beam search,
`beam_search` one utterance, `kernel.steps` one step of it. `fusion` prepares the language model, vocabulary
and hot words that the steps use. `lattice` and `alignment` turn the final beam into hypotheses, `confidence`
gives their words posteriors, and `rescoring` ranks them by a second language model. `interface` says what
all decoders have in common; `decoder` builds the one that a command line asks for.
"""
