# Everything that set-up downloads or builds stays in this folder; nothing is written to the home folder.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
UV_VERSION := 0.13.9
# The CPU build, which PyPI does not carry: pip finds it where pip is configured to.
TORCH := torch==2.13.0+cpu

# The edge node's sandbox, and for the tests a TPM emulator with its tools, a real PostgreSQL and a browser. Installed
# where set-up may, named where it may not.
DEBIAN_PACKAGES := swtpm tpm2-tools bubblewrap libseccomp2 nftables postgresql chromium
DEBIAN_INSTALL := { test "$$(id -u)" = 0 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $(DEBIAN_PACKAGES); }

export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
# the machine's own certificates, for networks behind a proxy that signs with its own
export UV_SYSTEM_CERTS ?= 1
export UV_PYTHON := $(PYTHON)
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export APE_DATA_FOLDER := $(CURDIR)/.cache/ape
export VVM_BINARY_PATH := $(CURDIR)/.cache/vvm
# Where it is set, each of the many processes would compile every module again, several seconds each.
unexport PYTHONDONTWRITEBYTECODE
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib

UV := .tools/bin/uv
BIN := .venv/bin
ARGS ?=

.PHONY: help setup run console test test-long lint format bench mutants ape artifacts docs package clean

help: ## show the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .cache/setup ## install everything into this folder (done by the other commands too)

# What set-up says goes to stderr, so that `make run ARGS=--json` can be piped.
.cache/setup: uv.lock pyproject.toml package-lock.json Makefile
	@echo "set-up: Python packages, the local chain, PyTorch's CPU build" >&2
	@$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), "Python 3.11 is needed"'
	@test -x $(UV) || { $(PYTHON) -m venv .tools && .tools/bin/pip install --quiet uv==$(UV_VERSION); } >&2
	@$(UV) sync --frozen --inexact --compile-bytecode --quiet
	@npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error --cache .cache/npm >&2
	@$(BIN)/python -c 'import torch' 2>/dev/null \
	  || .tools/bin/pip --python $(BIN)/python install --quiet --no-deps '$(TORCH)' > .cache/torch.log 2>&1 \
	  || echo "PyTorch's CPU build is not to be had here (.cache/torch.log): the default job trains with JAX instead" >&2
	@{ command -v swtpm && command -v tpm2_quote && command -v bwrap && PATH=$$PATH:/usr/sbin command -v nft \
	  && command -v chromium && ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || $(DEBIAN_INSTALL) >&2 \
	  || echo "without apt-get install $(DEBIAN_PACKAGES) jobs train in no sandbox, which is for development only, and tests of TPM quotes, PostgreSQL and the console fail" >&2
	@mkdir -p .cache/vvm && ln -sf $(CURDIR)/$(BIN)/vyper .cache/vvm/vyper-0.4.3
	@touch $@

run: .cache/setup ## the whole way on a local chain: escrow, train, settle, deliver
	@$(BIN)/python -m scripts.run $(ARGS)

console: .cache/setup ## the console on a local chain, with a job done through it; until Ctrl-C
	@$(BIN)/python -m scripts.console $(ARGS)

test: .cache/setup ## all tests
	@$(BIN)/python -m pytest $(ARGS)

test-long: .cache/setup ## the same with twenty times as many examples, and what takes long (hours)
	@HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest --timeout 7200 $(ARGS)

lint: .cache/setup ## format, lint, types, import directions, artifacts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m scripts.artifacts --check
	@$(BIN)/python -m scripts.webbundle --check

format: .cache/setup ## let ruff format and mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: .cache/setup ## measure gas and speed; writes tests/bench/ and docs/gas.*
	@$(BIN)/python -m scripts.bench $(ARGS)

mutants: .cache/setup ## break each check of the contracts in turn; writes docs/mutants.md (hours; goes on where it stopped)
	@$(BIN)/python -m scripts.mutate $(ARGS)

ape: .cache/setup ## ape with this folder's compiler and chain: make ape ARGS="run deploy --help"
	@PATH=$(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$$PATH ape $(ARGS)

artifacts: .cache/setup ## compile the contracts into settlement/artifacts/, and bundle the console's scripts
	@$(BIN)/python -m scripts.artifacts
	@$(BIN)/python -m scripts.webbundle

docs: .cache/setup ## write the pictures and build the documentation into .build/site; links are checked
	@$(BIN)/python -m scripts.pictures
	@$(BIN)/python -m scripts.website $(ARGS)

package: .cache/setup ## build the commit into dist/: wheel, sdist, SBOM, SHA256SUMS; the same bytes everywhere
	@$(BIN)/python -m scripts.package $(ARGS)

clean: ## remove what set-up and runs made
	rm -rf .venv .tools .cache .build dist node_modules runs
