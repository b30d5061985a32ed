"""The documents: links lead somewhere, options and names exist. `make docs` checks the links within docs/."""

import contextlib
import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from asr.cli import COMMANDS, Entry, Group, Kinds, main

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
LINKING = [*PAGES, *sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("asr/models/*/README.md"))]

# Options of other programs, of the kit and of benchmarks that the pages name.
OTHERS = {
    "--chunks", "--every", "--hours", "--manifest",
    "--nproc-per-node", "--nnodes", "--node-rank", "--master-addr", "--master-port", "--help", "--version",
}  # fmt: skip

# Folders that commands write.
MADE_BY_COMMANDS = ("RUN/", "bundle/", "diagnostics/", "dist/", "runs/", "tensorboard/")


def commands(group: Mapping[str, Entry], words: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """The words of every command."""
    for name, entry in group.items():
        if isinstance(entry, Group):
            yield from commands(entry.commands, (*words, name))
        elif isinstance(entry, Kinds):
            yield from ([*words, name, "--kind", kind] for kind in entry.kinds)
        else:
            yield [*words, name]


RECIPES = (
    *(["digits"], ["letter_to_sound"], ["compare_decoders"], ["compare_cells"], ["english"]),
    *(["librispeech", "100h"], ["corpus", "yesno"], ["own_data"]),
)


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """A page without its fenced blocks, in which brackets are no links."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a page, picture or heading that was moved."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        assert goal.exists(), f"{page_name(page)}: {target}"
        if anchor:
            assert anchor in anchors(goal), f"{page_name(page)}: no such heading: {target}"


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Every option of every command and of the recipes, from their help."""
    help_texts = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(help_texts):
        for command in commands(COMMANDS):
            assert main([*command, "--help"]) == 0
        patch.syspath_prepend(ROOT / "recipes")  # as if started from there: recipes import each other
        for name, *preset in RECIPES:
            patch.setattr(sys, "argv", [name, *preset, "--help"])
            with pytest.raises(SystemExit):
                runpy.run_path(str(ROOT / "recipes" / f"{name}.py"), run_name="__main__")
    for imported in ("digits", "mini_librispeech", "corpus"):
        sys.modules.pop(imported, None)
    return set(re.findall(r"--[a-z][\w.-]*", help_texts.getvalue()))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_options_exist(page: Path, options: set[str]) -> None:
    """A page that names an option which was renamed; users copy it and get an error."""
    assert len(options) > 100
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", text))
    missing = {name.rstrip(".") for name in named} - options - OTHERS
    assert not missing, f"{page_name(page)} names options that no command has: {sorted(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_named_files_exist(page: Path) -> None:
    """A page that sends its reader to a file or folder which was moved; paths are the project's or asr/'s."""
    named = re.findall(r"`((?:\w+/)+(?:\w+\.(?:py|md))?)`", prose(page))
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "asr" / name).exists()]
    missing = [name for name in missing if not name.startswith(MADE_BY_COMMANDS)]
    assert not missing, f"{page_name(page)} names files that do not exist: {missing}"


def test_quoted_messages_are_printed() -> None:
    """A message that the program no longer words in this way: a search for it finds no help."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "asr").rglob("*.py"))
    source = re.sub(r'"\n\s*f?"', "", text)  # strings that go on in the next line
    page = (ROOT / "docs" / "settings-and-errors.md").read_text(encoding="utf-8")
    quoted = [message for row in re.findall(r"^\| (`.*?) \|", page, re.M) for message in row.split(", ")]
    assert len(quoted) > 8
    for message in quoted:
        if not message.startswith("`OSError"):  # of torch
            words = re.escape(message.strip("`")).replace(r"\ N", r" (\{[^}]*\}|%d)")
            assert re.search(words, source), message


def test_commands_of_the_page_on_aligning(
    tones: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that a user copies, and that fails."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(tones.files[2], "talk.opus")  # what is in a file decides, not its name
    Path("talk.txt").write_text("a b c a b c")
    page = (ROOT / "docs" / "aligning.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block.count("asr align") == 4
    for line in block.splitlines():
        command = [str(tones.manifest) if word == "test.jsonl" else word for word in shlex.split(line)[1:]]
        command = ["a b c" if " " in word else word for word in command]
        assert main([*command, "--model", str(tones.model)]) == 0, (line, capsys.readouterr().err)
