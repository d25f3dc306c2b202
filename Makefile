# Everything a fresh machine needs: `make demo` runs the main job, `make test` passes the tests. `make help` lists the rest.

# The first Python that is new enough, or the one named on the command line: make PYTHON=python3.12 demo
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$candidate && break; done)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := rtsx tests benchmarks
# The formatter also takes the Python of pages and notebooks.
FORMATTED := $(SOURCES) README.md docs
# Processes that run tests: one more than there are cores, because some wait for clusters and servers; four at most, because each
# takes some GB. make WORKERS=8 test
WORKERS ?= $(shell cores=$$(env -u OMP_NUM_THREADS nproc); echo $$((cores < 4 ? cores + 1 : 4)))

# A stamp is newer than pyproject.toml when the environment holds what pyproject.toml asks for, so a second `make`
# installs nothing. The demo needs less than the tests: its stamp is written by both.
USER_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev
DEV_EXTRAS := bench,deliver,docs,fast,gateway,onnx,openvino,order,s3,test,train,view

# Compiled code is kept, even where the shell says not to: tests start a hundred processes, and each would compile the package.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test quick check format lint types contract docs notebooks bench clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | awk -F '\t' '{printf "make %-9s %s\n", $$1, $$2}'

demo: $(USER_STAMP) ## make a scene, map it, score it, draw it (into demo-output/)
	$(BIN)/rtsx demo --overwrite

test: $(DEV_STAMP) ## run all tests and doctests
	@# One thread each, as there are several of them.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.forked --processes $(WORKERS)

quick: $(DEV_STAMP) ## test what a change in the working tree can break, without the slowest tests
	@tests=$$($(BIN)/python -m tests.changed); test -z "$$tests" || OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
		-p tests.forked --processes $(WORKERS) -m "not slow" --exitfirst $$tests

check: $(DEV_STAMP) ## what CI runs: format, lint, types, import contract, docs, tests
	$(BIN)/ruff format --check $(wildcard $(FORMATTED))
	$(MAKE) --no-print-directory lint types contract docs test

lint: $(DEV_STAMP)
	$(BIN)/ruff check $(wildcard $(SOURCES))

types: $(DEV_STAMP)
	$(BIN)/mypy

contract: $(DEV_STAMP)
	$(BIN)/lint-imports

format: $(DEV_STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix-only $(wildcard $(SOURCES))
	$(BIN)/ruff format $(wildcard $(FORMATTED))

docs: $(DEV_STAMP) ## build the documentation into site/, warnings are errors
	@# Not --quiet, because then warnings are neither shown nor counted.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(DEV_STAMP) ## run the notebooks of the documentation again and keep what they put out
	$(BIN)/python -m tests.notebooks

bench: $(DEV_STAMP) ## measure speed and memory against the bare network and against others
	$(BIN)/python -m benchmarks

clean: ## remove the environment, outputs and caches
	rm -rf $(VENV) demo-output site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(wildcard $(SOURCES)) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "rtsx needs Python 3.11 or newer, and none was found on PATH." \
		"Install one, or name it: make PYTHON=/path/to/python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rtsx needs Python 3.11 or newer;" \
		"$(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=/path/to/python3.12 demo" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Editable, so that a change in the sources is what the next command runs.
$(USER_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[fast,view]'
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(DEV_EXTRAS)]'
	@touch $(USER_STAMP) $@
