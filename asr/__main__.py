"""`python -m asr …`, the same as `asr …`; torchrun needs it."""

from asr.cli import main

raise SystemExit(main())
