# make demo   set up, make a river scene, turn it into polygons
# make test   set up, run the tests
#
# Both make a virtual environment in .venv the first time, and again install into it only when
# pyproject.toml has changed. Nothing outside this folder is touched.

VENV ?= .venv
BIN := $(VENV)/bin

# The first Python that is new enough; on a Mac, plain python3 may be an old one.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)

# Workers for the tests; each computes with one thread, or they would stand in each other's way.
WORKERS ?= 2

export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help demo test check format bench docs clean

help:
	@sed -n 's/^# \(make .*\)/  \1/p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed
	@$(BIN)/python -m geosam.demo

test: $(VENV)/.installed-dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

# make check  style and types
check: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict

# make format mend the style where a tool can
format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# make bench  measure speed and memory on large scenes, write benchmarks/README.md (takes long)
bench: $(VENV)/.installed
	@$(BIN)/python benchmarks/run.py

# make docs   build the documentation into build/site, with the pictures that it needs
docs: $(VENV)/.installed-dev docs/figures/failures.md
	@$(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

docs/figures/failures.md: docs/figures.py geosam/models/weights/river-tiny.safetensors | $(VENV)/.installed-dev
	@$(BIN)/python docs/figures.py

# make clean  remove what demo, tests and benchmarks left; .venv stays
clean:
	@rm -rf demo runs build dist docs/figures .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find geosam tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that a virtual environment gets, so a half-made one is made again.
$(BIN)/pip:
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "geosam needs Python 3.11 or newer, found: $$($(or $(PYTHON),python3) --version 2>&1 | head -1). Name one: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	@echo "Installing geosam into $(VENV): 3 to 10 minutes and about 7 GB the first time, most of it PyTorch."
	@$(BIN)/python -m pip install -qq -e .
	@touch $@

# The development install holds the plain one.
$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo "Installing geosam and its test tools into $(VENV): 3 to 10 minutes and about 7 GB the first time, most of it PyTorch."
	@$(BIN)/python -m pip install -qq -e '.[dev,train]'
	@touch $(VENV)/.installed $@
