# `make` lists the targets. They all use .venv, which is created on first use.

PYTHON ?= python3
PORT ?= 5000
ARCHIVE ?= data/archive.tar.gz
SPEEDRUN := benchmarks/results/speedrun-cuda.json
BIN := .venv/bin
INSTALLED := .venv/installed
# uv, if there is one, is several times faster than pip.
PIP = $(if $(shell command -v uv),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)
# Processes that these commands start, such as DVC's stages, use the environment, too.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1 \t/' | expand -t 16

install: $(INSTALLED) ## create .venv and install everything, pinned by constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), expected Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing about 2 GB of packages, mostly PyTorch: two minutes on a fast connection"
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## run the whole pipeline on the built-in dataset as the experiment "demo", then show the result
	@$(BIN)/dvc exp remove --quiet demo 2>/dev/null || true
	$(BIN)/dvc exp run --temp --name demo --set-param data.dataset=shapes10
	@$(BIN)/python -m pipeline show demo
	@echo
	@echo "The demo ran on the built-in dataset. Next:"
	@echo "  source .venv/bin/activate                                 use the environment in this shell"
	@echo "  make ui                                                   browse the run in MLflow"
	@echo "  dvc repro                                                 the same on CIFAR-10 (downloads 170 MB)"
	@echo "  dvc exp run --temp -n tanh -S model.cnn.activation=tanh   change a parameter, keep both results"
	@echo "  python -m pipeline compare --all                          rank experiments, test whether differences are significant"

PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED) ## run all tests, in about a quarter of an hour on two cores: no network, no GPU needed
	$(PYTEST) --durations=20

test-fast: $(INSTALLED) ## run the unit tests alone, in about two minutes
	$(PYTEST) -m 'not e2e'

lint: $(INSTALLED) ## check style, types and which package imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

torture: $(INSTALLED) ## let every system call of every stage fail once, or kill the stage there: hours; needs strace
	$(BIN)/python -m pytest -m torture

gpu-check: $(INSTALLED) ## check a CUDA GPU: its tests, the demo, presets against their peers; ARCHIVE=FILE takes other images
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || \
		{ echo "error: PyTorch finds no CUDA GPU; expected one, see nvidia-smi"; exit 1; }
	$(BIN)/python -m pytest -m gpu
	$(MAKE) demo
	test -e $(ARCHIVE) || $(BIN)/dvc repro download
	$(BIN)/python -m benchmarks.speedrun --device cuda --runs 10 --archive $(ARCHIVE) --json $(SPEEDRUN)

ui: $(INSTALLED) ## compare runs in MLflow on http://127.0.0.1:5000 (or PORT=...) until Ctrl-C
	@$(BIN)/python -m pipeline ui --port $(PORT)

lock: $(INSTALLED) ## pin the installed package versions in constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt
	@touch $(INSTALLED)

.PHONY: help install demo test test-fast lint torture gpu-check ui lock
