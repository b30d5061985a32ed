"""results.json as markdown: what benchmarks/README.md and an issue want to see."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
GOALS = (
    "Goals on one H100, 4 x 320 BiLSTM, 1600 s a batch: 20,000 audio-s/s, 1.5 x packed, waiting at most 5%."
)


def markdown(combined: Results) -> str:
    """The tables of all parts, in the order in which they ran."""
    parts: Results = combined.get("parts", {})
    facts: Results = parts.get("facts", {}).get("results", {})
    lines = ["# GPU kit", "", _machine(facts), ""]
    if combined.get("settings", {}).get("quick"):
        lines += ["**--quick: tiny sizes. This shows that everything runs; the figures mean nothing.**", ""]
    lines += [
        GOALS,
        "",
        *table(["part", "status", "s", "limit, s"], [_status(name, parts[name]) for name in parts]),
    ]
    for name, entry in parts.items():
        write = SECTIONS.get(name)
        if write and entry.get("results"):
            lines += ["", f"## {name}", "", *write(entry["results"])]
        if entry.get("log"):
            lines += ["", f"The end of the log of {name}:", "", "```", *entry["log"], "```"]
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines]


def _machine(facts: Results) -> str:
    gpu = facts.get("gpu") or {}
    name = f"{gpu['name']}, {gpu['memory_gib']} GiB, {gpu['nvidia_smi']}" if gpu else "no GPU"
    packages = facts.get("packages", {})
    return (
        f"{name}; torch {packages.get('torch')}, CUDA {facts.get('torch_cuda')}, cuDNN {facts.get('cudnn')}, "
        f"Python {facts.get('python')}; {facts.get('usable_cores')} cores, {facts.get('memory_gib')} GiB, "
        f"/dev/shm {facts.get('shared_memory_gib')} GiB; asr {facts.get('asr')}, commit {facts.get('commit')}"
    )


def _status(name: str, entry: Results) -> list[Any]:
    return [name, entry["status"], entry["seconds"], entry["limit_s"]]


def _facts(results: Results) -> list[str]:
    return ["```", str(results.get("machine", "")), "```"]


def _tests(results: Results) -> list[str]:
    lines = [", ".join(f"{results.get(name)} {name}" for name in ("passed", "failed", "skipped"))]
    for failure in results.get("failures", []):
        lines += ["", f"`{failure['test']}`", "", "```", failure["error"], "```"]
    return lines


def _throughput(results: Results) -> list[str]:
    fill = results.get("cache_fill", {})
    rows = [
        [
            f"{row['batch_s']:g}",
            row["precision"],
            row["audio_s_per_s"],
            f"{row['waiting_share']:.1%}",
            row["update_ms"],
            f"{row['padding_share']:.1%}",
            row["peak_gib"],
            row["updates"],
        ]
        for row in results.get("training", [])
    ]
    head = [
        "s a batch",
        "precision",
        "audio-s/s",
        "waiting",
        "ms an update",
        "padding",
        "peak, GiB",
        "updates",
    ]
    lines = [f"{results.get('speech')}. Feature cache: {fill.get('audio_s_per_s')} audio-s/s.", ""]
    lines += table(head, rows)
    if "waits_per_update" in results:
        lines += ["", f"The host waited for the GPU {results['waits_per_update']:g} times an update:", ""]
        lines += table(["line", "times"], sorted(results["waits_by_line"].items(), key=lambda item: -item[1]))
    if "profile" in results:
        profile = results["profile"]
        busy = f"{profile['busy_ms']} of {profile['elapsed_ms']} ms"
        lines += ["", f"Profile of {profile['updates']} updates, busy {busy}:", ""]
        keys = ["operation", "calls", "ms"]
        rows = [[*(row[key] for key in keys), f"{row['share']:.1%}"] for row in results["profile_rows"]]
        lines += table([*keys, "share"], rows)
    return lines


def _recurrent(results: Results) -> list[str]:
    rows = results.get("layers", [])
    names = sorted({name for row in rows for name in row["ms"]}, key=_arrangement)
    keys = ["cell", "precision", "batch", "width"]
    body = [
        [*(row[key] for key in keys), *(row["ms"].get(name) for name in names), _gain(row)] for row in rows
    ]
    head = [*keys, *(f"{name}, ms" for name in names), "packed / best of ours"]
    return [
        f"One bidirectional layer, {results.get('steps')} steps, forward and backward; {len(rows)} of "
        f"{results.get('combinations')} combinations. `padded` reads the padding: for reference.",
        "",
        *table(head, body),
    ]


def _arrangement(name: str) -> int:
    known = ["layer", "in turn", "two streams", "packed", "padded"]
    return known.index(name) if name in known else len(known)


def _gain(row: Results) -> str | None:
    ours = [row["ms"].get(name) for name in ("layer", "in turn", "two streams")]
    numbers = [value for value in ours if isinstance(value, float)]
    packed = row["ms"].get("packed")
    return f"{packed / min(numbers):.2f}" if numbers and isinstance(packed, float) else None


def _peers(results: Results) -> list[str]:
    peaks = {row["precision"]: row["tflops"] for row in results.get("gemm", [])}
    stacks = results.get("stacks", [])
    packed = {row["precision"]: row.get("ms") for row in stacks if row["name"].startswith("packed")}
    rows = []
    for row in stacks:
        start = [row["precision"], row["name"]]
        if "ms" not in row:
            rows.append([*start, row.get("error"), None, None, None])
            continue
        yardstick = packed.get(row["precision"])
        gain = f"{yardstick / row['ms']:.2f}" if yardstick else None
        rows.append([*start, row["ms"], row["tflops"], f"{row['share_of_gemm']:.1%}", gain])
    peak = ", ".join(f"{name} {value}" for name, value in peaks.items())
    return [
        f"GEMM, TFLOP/s: {peak}. Stacks of {results.get('depth')} x {results.get('width')}, "
        f"{results.get('batch')} utterances of {results.get('steps')} steps; "
        f"speechbrain: {results.get('speechbrain')}.",
        "",
        *table(["precision", "layers", "ms an update", "TFLOP/s", "of GEMM", "packed / it"], rows),
    ]


def _loader(results: Results) -> list[str]:
    rows = [
        [row["workers"], "yes" if row["cached"] else "no", row["audio_s_per_s"], row["first_batch_s"]]
        for row in results.get("loading", [])
    ]
    return table(["workers", "cached", "audio-s/s", "s until the first batch"], rows)


def _items(results: Results) -> list[str]:
    return table(["what", "result"], [[name, value] for name, value in results.items()])


def _faults(results: Results) -> list[str]:
    return [
        line
        for name, outcome in results.items()
        if isinstance(outcome, Mapping)
        for line in [f"{name}:", "", *_items(outcome), ""]
    ]


SECTIONS: dict[str, Callable[[Results], list[str]]] = {
    "facts": _facts, "tests": _tests, "throughput": _throughput, "recurrent": _recurrent, "training": _items,
    "peers": _peers, "faults": _faults, "loader": _loader,
}  # fmt: skip
