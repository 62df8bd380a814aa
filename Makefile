# Two commands do everything: `make demo` runs Tollgate on embedded defaults, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.8

# Images often set it; then each process compiles all that it imports, which is more than half of a command's time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test stripe-cli bench lock format clean

demo: $(VENV)/.run
	@$(BIN)/tollgate demo $(ARGS)

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# Another judge of the simulated Stripe: the official CLI, which needs Node and is no part of the suite.
STRIPE_CLI := $(VENV)/stripe-cli
STRIPE_CLI_VERSION := 1.52.0

stripe-cli: $(VENV)/.test
	@npm install --silent --ignore-scripts --no-save --prefix $(STRIPE_CLI) @stripe/cli@$(STRIPE_CLI_VERSION)
	TOLLGATE_TEST_STRIPE_CLI=$(STRIPE_CLI)/node_modules/.bin/stripe $(BIN)/pytest -q tests/sandbox/stripe/stripe_cli.py $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m bench $(ARGS)

# Locked, hash-checked dependencies; the project itself editable, so that a checkout runs what it holds.
define install
	@echo "installing the locked dependencies ($(1))"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/$(1).txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(VENV)/.$(1)
endef

$(VENV)/.uv: Makefile
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tollgate needs Python 3.11 or newer; name one with make PYTHON=…" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.run: $(VENV)/.uv requirements/run.txt pyproject.toml
	$(call install,run)

$(VENV)/.test: $(VENV)/.uv requirements/test.txt pyproject.toml
	$(call install,test)

$(VENV)/.bench: $(VENV)/.uv requirements/bench.txt pyproject.toml
	$(call install,bench)

lock: $(VENV)/.uv
	@for set in run test bench; do \
		extra=$$([ $$set = run ] || echo "--extra $$set"); \
		$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
			--no-annotate --no-emit-find-links pyproject.toml requirements/build.in $$extra -o requirements/$$set.txt; \
	done

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
