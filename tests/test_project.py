"""The habits of the project, held as tests: what a reviewer would otherwise look for in every change."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import asr

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "asr").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.py"))

# Modules that take long to load; `asr --help` must answer without them.
HEAVY = {"torch", "torchaudio", "librosa", "numba", "scipy", "sklearn", "matplotlib", "jinja2"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


# ---------------------------------------------------------------------------------------------------- version


def test_changelog_starts_with_this_version() -> None:
    """A release whose changelog ends at the version before; headings read `## 0.1.0 - date or unreleased`."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings, "CHANGELOG.md has no `## version - date` heading"
    version, _, date = headings[0].partition(" - ")
    assert version == asr.__version__
    assert re.fullmatch(r"unreleased|\d{4}-\d{2}-\d{2}", date), f"no date and not unreleased: {headings[0]!r}"


# ---------------------------------------------------------------------------------------------------- recipes


def substance(source: str) -> list[str]:
    """The lines of a recipe that could be a copy: not imports, comments, blank lines, lone brackets."""
    lines = (line.strip() for line in source.splitlines())
    return [line for line in lines if re.search(r"\w", line) and not re.match(r"#|import |from ", line)]


def runs(lines: list[str], length: int = 10) -> set[tuple[str, ...]]:
    return {tuple(lines[i : i + length]) for i in range(len(lines) - length + 1)}


def test_there_are_recipes() -> None:
    """The tests of recipes below would pass on an empty folder."""
    assert RECIPES, "recipes/ holds no recipe"


@pytest.mark.parametrize("recipe", RECIPES, ids=relative)
def test_recipe_is_short_and_holds_no_loop(recipe: Path) -> None:
    """A recipe that grows its own training loop stops sharing the trainer's repairs."""
    source = recipe.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 120
    if recipe.name == "speech_commands.py":
        return  # shows what the package leaves to others: a classifier on top of its encoder
    for sign in (".backward(", "optimizer"):
        assert sign not in source, f"{sign!r} belongs to asr/training"


def test_copied_lines_are_found() -> None:
    """The search for copies sees through other indentation, and comments and blank lines between them."""
    lines = [f"value_{i} = {i}" for i in range(10)]
    first = "import os\n" + "\n".join(lines)
    second = "def f():\n" + "\n\n    # why\n".join(f"    {line}" for line in lines)
    assert runs(substance(first)) & runs(substance(second))
    assert not runs(substance(first)) & runs(substance(second.replace("value_5", "other")))


def test_recipes_share_no_ten_lines() -> None:
    """Recipes copied until 90% of them is the same file: what two of them need belongs into the package."""
    texts = {recipe: runs(substance(recipe.read_text(encoding="utf-8"))) for recipe in RECIPES}
    for first, second in combinations(RECIPES, 2):
        shared = texts[first] & texts[second]
        assert not shared, f"{relative(first)} and {relative(second)} share:\n" + "\n".join(min(shared))


# ------------------------------------------------------------------------------------------------ the package


@pytest.mark.parametrize("module", ["asr", "asr.cli"])
def test_import_is_light(module: str) -> None:
    """`asr --help` that takes seconds, because a module it needs imports torch at its top."""
    code = f"import {module}, sys; print(*sorted(name for name in sys.modules if '.' not in name))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert "asr" in loaded
    assert not loaded & HEAVY, f"import {module} loads {sorted(loaded & HEAVY)}"


