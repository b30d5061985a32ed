"""`python -m asr …`, the same as `asr …`; torchrun needs it."""

from asr.cli import run_process

run_process()
