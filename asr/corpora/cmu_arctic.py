"""CMU ARCTIC: 18 people read 1,132 sentences of novels, made for speech synthesis.

J. Kominek and A. Black, "The CMU Arctic speech databases", 2004 (festvox.org/cmu_arctic); 16 kHz WAV, about
0.9 h a speaker. Free for any use.

    cmu_us_slt_arctic/etc/txt.done.data     ( arctic_a0001 "Author of the danger trail, Philip Steels, etc." )
    cmu_us_slt_arctic/wav/arctic_a0001.wav …

Split: none is published. All speakers read the same sentences: those from b0500 are for the test, from b0450
for dev, so that no sentence is in two splits; the speakers are the same. Some speakers lack some sentences.

Source: torchaudio/datasets/cmuarctic.py (addresses, SHA-256), lhotse/recipes/cmu_arctic.py (layout). Sizes
are not published; hours are 18 times those of one speaker.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder
from asr.corpora.download import Archive
from asr.files import read_lines

__all__ = ["CORPUS"]

_SHA256 = {
    "aew": "645cb33c0f0b2ce41384fdd8d3db2c3f5fc15c1e688baeb74d2e08cab18ab406",
    "ahw": "024664adeb892809d646a3efd043625b46b5bfa3e6189b3500b2d0d59dfab06c",
    "aup": "2c55bc3050caa996758869126ad10cf42e1441212111db034b3a45189c18b6fc",
    "awb": "d74a950c9739a65f7bfc4dfa6187f2730fa03de5b8eb3f2da97a51b74df64d3c",
    "axb": "dd65c3d2907d1ee52f86e44f578319159e60f4bf722a9142be01161d84e330ff",
    "bdl": "26b91aaf48b2799b2956792b4632c2f926cd0542f402b5452d5adecb60942904",
    "clb": "3f16dc3f3b97955ea22623efb33b444341013fc660677b2e170efdcc959fa7c6",
    "eey": "8a0ee4e5acbd4b2f61a4fb947c1730ab3adcc9dc50b195981d99391d29928e8a",
    "fem": "3fcff629412b57233589cdb058f730594a62c4f3a75c20de14afe06621ef45e2",
    "gka": "dc82e7967cbd5eddbed33074b0699128dbd4482b41711916d58103707e38c67f",
    "jmk": "3a37c0e1dfc91e734fdbc88b562d9e2ebca621772402cdc693bbc9b09b211d73",
    "ksp": "8029cafce8296f9bed3022c44ef1e7953332b6bf6943c14b929f468122532717",
    "ljm": "b23993765cbf2b9e7bbc3c85b6c56eaf292ac81ee4bb887b638a24d104f921a0",
    "lnh": "4faf34d71aa7112813252fb20c5433e2fdd9a9de55a00701ffcbf05f24a5991a",
    "rms": "c6dc11235629c58441c071a7ba8a2d067903dfefbaabc4056d87da35b72ecda4",
    "rxr": "1fa4271c393e5998d200e56c102ff46fcfea169aaa2148ad9e9469616fbfdd9b",
    "slp": "54345ed55e45c23d419e9a823eef427f1cc93c83a710735ec667d068c916abf1",
    "slt": "7c173297916acf3cc7fcab2713be4c60b27312316765a90934651d367226b4ea",
}
_PROMPT = re.compile(r'\(\s*(?P<id>\S+)\s+"(?P<text>.*)"\s*\)\s*')


def _archive(speaker: str) -> Archive:
    name = f"cmu_us_{speaker}_arctic"
    return Archive(
        name=f"{name}.tar.bz2",
        unpacks_to=name,
        url=f"http://festvox.org/cmu_arctic/packed/{name}.tar.bz2",
        licence="free for any use",
        sha256=_SHA256[speaker],
    )


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    root = root or Path()
    names = [f"cmu_us_{speaker}_arctic" for speaker in parts]
    base = find_folder(root, CORPUS.title, *names, inside=["ARCTIC", "cmu_arctic"])
    folders = [base / name for name in names] or sorted(base.glob("cmu_us_*_arctic")) or [base]
    found = Collector(CORPUS.title)
    for folder in folders:
        find_folder(folder, CORPUS.title, "etc/txt.done.data", "wav")
        speaker = re.sub(r"^cmu_us_(\w+)_arctic$", r"\1", folder.absolute().name)
        texts: dict[str, str] = {}
        path = folder / "etc" / "txt.done.data"
        for number, line in enumerate(read_lines(path), start=1):
            if match := _PROMPT.fullmatch(line):
                texts[match["id"]] = match["text"].replace('\\"', '"')
            elif line.strip():
                found.leave_out(f"{path} line {number}", 'not of the form ( id "text" )')
        split = {key: _split(key) for key in texts}
        audio = audio_by_stem(folder / "wav")
        found.pair(texts, audio, split=split, speaker=speaker, prefix=f"{speaker}-")
    return found.finish()


def _split(key: str) -> str:
    """arctic_b0512 -> test."""
    prompt = key.removeprefix("arctic_")
    return "test" if prompt >= "b0500" else "dev" if prompt >= "b0450" else "train"


CORPUS = Corpus(
    name="cmu_arctic",
    title="CMU ARCTIC",
    hours=16,
    speakers=18,
    languages="English",
    licence="free for any use",
    source="http://festvox.org/cmu_arctic/",
    read=_read,
    parts={speaker: (_archive(speaker),) for speaker in _SHA256},
    normalizer="english",
)
