PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test fuzz check bench figures

demo: $(READY)
	$(BIN)/python -m benchmarks.demo

test: $(READY)
	$(BIN)/python -m pytest

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --files 10000

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.measure

figures: $(READY)
	$(BIN)/python -m benchmarks.plot

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@
