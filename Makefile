# Two commands for a person: `make run` and `make test`. The rest is for those who work on it.
SHELL := /bin/sh
PYTHON ?= $(shell sh deploy/choose-python.sh)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run demo test check chaos bench format lock sbom clean

help: ## What there is
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 10

run: $(VENV)/.compiled ## Start the proxy with the embedded store and no config file
	@exec $(BIN)/tokenweir serve $(ARGS)

demo: $(VENV)/.compiled ## Watch a runaway agent being found and stopped: no API key, no network
	@exec $(BIN)/tokenweir demo $(ARGS)

test: $(VENV)/.dev $(VENV)/.compiled ## Run the tests
	@sh tests/setup.sh
	@$(BIN)/python -m pytest -q -m "not slow" -n 3 --dist loadfile $(ARGS) || { \
	  echo "once more, one at a time: what failed beside others on a busy machine"; \
	  $(BIN)/python -m pytest -q -m "not slow" --last-failed --last-failed-no-failures none; }

check: $(VENV)/.dev ## Lint, types, import rules, dead code, lock, docs
	@sh tests/check.sh

chaos: $(VENV)/.dev $(VENV)/.compiled ## Every fault, for real
	@sh tests/setup.sh chaos
	@$(BIN)/python -m pytest -q tests/chaos $(ARGS)
	@$(BIN)/python -m tests.chaos.report

bench: $(VENV)/.dev $(VENV)/.compiled ## The benchmarks, here and now
	@sh tests/setup.sh bench
	@sh tests/benchmarks/run.sh $(ARGS)

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .

lock: $(VENV)/.dev ## Renew the lock files
	@$(PIP) install pip-tools
	@$(BIN)/pip-compile -q --generate-hashes --strip-extras --no-header --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements.lock pyproject.toml
	@$(BIN)/pip-compile -q --generate-hashes --strip-extras --no-header --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  -o tests/requirements.lock tests/requirements.in

sbom: $(VENV)/.run ## Write the bill of materials (CycloneDX) to sbom.json
	@$(BIN)/python deploy/sbom.py > sbom.json && echo "sbom.json written"

clean: ## Remove what the commands above made
	find proxy detection -name __pycache__ -prune -exec rm -rf {} +
	rm -rf sbom.json $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, with its venv module" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The command runs from this tree, so that it is never older than the source.
$(VENV)/.run: requirements.lock $(BIN)/python
	@echo "installing (once)..."
	@$(PIP) install --require-hashes -r requirements.lock
	@printf '#!%s\nimport sys\nsys.path.insert(0, "%s")\nfrom proxy.cli import main\nmain()\n' \
	  "$(CURDIR)/$(BIN)/python" "$(CURDIR)" > $(BIN)/tokenweir
	@chmod +x $(BIN)/tokenweir
	@touch $@

# A fifth of the time to start is compiling where Python may not keep what it compiled.
$(VENV)/.compiled: $(shell find proxy detection -name '*.py') $(VENV)/.run
	@$(BIN)/python -m compileall -q proxy detection
	@touch $@

$(VENV)/.dev: tests/requirements.lock $(VENV)/.run
	@echo "installing what the tests need (once)..."
	@$(PIP) install --require-hashes -r tests/requirements.lock
	@touch $@