def test_package_imports_what_it_declares() -> None:
    """A third party that only developers have, or one that every user installs and nothing imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    # what a user may leave out; their import says so when it fails
    extras = {"arrow", "bpe", "microphone", "onnx", "serve", "tensorboard", "text"}
    optional = {re.split(r"[^\w-]", x)[0] for e in extras for x in project["optional-dependencies"][e]}
    with_others = {"triton", "starlette"}  # come with a torch for CUDA, whose import may fail, and FastAPI
    imported: dict[str, str] = {}
    for module in MODULES:
        for node in ast.walk(parse(module)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            imported.update({name.split(".")[0]: relative(module) for name in names})
    imported = {{"PIL": "pillow"}.get(name, name): where for name, where in imported.items()}
    known = declared | optional | with_others | sys.stdlib_module_names | {"asr"}
    undeclared = {name: where for name, where in imported.items() if name not in known}
    assert not undeclared, f"imported, but not among pyproject.toml's dependencies: {undeclared}"
    read_as_files = {"silero-vad"}  # its network, without its code
    unused = declared - imported.keys() - read_as_files
    assert not unused, f"among pyproject.toml's dependencies, but imported nowhere in asr/: {sorted(unused)}"


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public functions and classes, and the public methods of those; not what is nested in functions."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{prefix}{node.name}.")


def has_docstring(node: Definition) -> bool:
    """Whether it is documented, if only by its first definition (overloads, setters)."""
    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    return bool(ast.get_docstring(node)) or "overload" in decorators or ".setter" in decorators


def test_public_names_have_docstrings() -> None:
    """A public function whose shapes and units have to be read out of its body; overrides need none."""
    ignores = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    overriding = [path for path, rules in ignores["per-file-ignores"].items() if "D102" in rules]
    bare = []
    for module in MODULES:
        overrides = any(fnmatch(relative(module), pattern) for pattern in overriding)
        for name, node in public_definitions(parse(module).body):
            if not has_docstring(node) and not (overrides and "." in name):
                bare.append(f"{relative(module)}: {name}")
    bare += [relative(m) for m in MODULES if parse(m).body and not ast.get_docstring(parse(m))]
    assert not bare, f"no docstring: {bare}"


def found_in(modules: list[Path], kind: type[ast.stmt | ast.expr]) -> Iterator[tuple[str, Any]]:
    """Every node of one kind, and where it is."""
    for module in modules:
        for node in ast.walk(parse(module)):
            if isinstance(node, kind):
                yield f"{relative(module)}:{node.lineno}", node


def test_no_assert() -> None:
    """Asserts vanish under `python -O` and tell a user nothing; errors are children of AsrError."""
    places = [place for place, _ in found_in(MODULES, ast.Assert)]
    assert not places, f"assert in {places}"


def test_only_the_command_line_prints_and_exits() -> None:
    """A library call that writes into its caller's output, or ends its caller's process."""
    library = [m for m in MODULES if relative(m) not in ("asr/cli.py", "asr/console.py")]
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit"}
    calls = [(place, ast.unparse(node.func)) for place, node in found_in(library, ast.Call)]
    found = [f"{place}: {name}()" for place, name in calls if name in forbidden]
    assert not found, f"belongs into asr/console.py: {found}"


def test_files_are_short_enough_to_read() -> None:
    """Files that nobody reads to the end: 300 lines are the aim, 500 the bound."""
    long = [relative(m) for m in MODULES if len(m.read_text(encoding="utf-8").splitlines()) > 500]
    assert not long, f"more than 500 lines: {long}"


def test_no_name_hides_a_module() -> None:
    """`from .transcribe import transcribe` in an `__init__`: the name no longer reaches the module."""
    for module in (m for m in MODULES if m.name == "__init__.py"):
        siblings = {path.stem for path in module.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
        froms = [node for node in parse(module).body if isinstance(node, ast.ImportFrom)]
        bound = {alias.asname or alias.name for node in froms for alias in node.names}
        assert not bound & siblings, (
            f"{relative(module)}: names that hide modules: {sorted(bound & siblings)}"
        )


def test_nothing_needs_torchaudio() -> None:
    """A CPU-only torch without torchaudio, 1.3 GB instead of 6, that fails at an import, at once or later."""
    names = [relative(m).removesuffix(".py").replace("/", ".") for m in MODULES if m.name != "__main__.py"]
    program = (
        "import importlib, sys; sys.modules['torchaudio'] = None; "
        "[*map(importlib.import_module, sys.argv[1:])]"
    )
    command = [sys.executable, "-c", program, *names]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    nodes = [node for module in MODULES for node in ast.walk(parse(module))]
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("torchaudio" in line for line in imports)
