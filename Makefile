# Run `make` for the list of targets.

VENV ?= .venv
PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null)
# Tests at a time: many wait for processes and terminals, so there are twice as many as there are cores.
JOBS ?= $(shell expr 2 '*' $$(getconf _NPROCESSORS_ONLN))
# 1: also install torch, which the starter projects and their tests train with.
STARTERS ?= 1
# Installed by itself before the `starters` extra, whose range would take the newest release: on Linux
# that can be a build with gigabytes of CUDA libraries where this one is at hand for the CPU.
TORCH_VERSION ?= 2.13.0

PY := $(VENV)/bin/python
# A benchmark is a file or a folder with a run.py; its docstring's first line says what it measures.
BENCHMARKS := $(wildcard benchmarks/*.py benchmarks/*/run.py)
STAMP := $(VENV)/.installed-$(if $(filter 1,$(STARTERS)),torch-$(TORCH_VERSION),no-torch)

.PHONY: help env clients ray demo test check bench clean

help:
	@echo "make env     create $(VENV) with all that the other targets need (STARTERS=0: without torch)"
	@echo "make clients  install the agent clients that some tests drive; without them these are skipped"
	@echo "make ray     install the Ray that some tests run trials on, in an environment of its own; likewise"
	@echo "make demo    watch a real campaign in tmux"
	@echo "make test    run the tests (JOBS=$(JOBS) at a time)"
	@echo "make check   lint, formatting, types"
	@echo "make bench   list the benchmarks; make bench NAME=x ARGS='...' runs one"
	@echo "make clean   remove $(VENV), caches and build leftovers"

env: $(STAMP)

$(STAMP): pyproject.toml .ci/env.sh .ci/need.sh
	@VENV='$(VENV)' PYTHON='$(PYTHON)' UV='$(UV)' STARTERS='$(STARTERS)' TORCH_VERSION='$(TORCH_VERSION)' \
		sh .ci/env.sh
	@touch $@

clients: $(STAMP)
	@sh .ci/clients.sh '$(VENV)'

ray: $(STAMP)
	@sh .ci/ray.sh '$(VENV)'

demo: $(STAMP)
	$(PY) scripts/demo.py

test: $(STAMP)
	$(PY) -m pytest -n $(JOBS) --dist loadgroup

check: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(STAMP)
ifdef NAME
	PYTHONPATH=scripts $(PY) $(firstword $(wildcard benchmarks/$(NAME).py) benchmarks/$(NAME)/run.py) $(ARGS)
else
	@$(foreach file,$(BENCHMARKS),printf '%-20s %s\n' '$(subst /run,,$(patsubst benchmarks/%.py,%,$(file)))' \
		"$$(sed -n 's/^"""//p' $(file) | head -n 1 | tr -d '"')";)
endif

clean:
	@if [ -f '$(VENV)/pyvenv.cfg' ]; then rm -rf '$(VENV)'; fi
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
