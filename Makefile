# Everything stands on `make setup`: a virtual environment in .venv with Luthier installed from this folder.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-slow check format setup setup-dev clean

quickstart: setup        ## tune an embedded model on Python's own library, and measure it
	$(BIN)/luthier quickstart

test: setup-dev          ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup-dev     ## the slow ones
	$(BIN)/python -m pytest -m slow

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
