# `make` lists the commands. The first that needs it sets up .venv; later ones do not reinstall.
#
# .venv has the newest Python that is found, and with it the newest JAX; PYTHON=python3.11 names
# another, which gets an environment of its own, .venv-oldest for the oldest that is supported.

OLDEST := 3.11
# What depends on the version of JAX and not on the algebra, in ten minutes of CPU time.
ON_OLDEST := tests/test_around.py tests/test_batches.py tests/test_errors.py tests/test_programs.py gaussjax
# What native kernels compute.
WITHOUT_KERNELS := tests/test_conformance.py tests/test_linalg.py tests/test_divergences.py tests/test_observations.py tests/test_updates.py
BUILD := gaussjax/linalg/_kernels/native/build.py
KERNELS = $(wildcard gaussjax/linalg/_kernels/native/*.cc gaussjax/linalg/_kernels/native/*.h)
version = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

ifdef PYTHON
VENV := .venv-$(patsubst $(OLDEST),oldest,$(version))
else
VENV := .venv
endif
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := examples,test,dev
DOCS := .venv-docs
SITE := build/docs
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train references test test-oldest test-plain sanitize lint types format bench release-check docs docs-serve

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  ARGS="--help" passes arguments on, as in: make train ARGS="--posterior diagonal"'
	@echo '  PYTHON=python3.11 takes another Python, in an environment of its own'

train: $(READY) ## Train the VAE on the digits: numbers, pictures and checkpoints in runs/
	$(BIN)/python -m examples.vae $(ARGS)

references: $(READY) ## Train the reference VAEs, into examples/vae/results: hours; ARGS="--data-dir MNIST"
	$(BIN)/python -m examples.vae.references $(ARGS)

test: $(READY) ## Run every test and doctest
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-oldest: ## Run a part of the tests on the oldest Python and JAX, if there is such a Python
	@if python$(OLDEST) --version >/dev/null 2>&1; then \
	    $(MAKE) test PYTHON=python$(OLDEST) ARGS='$(ON_OLDEST)'; \
	else \
	    echo 'There is no Python $(OLDEST) here: the oldest JAX is not tested.'; \
	fi

test-plain: $(READY) ## Run what depends on the kernels without the native ones
	GAUSSJAX_NATIVE=0 $(BIN)/python -m pytest -n 2 --dist loadgroup $(WITHOUT_KERNELS) $(ARGS)

sanitize: $(READY) ## Run the native kernels under the address and undefined-behaviour sanitizers
	$(BIN)/python $(BUILD) -fsanitize=address,undefined -fno-sanitize-recover=all -g
	@LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0 \
	    $(BIN)/python -m pytest -n 0 tests/test_native.py $(ARGS); status=$$?; \
	$(BIN)/python $(BUILD); exit $$status

lint: $(READY) ## Check style, formatting and the layers' import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(KERNELS)
	$(BIN)/lint-imports

types: $(READY) ## Check types, and that every public name has one
	$(BIN)/pyright --pythonpath $(BIN)/python
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes gaussjax --ignoreexternal --outputjson \
	    | $(BIN)/python .ci/typed.py

format: $(READY) ## Fix what can be fixed, and format
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(KERNELS)

bench: $(READY) ## Compare speed with other libraries: tables and figures in benchmarks/results/
	$(BIN)/python -m benchmarks speed $(ARGS)

release-check: .venv-release/.ready ## Check that this commit can be released; ARGS=--dry-run before it is tagged
	.venv-release/bin/python .ci/release.py $(ARGS)

.venv-release/.ready: $(READY) constraints.txt
	$(BIN)/python -m venv --clear .venv-release
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt build twine
	@touch $@

docs: $(DOCS)/.ready ## Build the site in build/docs, without a network; every cell is run
	$(DOCS)/bin/python -m sphinx --fail-on-warning --keep-going --quiet docs $(SITE) $(ARGS)
	@echo 'The site: $(SITE)/index.html'

docs-serve: docs ## Show the site at http://127.0.0.1:8000
	$(DOCS)/bin/python -m http.server --bind 127.0.0.1 --directory $(SITE) 8000

# The stamp is written last: an interrupted installation is taken up again, a finished one is kept.
# The tools of the site have an environment of their own, so that no other command installs them.
$(DOCS)/.ready: EXTRAS := docs,examples
$(READY) $(DOCS)/.ready: pyproject.toml constraints.txt hatch_build.py $(wildcard $(addprefix gaussjax/linalg/_kernels/native/,*.cc *.h build.py))
	@if ! $(@D)/bin/python -m pip --version >/dev/null 2>&1; then \
	    for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
	        if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	            echo "Creating $(@D) with $$($$python --version)"; \
	            exec $$python -m venv --clear $(@D); \
	        fi; \
	    done; \
	    echo 'gaussjax needs Python 3.11 or newer, and none was found on the PATH.' >&2; \
	    echo 'Install one, or name it: make PYTHON=/path/to/python3.13 ...' >&2; \
	    exit 1; \
	fi
	@echo 'Installing into $(@D): a few minutes, this once'
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@
