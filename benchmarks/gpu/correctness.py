"""Correctness: the `gpu` tests, or on a CPU a few that stand for them; outcomes are kept if time runs out."""

import time

import pytest

from benchmarks.gpu.part import Part

ON_A_CPU = ["tests/model/loss/test_ctc.py", "-m", "not slow and not gpu"]


class _Recorder:
    """Writes every test's outcome as soon as it is known, and stops when the time is up."""

    def __init__(self, part: Part) -> None:
        self.part, self.counts = part, {"passed": 0, "failed": 0, "skipped": 0}
        self.failures: list[dict[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.counts[report.outcome] += 1
        if report.outcome == "failed":
            lines = str(report.longrepr).splitlines()
            self.failures.append({"test": report.nodeid, "error": "\n".join(lines[-12:])})
        self.part.record(**self.counts, failures=self.failures)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self.part.left_s < 0:
            pytest.exit(f"no time left before {item.nodeid}", returncode=1)


def run(part: Part) -> None:
    """Run the tests; a failing test is a result, not a failure of this part."""
    began = time.monotonic()
    chosen = ["tests/gpu", "-m", "gpu"] if part.cuda else ON_A_CPU
    status = pytest.main(
        [*chosen, "-q", "-p", "no:cacheprovider", "--durations=10", f"--basetemp={part.scratch('tests')}"],
        plugins=[_Recorder(part)],
    )
    part.record(exit_status=int(status), tests_s=round(time.monotonic() - began, 1))
