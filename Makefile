# Each target does its own set-up: a virtual environment in the checkout with the pinned dependencies.
# Needs Python 3.11 and its venv module; name another interpreter with `make PYTHON=... test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := lce,tfmot,dev
STAMP := $(VENV)/.installed
# Further arguments for the program that a target runs, e.g. `make demo ARGS="--dataset cifar10"`.
ARGS ?=

.PHONY: bench-engine bench-search results results-full help install demo docs test test-all fuzz lint format wheels clean

help:
	@echo "make demo      from two small networks on real data to measured .tflite files"
	@echo "make test      the tests (make test-all: with the slow ones)"
	@echo "make fuzz      the property tests at length: 5,000 random graphs, 10,000 damaged files"
	@echo "make bench-engine   speed and memory of the engine, beside Torch-Pruning"
	@echo "make bench-search   ratio searches, beside Keras-Tuner and Optuna (hours; ARGS=--quick: digits)"
	@echo "make results   tables and plots of the documentation, from what the benchmarks kept"
	@echo "make results-full   the benchmarks first, all of them (days; goes on where it was stopped)"
	@echo "make docs      builds the documentation into site/, every link inside it checked"
	@echo "make lint      ruff (lint and format) and mypy over both packages"
	@echo "make format    lets ruff rewrite the files"
	@echo "make wheels    builds the source archive and the wheel into dist/"
	@echo "make install   only the set-up; make clean removes what was built, not the environment"

install: $(STAMP)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python found. Debian: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "The pinned dependencies need Python 3.11 or 3.12; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot create virtual environments (its ensurepip module is missing)."; \
	  echo "Debian and Ubuntu keep it in a package of its own: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml requirements.lock | $(BIN)/python
	@echo "Installing the pinned dependencies and this checkout into $(VENV); the first time takes a few minutes."
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	$(BIN)/tfqprune demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal $(ARGS)

test-all: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

# Hypothesis marks its tests itself; the profile (tests/conftest.py) sets the number of examples.
fuzz: $(STAMP)
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=fuzz $(ARGS)

# Torch-Pruning lives in an environment of its own: nothing of ours needs torch.
.venv-peers/.installed: benchmarks/peers/requirements.txt | $(BIN)/python
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check --quiet --requirement $<
	@touch $@

bench-engine: $(STAMP) .venv-peers/.installed
	$(BIN)/python benchmarks/engine.py --peer-python .venv-peers/bin/python $(ARGS)

# Pictures and pages; a link that leads nowhere is an error. The examples and tests do without these packages.
$(VENV)/.docs-installed: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock --editable '.[$(EXTRAS),docs]'
	@touch $@

docs: $(VENV)/.docs-installed
	$(BIN)/python docs/pictures/draw.py
	$(BIN)/python -m mkdocs build --strict --clean $(ARGS)
	@echo "Open site/index.html."

$(VENV)/.bench: pyproject.toml requirements.lock | $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock --editable '.[bench]'
	@touch $@

bench-search: $(VENV)/.bench
	$(BIN)/python benchmarks/search.py $(ARGS)

results: $(STAMP)
	$(BIN)/python benchmarks/results_page.py --all

# In the order of what rests on what: baselines are trained by the first that needs them, and kept.
results-full: $(VENV)/.bench .venv-peers/.installed
	$(BIN)/python benchmarks/criteria.py
	$(BIN)/python benchmarks/criteria.py --split test --criteria random latent_l1 reconstruction
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/trial_cost.py
	$(BIN)/python benchmarks/search.py --fidelity 40
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/search.py --final
	$(BIN)/python benchmarks/holistic.py
	$(BIN)/python benchmarks/grid.py --precisions 2 binary float
	$(BIN)/python benchmarks/grid.py --precisions 2 binary --network vgg_small --width 0.25
	$(BIN)/python benchmarks/magnitude.py
	$(BIN)/python benchmarks/published.py
	$(BIN)/python benchmarks/engine.py --peer-python .venv-peers/bin/python
	$(BIN)/python benchmarks/size.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/results_page.py --all

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

wheels: $(STAMP)
	$(BIN)/python -m build

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
