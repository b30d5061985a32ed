"""The gradient microscope's report: one HTML file with pictures, warnings and numbers.

Everything is read from the rows of diagnostics.jsonl, so that it can be written again at any time, and
includes the earlier sessions of a resumed run.
"""

import json
from pathlib import Path

from asr.microscope.draw import PICTURES, Row
from asr.pages.render import data_uri, render

ROWS = "diagnostics.jsonl"
PAGE = "report.html"


def read_rows(path: Path) -> list[Row]:
    """The rows of diagnostics.jsonl, oldest first; none where the file does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw(folder: Path, title: str) -> list[Path]:
    """Draw every picture and write the page.

    Args:
        folder: holds diagnostics.jsonl, gets the pictures and report.html.
        title: of the page, such as the name of the run.

    Returns:
        The files written; none before the first measurement.
    """
    rows = [row for row in read_rows(folder / ROWS) if row["layers"]]
    if not rows:
        return []
    paths = []
    for name, (_, picture) in PICTURES.items():
        path = folder / f"{name}.png"
        picture(rows).savefig(path, dpi=110)
        paths.append(path)
    page = folder / PAGE
    page.write_text(_page(rows, title, folder), encoding="utf-8")
    return [*paths, page]


def pictures(folder: Path) -> list[tuple[str, str]]:
    """The captions and data URIs of the pictures that have been drawn into a folder."""
    return [
        (caption, data_uri("image/png", path.read_bytes()))
        for name, (caption, _) in PICTURES.items()
        if (path := folder / f"{name}.png").is_file()
    ]


def _page(rows: list[Row], title: str, folder: Path) -> str:
    warnings = [(row["update"], text) for row in rows for text in row["warnings"]]
    return render("gradients.html", title=title, row=rows[-1], warnings=warnings, pictures=pictures(folder))
