PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes of up to 5 GiB each. Each process takes whole files, since
# fixtures are shared within a file.
PYTEST := $(BIN)/python -m pytest -n 2 --dist=loadfile --no-loadscope-reorder

.PHONY: help setup serve-check quickstart results-check test test-integration test-all \
	check format docs tensorboard bench clean

help:  ## show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.installed  ## create the virtual environment and install the package

$(VENV)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing TensorFlow and the other dependencies (about 2.5 GB on disk) ..."
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: setup  ## see a shipped model at work, then train it further
	$(BIN)/vhe-tf quickstart

results-check: setup  ## measure the shipped models again (Omniglot: DATA_DIR=...)
	$(BIN)/vhe-tf reproduce --check $(if $(DATA_DIR),--data_dir=$(DATA_DIR)) $(if $(LAKE_RUNS),--lake_runs=$(LAKE_RUNS))

test: setup check  ## check the code and run the short unit tests
	$(PYTEST) -m "not slow and not integration and not extended"

test-integration: setup  ## run the longer tests and those that start other processes
	$(PYTEST) -m "(integration or extended) and not slow"

test-all: setup check  ## check the code and run every test, including the slow ones
	$(PYTEST)

check: setup  ## run the linter, the format check and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## build the site into site/; broken links are errors
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m tools.tutorials
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

tensorboard: setup  ## show the runs in TensorBoard
	$(BIN)/tensorboard --logdir runs

serve-check: setup  ## check a served model and load it (MODEL=..., ADDRESS=...)
	$(BIN)/python tools/serve_check.py --model=$(MODEL) $(if $(ADDRESS),--address=$(ADDRESS))

bench: setup  ## measure speed and memory, write docs/benchmarks.md (9 minutes)
	$(BIN)/python benchmarks/bench.py

clean:  ## delete the virtual environment and the caches, keep runs/
	rm -rf $(VENV) site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
