"""The map of the code in docs/how-it-works.md: drawn from the modules' docstrings, never by hand.

    python tests/docs/test_map.py      draws it again, after a file was added, moved or described anew

Each line is a file or folder with the first sentence of its docstring. Folders are in the order of layers,
lowest first.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "asr"
PAGE = ROOT / "docs" / "how-it-works.md"
MODELS = "The models that ship, each with its model card: data, no code"
FENCE = re.compile(r"(?<=^```text\n)asr/\n.*?(?=^```$)", re.MULTILINE | re.DOTALL)


def layer_order() -> list[str]:
    """Top-level modules, lowest layer first, as pyproject.toml's import contract lists them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return [name.strip(" ()") for layer in reversed(layers) for name in re.split(r"[|:]", layer)]


def caption(path: Path) -> str:
    """The first sentence of a module's docstring; of a folder, that of its `__init__.py`."""
    source = path / "__init__.py" if path.is_dir() else path
    if not source.is_file():
        return (
            "the models that ship, each with its model card: data, no code" if path.name == "models" else ""
        )
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]
    return " ".join(sentence.split())


def entries(folder: Path) -> list[Path]:
    """What the map shows of a folder: its modules, then the folders in it that hold modules or models."""
    order = layer_order() if folder == PACKAGE else []
    paths = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    paths += [path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"]
    if folder.name == "models":
        return []

    def key(path: Path) -> tuple[int, bool, str]:
        rank = order.index(path.stem) if path.stem in order else order.index("commands") if order else 0
        return rank, path.is_dir(), path.name

    return sorted(paths, key=key)


def draw(folder: Path, depth: int = 1) -> list[str]:
    """The lines of the map below one folder."""
    lines = []
    for path in entries(folder):
        name = path.name + "/" * path.is_dir()
        lines.append(f"{'  ' * depth}{name:<22} {caption(path)}".rstrip())
        if path.is_dir():
            lines += draw(path, depth + 1)
    return lines


def package_map() -> str:
    """The whole map, as it stands between the fences of the page."""
    return "\n".join(["asr/", *draw(PACKAGE), ""])


def test_map_is_the_package() -> None:
    """A map that rotted: a file was added, moved or described anew, and newcomers are sent astray."""
    text = PAGE.read_text(encoding="utf-8")
    found = FENCE.search(text)
    assert found, "docs/how-it-works.md has no block ```text that begins with the line asr/"
    assert found.group() == package_map(), "draw the map again: python tests/docs/test_map.py"


def test_contributing_has_the_layers() -> None:
    """Layers that changed in pyproject.toml, and are described as before in CONTRIBUTING.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    name = project["tool"]["importlinter"]["contracts"][0]["name"]
    assert f"\n{name}\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_line_has_a_caption() -> None:
    """A module whose docstring says nothing, or a first sentence too long to be a caption."""
    lines = package_map().splitlines()
    assert len(lines) > 100
    bare = [line for line in lines[1:] if len(line.split()) < 3]
    assert not bare, f"no docstring: {bare}"
    long = [line for line in lines if len(line.split(maxsplit=1)[-1]) > 140]
    assert not long, f"first sentences too long for a caption: {long}"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(FENCE.sub(lambda _: package_map(), page), encoding="utf-8")
