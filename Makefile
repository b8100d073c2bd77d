# `make test` and `make demo` need git, GNU make and Python 3.11 to 3.13 with venv; all else is installed into .venv.
.DEFAULT_GOAL := help
.PHONY: help setup test quick soak lint types demo app format clean

PYTHON := .venv/bin/python
INDEX := outputs/index
# Tests of one process that need no training; tests/test_quick.py keeps the list honest.
QUICK := tests/benchmarks/reducers/test_report.py tests/configs/test_load.py tests/configs/test_moved.py \
	tests/configs/test_round_trip.py tests/configs/test_schema.py tests/configs/test_sizes.py tests/datasets/annotations \
	tests/datasets/test_prompts.py tests/datasets/test_records.py tests/datasets/test_sampling.py \
	tests/datasets/test_text.py tests/engine/test_optim.py tests/engine/test_parameters.py \
	tests/engine/test_precision.py tests/inference/pictures/test_tiles.py tests/inference/search/test_scale.py \
	tests/models/parts/test_aggregation.py tests/models/parts/test_losses.py tests/models/parts/test_momentum.py \
	tests/models/parts/test_packed.py tests/models/parts/test_tokenizer.py tests/scripts/parts/test_arguments.py \
	tests/scripts/test_commands.py tests/tasks/metrics tests/tasks/test_shortlists.py \
	tests/test_datasets_doc.py tests/test_docs.py tests/test_habits.py

help: ## Show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 14

setup: ## Make .venv with all that requirements.txt names; does nothing if that is done
	@sh scripts/set_up.sh

test: setup lint types ## Lint, types and all tests
	$(PYTHON) -m pytest -q -n auto --dist loadfile --no-loadscope-reorder --durations=15

quick: setup lint types ## Lint, types and the fast tests: under 2 minutes on 2 cores
	$(PYTHON) -m pytest -q -n auto --dist loadfile $(QUICK)

soak: setup ## What takes too long for every commit: kills, leaks, many processes
	$(PYTHON) -m pytest -q --durations=15 -m soak

lint: setup ## Style of every file
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup ## Types of all but tests
	$(PYTHON) -m mypy

demo: setup ## Make videos, train, fine-tune and evaluate a small TESTA: under 6 minutes on 2 cores
	$(PYTHON) -m scripts.demo

app: setup ## Search videos on a page of this machine: make app INDEX=outputs/index OPTIONS="--answer C"
	$(PYTHON) -m scripts.app --index $(INDEX) $(OPTIONS)

format: setup ## Bring every file into the style that lint asks for
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean: ## Remove .venv and caches; outputs stay
	@sh scripts/set_up.sh --remove
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
