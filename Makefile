# Everything that is done often, one command each. `make` alone lists them.
# All of them first make the environment (.venv) that they need.

# The first of these that is Python 3.11 or newer and can make environments is used. Another one: make test PYTHON=...
PYTHON ?= python3.11 python3.12 python3.13 python3 python
# Passed on to the recipe or to pytest:  make test ARGS="tests/text -x"
ARGS ?=

IN_VENV := .venv/bin/python
# Two processes, each with half of the tests; one that has run out takes half of what the other has left. For a debugger:
# ARGS="-n 0"; with more cores: ARGS="-n 4".
PYTEST := $(IN_VENV) -m pytest -n 2 --dist worksteal
PIP_INSTALL := $(IN_VENV) -m pip install --quiet --disable-pip-version-check
# The variable silences a notice of mkdocs-material about the next major version of mkdocs. Not --quiet: with it, warnings
# are not counted, and --strict passes whatever is broken.
BUILD_DOCS := NO_MKDOCS_2_WARNING=1 $(IN_VENV) -m mkdocs build --strict

.DEFAULT_GOAL := help
.PHONY: help demo test fast-test check docs format bench gpu-kit
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
	  printf '%-12s  %s\n' "$$name" "$$text"; done

demo: .venv/.installed-base ## transcribe real recordings, then train and score a digit recogniser (5 minutes on 2 cores)
	@echo "Demo, part 1 of 2: the English model that comes with asr transcribes a dozen people it was not trained on."
	@$(IN_VENV) -m asr transcribe data/recordings/*.opus --ids
	@$(IN_VENV) -m asr evaluate data/recordings/manifest.jsonl --model english --out runs/recordings
	@echo "Demo, part 2 of 2: making a digit recogniser of it on this machine, then testing that on people and voices" \
	  "that are not in its training data. At most 5 minutes on 2 idle cores."
	@$(IN_VENV) recipes/digits.py english --train.resume $(ARGS)

test: .venv/.installed-dev ## run all tests but those that need a CUDA GPU (under 15 minutes on 2 cores)
	@echo "Tests: everything except what needs a CUDA GPU. Under 15 minutes on 2 idle cores; the last line is the result."
	@$(PYTEST) -m "not gpu" $(ARGS)

fast-test: .venv/.installed-dev ## run the tests that take seconds, not minutes
	@$(PYTEST) -q -m "not slow and not gpu" $(ARGS)

check: .venv/.installed-dev ## what every change must pass besides the tests: format, lint, types, layers, docs (1 minute)
	@echo "Check 1 of 5: format (make format fixes it)"
	@$(IN_VENV) -m ruff format --check .
	@echo "Check 2 of 5: lint"
	@$(IN_VENV) -m ruff check .
	@echo "Check 3 of 5: types"
	@$(IN_VENV) -m mypy
	@echo "Check 4 of 5: layers"
	@$(IN_VENV) .venv/bin/lint-imports --no-logo
	@echo "Check 5 of 5: docs, with their links"
	@$(BUILD_DOCS)

docs: .venv/.installed-dev ## build docs/ as a site in site/ and check its links
	@$(BUILD_DOCS)
	@echo "Built: site/index.html"

format: .venv/.installed-dev ## format the code, fix what the linter can fix
	@$(IN_VENV) -m ruff check --fix --quiet . ; $(IN_VENV) -m ruff format .

bench: .venv/.installed-bench ## measure speed against other toolkits (5 minutes; ARGS="--root DIR" for LibriSpeech)
	@for file in benchmarks/features.py benchmarks/training.py; do \
	  echo "Benchmark: $$file (nothing else should run on this machine)"; \
	  $(IN_VENV) "$$file" $(ARGS) || exit 1; done

gpu-kit: .venv/.installed-dev ## pack benchmarks/gpu for a machine without a network (ARGS="--speech DIR" for LibriSpeech)
	@$(IN_VENV) -m benchmarks.gpu.pack --archive asr-gpu-kit.tar $(ARGS)

# The environment. A stamp is written only after its installation has been tested, so a broken one is never taken for
# finished; it is older than pyproject.toml as soon as dependencies or extras change. .venv/.folder names the folder
# that is installed: a clone that was moved or copied, or whose Python is gone, is installed again.

.PRECIOUS: .venv/.installed-%

ifneq ($(shell test -x $(IN_VENV) && cat .venv/.folder 2>/dev/null),$(CURDIR))
.PHONY: .venv/.folder
endif

.venv/.folder:
	@if ! $(IN_VENV) -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON); do \
	    "$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "error: no usable Python among: $(PYTHON). It must be 3.11 or newer and have the venv module." \
	      "On Debian or Ubuntu: sudo apt install python3 python3-venv. Elsewhere: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making a Python environment in .venv with $$("$$python" --version)."; \
	  "$$python" -m venv --clear .venv 2>/dev/null || { \
    "$$python" -m venv --clear --without-pip .venv && \
    "$$python" -m pip --python $(IN_VENV) install --quiet --disable-pip-version-check pip; } || { \
    echo "error: $$python cannot make an environment. On Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }; \
	fi
	@printf '%s\n' "$(CURDIR)" > $@

.venv/.installed-%: pyproject.toml .venv/.folder
	@extra='$(if $(filter-out base,$*),[$*])'; \
	if ls -d .venv/lib/python3*/site-packages/torch >/dev/null 2>&1; then \
	  echo "Bringing .venv up to date with pyproject.toml$${extra:+, extra $$extra}: seconds to a minute."; \
	else \
	  echo "Installing the project and what it needs (torch is most of it) into .venv$${extra:+, extra $$extra}:" \
	    "about 6 GB on disk, 1-3 minutes on a fast connection. pip prints nothing meanwhile."; \
	fi; \
	$(PIP_INSTALL) --editable ".$$extra" || { \
	  echo "error: the installation stopped; pip says why above. Fix that and run the same command again." >&2; \
	  exit 1; }
	@$(IN_VENV) -c 'import torch$(if $(filter-out base,$*),; import torchaudio)' || { \
	  echo "error: torch or torchaudio does not load, see above: an installation was cut short, or one of them was installed" \
	    "from elsewhere (a CPU-only torch beside this torchaudio misses libc10_cuda.so). Remove .venv and try again." >&2; \
	  exit 1; }
	@touch .venv/.installed-base $@
	@echo "Installed."
