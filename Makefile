# Everything stands on `make setup`: a virtual environment in .venv with Luthier installed from this folder.
PYTHON ?= python3
BIN := .venv/bin

# Two workers with one thread each: tests compute on little models, which more threads make slower. WORKERS=4 where there are more cores.
WORKERS ?= 2
# Compiled files are kept whatever the environment says: without them each run, worker and process that a test starts compiles anew.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) --dist load

.PHONY: quickstart test-fast test test-slow check format models setup setup-dev clean

quickstart: setup        ## tune an embedded model on Python's own library, and measure it
	$(BIN)/luthier quickstart

test-fast: setup-dev     ## the tests that take under half a second of a core each: while you work, in under two minutes
	$(PYTEST) -m "not medium and not slow"

test: setup-dev          ## all tests but the slow ones: before you propose a change, about ten minutes on two cores
	$(PYTEST) -m "not slow"

test-slow: setup-dev     ## the slow ones: whole matrices of what is killed and resumed, of damaged files, before a release
	$(PYTEST) -m slow

check: setup-dev         ## format, lint, types, layers, stale documents
	$(BIN)/ruff format --check src tests bench docs examples
	$(BIN)/ruff check src tests bench docs examples
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/make.py --check

format: setup-dev        ## format, and write the generated documents
	$(BIN)/ruff check --fix src tests bench docs examples
	$(BIN)/ruff format src tests bench docs examples
	$(BIN)/python docs/make.py

models: setup-dev        ## docs/models.md again, after a change of how models are computed or of transformers: two minutes
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python docs/models.py

setup: .venv/installed
setup-dev: .venv/installed-dev

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Luthier needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --use-pep517 --editable .
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/installed
	$(BIN)/python -m pip install --quiet --use-pep517 --editable '.[dev]'
	@touch $@

clean:                   ## remove the environment and caches; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
