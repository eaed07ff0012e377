# Two commands for newcomers: `make demo`, `make test`. Everything lands in .venv and results/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help environment demo demo-compare test test-all lint bench docs gpu lock

PYTHON ?= python3.11
CORES ?= all
BIN := .venv/bin
INSTALLED := .venv/.installed

help:
	@echo "make demo          set up, run the whole chain on generated pictures, print its table"
	@echo "make demo-compare  the same, beside the plain-CAM baseline and the upper bound"
	@echo "make test          the tests: 12 minutes on 2 quick cores, 22 on 2 slow ones"
	@echo "make test-all      the slow tests too"
	@echo "make lint          ruff, mypy, snakefmt, snakemake --lint"
	@echo "make bench         the benchmarks, small: each stage against its naive form"
	@echo "make gpu           what only a GPU can show: agreement with the CPU, speed, memory"
	@echo "make docs          the pages, into site/; warnings are errors"
	@echo "make environment   only set up .venv; then: source .venv/bin/activate"
	@echo "make lock          renew requirements.lock after a change of pyproject.toml or constraints.txt"

environment: $(INSTALLED)

# requirements.lock holds all packages with the SHA-256 of their files, for what it was made for:
# Python 3.11 on Linux, x86_64. Elsewhere, or with LOCKED=no (an own PyTorch), constraints.txt alone
# decides.
LOCKED ?= $(shell $(PYTHON) -c 'import platform, sys; print("yes" if (*sys.version_info[:2], \
  sys.platform, platform.machine()) == (3, 11, "linux", "x86_64") else "no")' 2> /dev/null)

# uv takes a minute where pip takes several. It does not read pip's configuration, so that pip
# takes over on machines which only reach their packages through that. Compiled here, as pip does
# by itself: where PYTHONDONTWRITEBYTECODE is set, every stage would compile PyTorch anew (4 s), and
# the library.
$(INSTALLED): pyproject.toml constraints.txt requirements.lock envs/uv.lock
	@command -v $(PYTHON) > /dev/null || { \
	  echo "make: $(PYTHON) is not here; name a Python of 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/uv.lock
ifeq ($(LOCKED),yes)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
	  --require-hashes -r requirements.lock \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
else
	@echo "make: not Python 3.11 on Linux x86_64: constraints.txt instead of requirements.lock"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
	  -c constraints.txt -e '.[dev]' \
	  || $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
endif
	$(BIN)/python -m compileall -q wsss
	touch $@

# What is in the lock files already stays as it is, unless pyproject.toml or constraints.txt want
# something else; newer versions are for who deletes them first.
UV_LOCK = $(BIN)/uv pip compile --quiet --generate-hashes --no-header \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28
lock: $(INSTALLED)
	$(UV_LOCK) -c constraints.txt --extra dev pyproject.toml --output-file requirements.lock
	$(UV_LOCK) envs/uv.in --output-file envs/uv.lock

demo: $(INSTALLED)
	@start=$$SECONDS; \
	$(BIN)/snakemake --cores $(CORES) results/demo/done; \
	echo; $(BIN)/wsss table results/demo; \
	echo; echo "wall time: $$((SECONDS - start)) s"; \
	echo "report:    results/demo/report.html"

demo-compare: $(INSTALLED)
	@start=$$SECONDS; \
	$(BIN)/snakemake --cores $(CORES) demo_compare; \
	echo; $(BIN)/wsss table results/demo results/demo-cam results/demo-gt; \
	echo; echo "wall time: $$((SECONDS - start)) s"; \
	echo "reports:   results/demo{,-cam,-gt}/report.html"

# Processes that share the tests; of the slow ones a file at a time, as files share a cluster.
TEST_PROCESSES ?= 2
test: $(INSTALLED)
	$(BIN)/pytest -m "not slow" --numprocesses $(TEST_PROCESSES) --dist worksteal

test-all: $(INSTALLED)
	$(BIN)/pytest -m slow --numprocesses $(TEST_PROCESSES) --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check --line-length 100 Snakefile workflow
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# The environment is not a condition: it runs with whatever Python has the packages, such as a
# cluster's own (make gpu GPU_PYTHON=python3), and installs nothing.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
MINUTES ?= 8
gpu:
	$(GPU_PYTHON) -m benchmarks.gpu --minutes $(MINUTES)

docs: $(INSTALLED)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[docs]' \
	  || $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir site
