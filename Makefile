# What people and CI run. Every target sets up what it needs first and does nothing twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
RUN := PYTHONPATH=backend $(BIN)/python

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.runs ## Run the whole product on this machine, offline; ARGS="--port 8800 --data DIR"
	@exec env PYTHONPATH=backend $(BIN)/python -m plangate demo $(ARGS)

.PHONY: test
test: $(VENV)/.ready stripe-app/node_modules/.ready chromium ## Run every test; ARGS="tests/engine -k name" for some Python ones
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest $(or $(ARGS),--numprocesses auto --maxprocesses 4 --dist worksteal)
	$(if $(ARGS),,npm --prefix stripe-app test)

.PHONY: lint
lint: $(VENV)/.ready stripe-app/node_modules/.ready ## Check formatting, style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=backend $(BIN)/lint-imports
	npm --prefix stripe-app run --silent typecheck
	npm --prefix stripe-app run --silent lint

.PHONY: format
format: $(VENV)/.ready ## Put the code into its format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.ready ## Measure speed, each figure beside its floor; ARGS="--only http" for one part
	PYTHONPATH=backend:. $(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-engine
bench-engine: $(VENV)/.ready ## Measure decisions in one process, beside a dict and other engines where installed
	PYTHONPATH=backend:. $(BIN)/python -m benchmarks.engine $(ARGS)

.PHONY: proofs
proofs: $(VENV)/.ready ## Prove the promises with their full figures, which takes long; ARGS="-k limits" for some
	PATH="$(CURDIR)/$(BIN):$$PATH" PLANGATE_PROOFS=1 $(BIN)/pytest tests/proofs $(ARGS)

export FIND_CHROMIUM := from playwright.sync_api import sync_playwright; \
	started = sync_playwright().start(); print(started.chromium.executable_path); started.stop()

.PHONY: chromium
chromium: $(VENV)/.ready ## Find a Chromium for the browser tests, or install one
	@for name in chromium chromium-browser google-chrome google-chrome-stable $(BIN)/chromium; do \
		if command -v $$name >/dev/null; then exit 0; fi; \
	done; \
	echo "No Chromium found; installing one."; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; \
	elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then \
		sudo apt-get update -qq && sudo apt-get install -y -qq --no-install-recommends chromium; \
	else \
		{ $(BIN)/playwright install chromium && ln -sf "$$($(RUN) -c "$$FIND_CHROMIUM")" $(BIN)/chromium; } || \
		{ echo "Chromium could not be installed. Install chromium or google-chrome yourself, then run make test again." >&2; exit 1; }; \
	fi

.PHONY: lock
lock: ## Resolve the dependencies again (needs uv); writes requirements.txt and requirements-dev.txt
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv" >&2; exit 1; }
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--output-file requirements.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--group dev --output-file requirements-dev.txt pyproject.toml

.PHONY: clean
clean: ## Remove what was set up: the environment, node modules, caches
	rm -rf $(VENV) stripe-app/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# --- set-up: each stamp is newer than what it was made from ---

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed. Say where it is: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# What it takes to run Plangate, and no more: make demo waits for nothing else.
$(VENV)/.runs: requirements.txt | $(BIN)/python
	@echo "Installing what Plangate runs on"
	@$(PIP) install -qq --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.ready: requirements-dev.txt pyproject.toml | $(VENV)/.runs
	@echo "Installing what the tests and checks need"
	@$(PIP) install -qq --require-hashes -r requirements-dev.txt
	@$(PIP) install -qq --no-build-isolation --no-deps -e .
	@touch $@

stripe-app/node_modules/.ready: stripe-app/package-lock.json
	@command -v npm >/dev/null || { echo "Node 20 or newer is needed for the Stripe App: https://nodejs.org" >&2; exit 1; }
	@echo "Installing what the Stripe App needs"
	@npm --prefix stripe-app ci --no-audit --no-fund --silent
	@touch $@
