# Every target sets up .venv itself, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check slow clean

demo: $(READY)
	$(BIN)/tiltmeter demo --out demo
	$(BIN)/tiltmeter report demo --out demo.html

test: $(READY)
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(READY)
	$(BIN)/pytest -m slow

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps steering-vectors==0.12.2 # compared with in a test; its own pins are old
	touch $@

clean:
	rm -rf .venv demo demo.html
