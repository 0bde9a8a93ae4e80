# Two commands for a fresh machine with Python and nothing else: `make demo` and `make test`.
# For those who work on it: `make check` is short, `make lint` shorter, `make coverage` runs all tests and counts lines.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# a file is one process's, so that what its tests share (a cluster, a trained model) is made once; the order is that of
# the names, in which the files that take longest come early
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo check lint fast test coverage benchmarks clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints-cpu.txt --editable '.[dev]'
	touch $@

# phantom LiTS -> convert -> plan and preprocess -> train RA-U-Net -> predict -> Dice and pictures, on the CPU
demo: setup
	$(BIN)/nnunet_ext demo --out demo

# lint, types and the fast tests, in two minutes
check: lint fast

# everything
test: lint
	$(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/deptry .
	$(BIN)/sp-repo-review .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

fast: setup
	$(PYTEST) -m "not slow and not browser and not slurm"

coverage: setup
	$(PYTEST) --cov --cov-report=term

# every figure in benchmarks/results, side by side on this machine
benchmarks: setup
	for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

clean:
	rm -rf $(VENV) demo build dist *.egg-info
