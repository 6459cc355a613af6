# Needs Python >= 3.11 (PYTHON=…) and make; everything else goes into .venv.

PYTHON ?= python3
# Passed on to the program a target runs: make demo ARGS="--device cuda", make test ARGS="tests/engine -x"
ARGS ?=
# Processes that share the tests: 0 is one, in the foreground (for a debugger).
WORKERS ?= 2

# Where an environment keeps its programs.
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)

export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Tests and notebooks run beside each other: threads that wait leave the core to the rest (PyTorch's would spin). What is
# set already stands. The steerlens command chooses for itself, by what else the machine is doing.
test test-tl4 real real-tl4 outside outside-tl4 exchange notebooks: export OMP_WAIT_POLICY ?= PASSIVE
test test-tl4 real real-tl4 outside outside-tl4 exchange notebooks: export GOMP_SPINCOUNT ?= 0

# Those that a marker names. With several workers each keeps to one thread, or they fight over the cores.
PYTEST = $(if $(filter-out 0,$(WORKERS)),OMP_NUM_THREADS=1 )$(1)/$(BIN)/python -m pytest $(if $(filter-out 0,$(WORKERS)),-n $(WORKERS) )-m "$(2)" $(ARGS)

# Those that start programs of their own have the machine to themselves.
ALONE = OMP_NUM_THREADS=1 $(1)/$(BIN)/python -m pytest -m "$(2)" $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo smollm2 test test-tl4 real real-tl4 outside outside-tl4 exchange check format docs wheel notebooks install dev everything clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: .venv/.core  ## steer the embedded model at every layer; prints a table, writes an HTML page (ARGS="--help")
	.venv/$(BIN)/steerlens demo $(ARGS)

smollm2: .venv/.dev  ## fetch SmolLM2-135M-Instruct into the cache (98 MB), for load_model("smollm2") and the real tests
	.venv/$(BIN)/steerlens get smollm2 $(ARGS)

test: .venv/.dev  ## run the tests on TransformerLens 3.9 (ARGS="tests/engine -x", WORKERS=2)
	$(call PYTEST,.venv,not real and not outside and not exchange)

test-tl4: .venv-tl4/.dev  ## run the same tests on TransformerLens 4.3
	$(call PYTEST,.venv-tl4,not real and not outside and not exchange)

real: .venv/.dev smollm2  ## run the tests on SmolLM2, with TransformerLens 3.9
	$(call PYTEST,.venv,real and not outside and not exchange)

real-tl4: .venv-tl4/.dev smollm2  ## run the tests on SmolLM2, with TransformerLens 4.3
	$(call PYTEST,.venv-tl4,real and not outside and not exchange)

outside: .venv/.all  ## run the tests that drive a browser, JupyterLab and Ray, one after another (needs a chromium)
	$(call ALONE,.venv,outside)

outside-tl4: .venv-tl4/.all  ## the same with TransformerLens 4.3
	$(call ALONE,.venv-tl4,outside)

exchange: .venv-exchange/.made smollm2  ## run the tests that hold vectors against the programs they travel to
	$(call ALONE,.venv-exchange,exchange)

check: .venv/.dev  ## ruff (lint and format) and mypy
	.venv/$(BIN)/ruff check
	.venv/$(BIN)/ruff format --check
	.venv/$(BIN)/mypy

format: .venv/.dev  ## let ruff format and fix what it can
	.venv/$(BIN)/ruff check --fix
	.venv/$(BIN)/ruff format

docs: .venv/.docs smollm2  ## build the site into site/; the code in its pages runs, broken links and names without a page fail
	NO_MKDOCS_2_WARNING=1 .venv/$(BIN)/python -m mkdocs build --quiet --strict

wheel: .venv/.release  ## build wheel and sdist into dist/, check them, and run the wheel in an environment of its own
	.venv/$(BIN)/python scripts/check_wheel.py

notebooks: .venv/.dev  ## run every notebook top to bottom on the embedded model; the files stay as they are
	@set -e; for notebook in notebooks/*.ipynb; do \
	  if [ ! -e "$$notebook" ]; then echo "there is no notebook in notebooks/" >&2; exit 1; fi; \
	  echo "$$notebook"; .venv/$(BIN)/jupyter execute $(ARGS) "$$notebook"; \
	done

install: .venv/.core  ## set up .venv with the package alone
dev: .venv/.dev  ## set up .venv with the tools for tests and checks too
everything: .venv/.all .venv-tl4/.all  ## set up both environments with all that any test can use

clean:  ## remove caches and built files, keep the environments
	rm -rf build dist site .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find steerlens tests scripts notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## … and remove the environments
	rm -rf .venv .venv-tl4 .venv-exchange

# A stamp says that what stands before it is done: a half-made environment is finished by the next make,
# and one older than the pins is brought up to date. One pip call resolves torch together with the rest, under the pins.

.venv/.made .venv-tl4/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "steerlens needs Python 3.11 or later, $(PYTHON) is not: name one with make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(@D) || \
	  { echo "$(PYTHON) -m venv failed: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	@touch $@

.venv/.core: .venv/.made pyproject.toml constraints.txt
	@echo 'installing the pinned packages into .venv; torch makes this a matter of minutes'
	.venv/$(BIN)/python -m pip install -qq --constraint constraints.txt --editable .
	@touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	@echo 'installing the pinned packages into .venv; torch makes this a matter of minutes'
	.venv/$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch .venv/.core $@

.venv-tl4/.dev: .venv-tl4/.made pyproject.toml constraints-tl4.txt
	@echo 'installing the pinned packages into .venv-tl4; torch makes this a matter of minutes'
	.venv-tl4/$(BIN)/python -m pip install -qq --constraint constraints-tl4.txt --editable '.[dev]'
	@touch $@

.venv/.docs: .venv/.dev
	.venv/$(BIN)/python -m pip install -qq --constraint constraints.txt 'latex2mathml>=3.77' 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.27'
	@touch $@

.venv/.release: .venv/.dev
	.venv/$(BIN)/python -m pip install -qq --constraint constraints.txt 'build>=1.2' 'twine>=6'
	@touch $@

.venv/.all: .venv/.made pyproject.toml constraints.txt tests/other_tools.txt
	@echo 'installing all that a test can use into .venv; torch makes this a matter of minutes'
	.venv/$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[outside]'
	.venv/$(BIN)/python -m pip install -qq --no-deps --requirement tests/other_tools.txt
	@touch .venv/.core .venv/.dev $@

.venv-tl4/.all: .venv-tl4/.made pyproject.toml constraints-tl4.txt tests/other_tools.txt
	@echo 'installing all that a test can use into .venv-tl4; torch makes this a matter of minutes'
	.venv-tl4/$(BIN)/python -m pip install -qq --constraint constraints-tl4.txt --editable '.[outside]'
	.venv-tl4/$(BIN)/python -m pip install -qq --no-deps --requirement tests/other_tools.txt
	@touch .venv-tl4/.dev $@

# The packages of .venv seen from outside, and beside them the programs whose own pins would change those.
.venv-exchange/.made: .venv/.dev tests/exchange_tools.txt
	@$(PYTHON) -m venv .venv-exchange
	.venv/$(BIN)/python -c 'import sysconfig as s; print("import site; site.addsitedir(%r)" % s.get_path("purelib"))' > \
	  "$$(.venv-exchange/$(BIN)/python -c 'import sysconfig as s; print(s.get_path("purelib"))')/dot_venv.pth"
	.venv-exchange/$(BIN)/python -m pip install -qq --no-deps --requirement tests/exchange_tools.txt
	@touch $@
