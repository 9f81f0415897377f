# Every target sets up .venv by itself, and again whenever the dependencies have changed.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test docs bench nightly clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Shrink and re-grow a small network; options through ARGS="..."
	$(BIN)/onnxmorph demo -o out/demo $(ARGS)

test: $(STAMP) ## Lint, types, tests: what has to pass
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup $(ARGS)

docs: $(STAMP) ## Build the documentation into out/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	@echo out/site/index.html

bench: $(STAMP) ## Time against the stated aims
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]' -c constraints.txt
	$(BIN)/python -m benchmarks $(ARGS)

nightly: $(STAMP) ## The slow tests
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,tensorflow]' -c constraints.txt
	$(BIN)/python -m pytest -q -m nightly $(ARGS)

clean: ## Remove everything that was built, .venv included
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and pinned: the tested build, not the largest one that a bare "torch" would find.
$(STAMP): pyproject.toml setup.py constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]' -c constraints.txt
	@touch $@
