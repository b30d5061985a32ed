"""What a part of the kit is given, and where its results go."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class KitSettings:
    """The settings of all parts; plain values, so that they can be passed to another process."""

    out: str  # folder of the results
    device: str = "cuda"  # cuda or cpu
    quick: bool = False  # tiny sizes: shows that everything runs, measures nothing
    minutes: float = 4.0  # of training
    train: str | None = None  # manifest to learn from; None: the bundle's speech, or else the digits in data/
    dev: str | None = None  # manifest to score on
    asr_args: str = ""  # settings for the part `training`, as `asr train` takes them


class Part:
    """One part while it runs: its settings, its time, and its results, which are on disk as soon as recorded.

    Args:
        name: of the part.
        settings: of all parts.
        deadline: when it should be done, in seconds of `time.time`; it is killed some seconds later.
    """

    def __init__(self, name: str, settings: KitSettings, deadline: float) -> None:
        self.name, self.settings, self.deadline = name, settings, deadline
        self.results: dict[str, Any] = {}

    @property
    def cuda(self) -> bool:
        """Whether a GPU is measured."""
        return self.settings.device.startswith("cuda")

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - time.time()

    @property
    def out(self) -> Path:
        """Folder of the results."""
        return Path(self.settings.out)

    def scratch(self, name: str) -> Path:
        """A folder for files that are no result."""
        folder = self.out / "scratch" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def record(self, **results: Any) -> None:
        """Add results and write all of them."""
        self.results |= results
        write_json(part_file(self.out, self.name), {"results": self.results})

    def row(self, table: str, **values: Any) -> None:
        """Add a row to a result that is a list of rows, and write."""
        self.record(**{table: [*self.results.get(table, []), values]})


def part_file(out: Path, name: str) -> Path:
    """Where a part's results are."""
    return out / "parts" / f"{name}.json"


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file, or {} where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
