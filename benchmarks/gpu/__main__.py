"""Everything that the first ten minutes on a GPU must answer, in one command; see README.md beside this file.

python -m benchmarks.gpu [--device cuda|cpu] [--quick] [--out DIR] [--minutes N]
                         [--train MANIFEST --dev MANIFEST] [--parts NAME,NAME...]
python -m benchmarks.gpu report results.json
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.part import KitSettings, Part, read_json
from benchmarks.gpu.report import markdown
from benchmarks.gpu.runner import PARTS, ROOT, run_kit

# Nothing here or in these modules needs more than Python itself: a bare machine gets the rest from wheels.

BUDGET_S, QUICK_BUDGET_S = 585.0, 900.0  # the second is never needed, but a busy machine may be slow


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kit, or one part of it, or print a report; the result is the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["report"] and len(given) == 2:
        print(markdown(read_json(Path(given[1]))))
        return 0
    if given[:1] == ["part"] and len(given) == 4:  # what the runner starts
        _, name, settings, deadline = given
        module = importlib.import_module(f"benchmarks.gpu.{PARTS[name].module}")
        module.run(Part(name, KitSettings(**json.loads(settings)), float(deadline)))
        return 0
    options = _parse(given)
    names = options.parts.split(",") if options.parts else list(PARTS)
    settings = KitSettings(
        out=str(options.out.absolute()),
        device=options.device,
        quick=options.quick,
        minutes=options.minutes,
        train=options.train and str(options.train.absolute()),
        dev=options.dev and str(options.dev.absolute()),
        asr_args=options.asr_args,
    )
    combined = run_kit(settings, names, options.budget_s or (QUICK_BUDGET_S if options.quick else BUDGET_S))
    print(f"\n{markdown(combined)}\nresults: {options.out / 'results.json'}")
    return 0 if all(entry["status"] == "done" for entry in combined["parts"].values()) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (cuda)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/gpu/results", help="folder (%(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=4.0, help="of training (4)")
    parser.add_argument("--budget-s", type=float, help="seconds for everything (585); the parts share them")
    parser.add_argument(
        "--train", type=Path, help="manifest to learn from (the bundle's speech, or the digits)"
    )
    parser.add_argument("--dev", type=Path, help="manifest to score on")
    parser.add_argument("--parts", help=f"some of {','.join(PARTS)}, in this order (all)")
    parser.add_argument("--asr-args", default="", help='of the training, such as "--model.width 512"')
    options = parser.parse_args(arguments)
    unknown = [name for name in (options.parts or "").split(",") if name and name not in PARTS]
    if unknown:
        parser.error(f"--parts {','.join(unknown)}: unknown. Expected some of {','.join(PARTS)}.")
    if (options.train is None) != (options.dev is None):
        parser.error("--train and --dev: one is missing. Expected a manifest for each, or neither.")
    return options


if __name__ == "__main__":
    sys.exit(main())
