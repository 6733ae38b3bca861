# `make demo` and `make test` need Python 3.10 to 3.13, git, make and a C compiler; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test test-long test-faults test-fairseq test-originals quality typecheck bench learn clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP)  ## make .venv with the syncdiff-* commands in it

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and "syncdiff needs Python 3.10 to 3.13; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,quality]'
	touch $@

DEMO_STEPS ?= 300
demo: install  ## the whole way on a small data set: prepare, train, generate, evaluate
	$(BIN)/syncdiff-prep sample data/sample-raw
	$(BIN)/syncdiff-prep weights untrained data/untrained-avhubert.safetensors
	$(BIN)/syncdiff-prep lrs2 data/sample-raw --out data/sample --avhubert data/untrained-avhubert.safetensors
	$(BIN)/syncdiff-prep inspect data/sample
	$(BIN)/syncdiff-train train-tiny.yaml --data data/sample --out runs/demo --steps $(DEMO_STEPS)
	$(BIN)/syncdiff-generate --checkpoint runs/demo --data data/sample --split test --out results/demo
	$(BIN)/syncdiff-eval results/demo --data data/sample --split test --out eval/demo
	@echo
	@echo "The data set:   data/sample/report/index.html"
	@echo "The evaluation: eval/demo/report.html  ($(DEMO_STEPS) steps show that everything runs, not good lips)"
	@echo "Next:           .venv/bin/syncdiff-prep lrs2 /raw/lrs2 --dry-run, and README.md"

test: install  ## the tests (under 10 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not long and not fairseq and not faults and not originals'

test-long: install  ## the tests that take minutes
	$(BIN)/python -m pytest -m long

test-faults: install  ## kills, damage, full disks, hostile files; SYNCDIFF_FAULTS=0.1 for a tenth of it
	$(BIN)/python -m pytest -m faults tests/faults

# fairseq 0.12.2 needs an old Python, pip and setuptools; it is only asked for its answers.
FAIRSEQ_PYTHON ?= python3.10
test-fairseq: install .venv-fairseq/.installed  ## our AV-HuBERT encoder against fairseq's own (needs Python 3.10)
	$(BIN)/python -m pytest -m fairseq tests/fairseq_oracle

.venv-fairseq/.installed:
	$(FAIRSEQ_PYTHON) -m venv .venv-fairseq
	.venv-fairseq/bin/python -m pip install --quiet 'pip<24.1' 'setuptools<70' wheel
	.venv-fairseq/bin/python -m pip install --quiet 'fairseq==0.12.2' 'torch==2.5.1' 'numpy==1.23.5'
	touch $@

# Our exports read by the loaders of other projects, at the commits that tests/originals names; needs the net.
test-originals: install  ## our exports read by the loaders they are for (needs Python 3.10 and GitHub)
	$(BIN)/python tests/originals/get_originals.py .originals $(FAIRSEQ_PYTHON)
	SYNCDIFF_ORIGINALS=.originals SYNCDIFF_ORIGINALS_PYTHON=$(CURDIR)/.originals/python/bin/python \
		$(BIN)/python -m pytest -m originals tests/originals

BENCH_CLIPS ?= data/sample-raw/mvlrs_v1/main
bench: install  ## speed and memory; BENCH_CLIPS=FOLDER for clips of your own
	test -d $(BENCH_CLIPS) || $(BIN)/syncdiff-prep sample data/sample-raw
	$(BIN)/python tests/benchmarks/bench_prep.py $(BENCH_CLIPS)
	$(BIN)/python tests/benchmarks/bench_avhubert.py
	$(BIN)/python tests/benchmarks/bench_lse.py $(BENCH_CLIPS)/astronaut/20001.mp4
	$(BIN)/python tests/benchmarks/bench_loader.py
	$(BIN)/python tests/benchmarks/bench_eval.py $(BENCH_CLIPS)/astronaut

learn: install  ## does the model learn? trains the tiny one and its ablations, about 15 minutes on two cores
	$(BIN)/python tests/benchmarks/learn.py --out data/learn

quality: install typecheck  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow an editable install's import hook, so it sees the packages under their real names.
typecheck: install
	mkdir -p build/typecheck/syncdiff
	cd build/typecheck/syncdiff && ln -sfn ../../../pipeline ../../../model ../../../evaluate ../../../configs .
	cd build/typecheck && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p syncdiff

clean:  ## remove what the targets above made, but not the environment
	rm -rf build dist data/sample data/sample-raw data/learn runs/demo results/demo eval/demo
