"""`python -m asr …`, the same as `asr …`; torchrun needs it."""

import sys

from asr.cli import main

sys.exit(main())
