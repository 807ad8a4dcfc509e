PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes, 5 GiB each. The files of a folder in turn: fixtures are theirs.
PARALLEL := -n 2 --dist=loadfile --no-loadscope-reorder

.PHONY: help setup quickstart results-check test test-slow check format tensorboard bench clean

help:  ## show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed  ## make the virtual environment and install the package in it

$(VENV)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing TensorFlow and the rest (about 2.5 GB on disk) ..."
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: setup  ## train, evaluate and picture a small VHE on the embedded data set
	$(BIN)/python trainers/omniglot.py --flagfile=trainers/flagfiles/quickstart.flags

results-check: setup  ## measure the shipped models again; Omniglot in DATA_DIR=...
	$(BIN)/python trainers/reproduce.py --check $(if $(DATA_DIR),--data_dir=$(DATA_DIR)) $(if $(LAKE_RUNS),--lake_runs=$(LAKE_RUNS))

test: setup check  ## lint, check types and run the tests, but for the slow ones
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-slow: setup  ## run the slow tests: whole trainings, further cases
	$(BIN)/python -m pytest -m slow $(PARALLEL)

check: setup  ## lint and check types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tensorboard: setup  ## follow the runs in a browser
	$(BIN)/tensorboard --logdir runs

bench: setup  ## measure speed and memory into docs/benchmarks.md, eleven minutes
	$(BIN)/python benchmarks/bench.py

clean:  ## delete the virtual environment and caches; runs/ stays
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
