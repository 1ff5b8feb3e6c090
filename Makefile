# Two commands do everything on a machine with python3 (>= 3.11), git and make:
#   make demo   environment, install, plan, verify, replay, report -> out/
#   make test   environment, install, the tests
#
# PYTHON=python3.12   the interpreter the environment is made with
# TORCH_INDEX=URL     package index with CPU wheels of torch
# TORCH=any|skip      install torch even with its CUDA packages | never install it
# JOBS=N              test processes

PYTHON ?= python3
TORCH ?=
TORCH_INDEX ?=
JOBS ?= 2
OUT ?= out
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup kernels demo test bench lint types contracts format check wheel clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -n 9
	@echo "also: setup bench lint types contracts check format wheel clean"

setup:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "set-up: '$(PYTHON)' is not on PATH; install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "set-up: $$($(PYTHON) --version 2>&1) is too old, the planner needs 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" scripts/setup_env.py --torch "$(TORCH)" --torch-index "$(TORCH_INDEX)"

# Compiling the numba kernels takes about a minute of one core once; afterwards they are loaded.
kernels: setup
	@$(BIN)/python -c 'from planner.pipeline import compile_kernels; compile_kernels()'

demo: kernels
	@$(BIN)/python scripts/demo.py --out "$(OUT)"

test: kernels
	@$(BIN)/python -m pytest -n $(JOBS)

# Placement quality on the fast cases, held against benchmarks/baseline.json.
bench: kernels
	@$(BIN)/planner bench --jobs $(JOBS) --out "$(OUT)/bench"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

check: lint types contracts bench test

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: setup
	$(BIN)/python -m build --wheel

clean:
	rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
