"""Every public corpus that can be prepared, by its name."""

import difflib

from asr.corpora import (
    an4,
    asterisk,
    cmu_arctic,
    common_voice,
    fleurs,
    fsdd,
    librispeech,
    libritts,
    ljspeech,
    mls,
    speech_commands,
    speechocean762,
    tedlium,
    timit,
    vctk,
    voxforge,
    wsj,
    yesno,
)
from asr.corpora.corpus import Corpus
from asr.errors import SettingsError

__all__ = ["CORPORA", "find_corpus"]

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        yesno.CORPUS, fsdd.CORPUS, an4.CORPUS, asterisk.CORPUS, timit.CORPUS, speechocean762.CORPUS,
        librispeech.MINI_CORPUS, cmu_arctic.CORPUS, ljspeech.CORPUS, speech_commands.CORPUS, vctk.CORPUS,
        wsj.CORPUS, voxforge.CORPUS, tedlium.RELEASE_2, tedlium.RELEASE_3, libritts.CORPUS,
        librispeech.CORPUS, fleurs.CORPUS, common_voice.CORPUS, mls.CORPUS,
    )
}  # fmt: skip
"""From the smallest to the largest."""


def find_corpus(name: str) -> Corpus:
    """The corpus of a name.

    Raises:
        SettingsError: there is none; the message lists all.
    """
    if name not in CORPORA:
        near = difflib.get_close_matches(name, CORPORA, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SettingsError(f"no corpus {name!r}.{hint} Expected one of: {', '.join(CORPORA)}.")
    return CORPORA[name]
