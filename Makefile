# What a contributor needs; docs/HACKING.md explains.
#
#     make check                          build in place, lint, types, tests
#     make test BIN=~/venvs/313/bin       with another virtual environment than .venv

PYTHON ?= python3
BIN ?= .venv/bin
CYTHON_FILES = $(shell find swapco -name '*.pyx' -o -name '*.pxd')

.PHONY: check build lint types test stress bench docs clean

check: build lint types test

# an environment with everything in it, unless BIN names another
.venv/bin/python:
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -e '.[dev]'

# compiles what has changed, beside its source
build: $(BIN)/python
	$(BIN)/python setup.py -q build_ext --inplace

lint:
	$(BIN)/ruff check .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/cython-lint --max-line-length 120 $(CYTHON_FILES)

types:
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest swapco --allowlist tests/stubtest-allowlist.txt \
		--ignore-unused-allowlist --ignore-disjoint-bases

test:
	$(BIN)/pytest

# the random tests again, for longer
stress:
	$(BIN)/pytest -m stress --stress-seconds=60

# about eight minutes; `make bench ARGS=--quick` for a first look
bench:
	$(BIN)/python -m benchmarks $(ARGS)

# what docs/ takes from the code
docs:
	$(BIN)/python docs/generate.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find swapco -name '*.so' -delete -o -name '*.c' -delete -o -name '*.html' -delete
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
