"""The compiled part of the beam search.

`steps` takes the beam through the steps of an utterance: it extends prefixes (`proposals`
along the `lexicon_tree`, scored by `prefixes`) and keeps the best (`recombination`). `arena` stores the
prefixes.
"""
