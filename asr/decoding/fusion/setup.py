"""All that the searches of a decoder share."""

import math
from typing import NamedTuple

from asr.decoding.config import BeamConfig
from asr.decoding.fusion.prepared import PreparedResources
from asr.decoding.fusion.tables import build_tables
from asr.decoding.kernel.proposals import ScoreTables
from asr.decoding.kernel.steps import Pruning
from asr.text.tokenizer import Tokenizer

__all__ = ["SearchSetup", "build_setup"]


class SearchSetup(NamedTuple):
    """All that the searches of a decoder share; none of it changes while they run.

    Attributes:
        tokenizer: the model's.
        config: width and weights.
        prepared: language model, vocabulary and hot words, without weights.
        tables: what scores a prefix, with weights.
        pruning: what a search may leave out.
    """

    tokenizer: Tokenizer
    config: BeamConfig
    prepared: PreparedResources
    tables: ScoreTables
    pruning: Pruning


def build_setup(tokenizer: Tokenizer, config: BeamConfig, prepared: PreparedResources) -> SearchSetup:
    """What the searches with this config share.

    Args:
        tokenizer: the model's.
        config: width, weights and priors.
        prepared: for this tokenizer.

    Raises:
        ModelError: the priors do not fit.
    """
    tables = build_tables(prepared, config)
    return SearchSetup(tokenizer, config, prepared, tables, _build_pruning(config, tokenizer.vocab_size))


def _build_pruning(config: BeamConfig, vocab: int) -> Pruning:
    """What the search may leave out, as the kernel takes it.

    Args:
        config: of the search.
        vocab: number of tokens, blank included.
    """
    return Pruning(
        beam_threshold_nats=config.width.beam_threshold,
        token_threshold_nats=config.width.token_threshold,
        token_top=min(config.token_top or vocab, vocab),
        blank_skip_log_prob=math.log(config.blank_skip) if config.blank_skip < 1 else math.inf,
        recombine=config.recombine,
        lattice_threshold_nats=config.lattice_threshold,
    )
