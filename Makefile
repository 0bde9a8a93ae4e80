# Two commands for a fresh machine with Python and nothing else: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint benchmarks clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints-cpu.txt --editable '.[dev]'
	touch $@

# phantom LiTS -> convert -> plan and preprocess -> train RA-U-Net -> predict -> Dice and pictures, on the CPU
demo: setup
	$(BIN)/nnunet_ext demo --out demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# every figure in benchmarks/results, side by side on this machine
benchmarks: setup
	$(BIN)/pip install --quiet --constraint constraints-cpu.txt --editable '.[dev,benchmark]'
	for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

clean:
	rm -rf $(VENV) demo build dist *.egg-info
