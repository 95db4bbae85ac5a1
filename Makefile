# Everything runs in .venv, made on first use and renewed when pyproject.toml or constraints.txt change.
#   make demo ARGS="--exit --hours 8 --edges 3 --seed 7 --json out.json"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow bench-accuracy bench-loop lint types clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

demo: $(VENV)/.demo ## Run the whole loop on this machine, on real solar cells
	@$(BIN)/edgeloop demo $(ARGS)

test: lint types ## Lint, types, then every test but the slow ones
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev ## The tests that take minutes
	@$(BIN)/python -m pytest -m slow $(ARGS)

bench-accuracy: $(VENV)/.demo ## Is the accuracy interval honest? Thousands of simulated hours, no servers
	@$(BIN)/edgeloop bench accuracy $(ARGS)

bench-loop: $(VENV)/.demo ## The demo over five seeds, as one table
	@$(BIN)/edgeloop bench loop $(ARGS)

lint: $(VENV)/.dev ## ruff and the import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/.dev ## mypy
	@$(BIN)/mypy

clean: ## Remove runs, caches and builds; .venv stays
	@rm -rf var build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "edgeloop needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "this Python cannot make environments: install its venv module (Debian: apt install python3-venv)"; exit 1; }
	@echo "Making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing edgeloop[demo]: some minutes the first time"
	@$(PIP) install --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing edgeloop[dev]: some minutes the first time"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@
