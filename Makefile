# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One process per core, each on one thread; a file's tests stay in one process, so that it makes its fixtures once.
PYTEST := $(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile
STAMP := $(VENV)/.installed

.PHONY: help setup run test test-all numerics smoke lint types imports check bench tables readme animation
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

setup: $(STAMP)  ## create .venv and install the package under constraints.txt (once)

run: setup  ## the main job: base -> RL -> evaluation -> Table 1, about four minutes; results in results/astrolabe/
	$(BIN)/astro reproduce astrolabe --quick

test: setup  ## the test suite but for its slow cases, a process per core
	$(PYTEST) -m "not slow"

test-all: setup  ## the whole test suite, slow cases too
	$(PYTEST)

numerics: setup  ## only the equations and the recordings of the released models
	$(PYTEST) tests/numerics tests/golden

smoke: setup  ## every training command for a few steps
	$(PYTEST) tests/e2e

lint: setup  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## pyright
	$(BIN)/pyright

imports: setup  ## the layers: who may import whom
	$(BIN)/lint-imports

check: lint types imports  ## lint, types and layers

bench: setup  ## speed and memory of the loops, as ratios from one run
	$(BIN)/python -m bench

readme: setup  ## write the README's table of claims from the records, and its badges; the page of the Python API
	$(BIN)/python scripts/write_readme.py
	$(BIN)/python scripts/write_api_page.py

animation: setup  ## make the README's animation from a contact sheet
	$(BIN)/python scripts/animate_sheet.py results/figures/sheet_short_causal_forcing.png docs/images/base_tuned.gif

tables: setup  ## print the papers' tables from the records in results/
	$(BIN)/astro table all
