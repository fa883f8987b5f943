# Needs only make and Python 3.11 or newer; everything else is installed into .venv and .tox.
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(if $(shell $(p) -c '$(NEW)' 2>/dev/null && echo yes),$(p))))
NEW := import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
VENV := .venv
BIN := $(VENV)/bin
# TensorFlow is 24,000 files: without compiling what is never imported an install takes half the time.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# tox.ini lists 3.11 and 3.13: where .venv is made of another one, that one is tested too, so that something always is.
ENVS = $(shell $(BIN)/python -c 'import sys; v = "py3%d" % sys.version_info[1]; print("" if v in ("py311", "py313") else "-e lint,types,py313,py311," + v)' 2>/dev/null)

# tox looks on PATH; pyenv hides what it holds from there.
FOUND = $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1[13].*/bin/python)
TOX = $(BIN)/tox run $(if $(FOUND),--discover $(FOUND))

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench clean

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/demo.done ## install into .venv and serve EfficientNet-Lite0 on real photos
	$(BIN)/rowserve demo $(ARGS)

test: $(VENV)/tox.done ## run lint, types and the whole suite through tox
	$(TOX) $(ENVS) $(ARGS)

soak: $(VENV)/tox.done ## run the long versions of tests (some hours)
	$(TOX) -e soak $(ARGS)

bench: $(VENV)/tox.done ## print the table of figures
	$(TOX) -e bench $(ARGS)

clean: ## remove what was made here (the caches in your home folder stay)
	rm -rf $(VENV) .tox build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
	find server cache graphs handlers tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/demo.done: $(BIN)/python setup.py pyproject.toml
	@echo "Installing rowserve and TensorFlow into $(VENV) (about 800 MB to download the first time) ..." >&2
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/tox.done: $(BIN)/python
	$(PIP) 'tox>=4.30,<5'
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(NEW)' 2>/dev/null || { \
	  echo "rowserve needs Python 3.11 or newer with its venv module, and found none; name one: make PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
