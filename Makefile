# `make` lists the commands. The first that needs it sets up .venv; later ones do not reinstall.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train test lint types format bench

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  ARGS="--help" passes arguments on, as in: make train ARGS="--posterior diagonal"'

train: $(READY) ## Train the VAE on the digits: numbers, pictures and checkpoints in runs/
	$(BIN)/python -m examples.vae $(ARGS)

test: $(READY) ## Run every test and doctest
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(READY) ## Check style, formatting and the layers' import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(READY) ## Check types, and that every public name has one
	$(BIN)/pyright
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes gaussjax --ignoreexternal

format: $(READY) ## Fix what can be fixed, and format
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: $(READY) ## Compare speed with other libraries: tables and figures in benchmarks/results/
	$(BIN)/python -m benchmarks speed $(ARGS)

# The stamp is written last: an interrupted installation is taken up again, a finished one is kept.
$(READY): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    for python in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14; do \
	        if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	            echo "Creating $(VENV) with $$($$python --version)"; \
	            exec $$python -m venv --clear $(VENV); \
	        fi; \
	    done; \
	    echo 'gaussjax needs Python 3.11 or newer, and none was found on the PATH.' >&2; \
	    echo 'Install one, or name it: make PYTHON=/path/to/python3.11 ...' >&2; \
	    exit 1; \
	fi
	@echo 'Installing into $(VENV): a few minutes, this once'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[examples,test,dev]'
	@touch $@
