"""The compiled part of the beam search.

`steps` takes the beam through the steps of an utterance: it extends prefixes (`prefixes`, `lexicon_tree`) and
keeps the best (`recombination`). `arena` stores the prefixes, `ends` scores how they end.
"""
