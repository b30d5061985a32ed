"""The gradient microscope's report: one HTML file with pictures, warnings and numbers.

Everything is read from the rows of diagnostics.jsonl, so that it can be written again at any time, and
includes the earlier sessions of a resumed run.
"""

import base64
import json
from pathlib import Path

from asr.microscope.draw import PICTURES, Row

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


def _page(rows: list[Row], title: str, folder: Path) -> str:
    import jinja2  # slow to load, and seldom needed

    warnings = [(row["update"], text) for row in rows for text in row["warnings"]]
    pictures = [
        (caption, base64.b64encode((folder / f"{name}.png").read_bytes()).decode())
        for name, (caption, _) in PICTURES.items()
    ]
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _TEMPLATE
    )
    return template.render(title=title, row=rows[-1], warnings=warnings, pictures=pictures)


_TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}: gradients</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em }
img { max-width: 100% }
table { border-collapse: collapse }
td, th { padding: .2em .8em; text-align: right }
th { border-bottom: 1px solid #999 }
td:first-child, th:first-child { text-align: left }
figure { margin: 2em 0 }
figcaption { color: #555 }
.warning { border-left: 4px solid #c33; padding-left: .8em }
</style>
<h1>{{ title }}: gradients through time</h1>
<p>Newest measurement: update {{ row.update }}, epoch {{ row.epoch }}.
{% if row.clip_rate is not none %}
{{ "%.0f"|format(100 * row.clip_rate) }}% of the updates since the measurement before were clipped.
{% endif %}
</p>
{% for update, text in warnings %}
<p class="warning">Update {{ update }}: {{ text }}</p>
{% else %}
<p>No warnings.</p>
{% endfor %}
<table>
<tr><th>layer</th><th>gradient horizon (steps)</th>
<th>memory of 10%, 50%, 90% of the units (steps)</th><th>spectral radius</th></tr>
{% for layer in row.layers %}
<tr><td>{{ layer.layer }} {{ layer.direction }}</td>
<td>{{ "" if layer.horizon_reached else "> " }}{{ "%.1f"|format(layer.horizon) }}</td>
<td>{{ layer.memory | map("round", 1) | join(", ") if layer.memory else "no gate that keeps" }}</td>
<td>
{% for gate, radius in layer.spectral_radius.items() %}
{{ gate }} {{ "not finite" if radius is none else "%.2f"|format(radius) }}{{ "" if loop.last else "," }}
{% endfor %}
</td></tr>
{% endfor %}
</table>
{% for caption, data in pictures %}
<figure><img alt="{{ caption }}" src="data:image/png;base64,{{ data }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
</html>
"""
