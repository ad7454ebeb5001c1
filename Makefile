# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup run test numerics smoke lint types imports check bench tables
help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

setup: $(STAMP)  ## create .venv and install the package under constraints.txt (once)

run: setup  ## the main job: base -> RL -> evaluation -> Table 1, about ten minutes; results in results/astrolabe/
	$(BIN)/astro reproduce astrolabe --quick

test: setup  ## the whole test suite
	$(BIN)/python -m pytest -q

numerics: setup  ## only the equations and the recordings of the released models
	$(BIN)/python -m pytest -q tests/numerics tests/golden

smoke: setup  ## every training command for a few steps
	$(BIN)/python -m pytest -q tests/e2e

lint: setup  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## pyright
	$(BIN)/pyright

imports: setup  ## the layers: who may import whom
	$(BIN)/lint-imports

check: lint types imports  ## lint, types and layers

bench: setup  ## speed and memory of the loops, as ratios from one run
	$(BIN)/python -m bench.__main__

tables: setup  ## print the papers' tables from the records in results/
	$(BIN)/astro table all
