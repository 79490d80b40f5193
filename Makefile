# One command from a bare clone:  make demo   or   make test
# Needs Python >= 3.11 with venv, and a C and C++ compiler. Everything installs into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
N      ?= 2000
# What decides whether the installed package is up to date; Python files are used in place.
INPUTS := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f 2>/dev/null)

.PHONY: demo test bench fuzz cuda clean

demo: $(VENV)/.demo
	@if [ -e bench/demo.py ]; then $(BIN)/python -m bench.demo; else $(BIN)/perfkit doctor; fi

# All three run whatever the others find, so that one run shows everything.
test: $(VENV)/.test
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/mypy || status=1; \
	$(BIN)/python -m pytest || status=1; \
	exit $$status

bench: $(VENV)/.demo
	$(BIN)/python -m bench.polybench --dataset LARGE --measure 4

# Every CUDA kernel for sm_90a, registers and spills against csrc/cuda/budget.txt. No GPU needed.
cuda:
	$(PYTHON) csrc/cuda/registers.py --list

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz --n $(N)

$(VENV)/.demo: $(VENV)/bin/python $(INPUTS)
	$(BIN)/python -m pip install --quiet --editable '.[ui,bench]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python $(INPUTS)
	$(BIN)/python -m pip install --quiet --editable '.[ui,test]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "perfkit needs Python 3.11 or later; $(PYTHON) is older or missing: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: apt install python3-venv (Debian, Ubuntu), or make PYTHON=/path/to/another ..." >&2; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { \
	  echo "no C++ compiler found: apt install g++ (Debian, Ubuntu) or dnf install gcc-c++ (Fedora)" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { \
	  echo "the headers of $(PYTHON) are missing: apt install python3-dev (Debian, Ubuntu)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis perfkit/*.so
	find perfkit tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
