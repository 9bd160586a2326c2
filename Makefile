# `make study` and `make test` are all that is needed; both make the environment first.
# The quick preset: make study PRESET=reference for another, CORES=N to leave some cores free.

PYTHON ?= python3
VENV ?= .venv
PRESET ?= quick
CORES ?= 0
HAM10000 ?= data/real/ham10000
SIMULATED := fairgenmed_simulated ham10000_simulated chexpert_simulated

WORKSHOP ?= data/runs/workshop
WORKSHOP_VENV ?= .venv-workshop

BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV ?= uv

.DELETE_ON_ERROR:
.PHONY: env study study-all study-ham10000 base workshop test test-all verify book figures lint format lock bench bench-gpu bench-large clean

env: $(READY)

study: $(READY)
	$(BIN)/fairdiff run --preset $(PRESET) --cores $(CORES)

# The three simulated data sets in one graph.
study-all: $(READY)
	$(BIN)/fairdiff run --preset $(PRESET) --dataset $(SIMULATED) --cores $(CORES)

study-ham10000: $(READY)
	$(BIN)/fairdiff run --preset reference --dataset ham10000 --data-root $(HAM10000) --cores $(CORES)

# The bases that simulated studies start from, trained again: hours of a core. It goes on where it
# was killed; DATASETS=one for one of them.
base: $(READY)
	$(BIN)/fairdiff base --dataset $(or $(DATASETS),$(SIMULATED))

# The seven exercises, in a small environment of their own (no torch, no news from the network): is
# it ready, then the first page. Copies with answers are kept: only a folder that is not there is
# written. One thread: on matrices as small as these, two threads of a busy laptop wait for each
# other a hundred times longer.
workshop: export OMP_NUM_THREADS = 1
workshop: $(WORKSHOP_VENV)/.ready
	$(WORKSHOP_VENV)/bin/python -m fairdiff_lib.workshop check
	test -d $(WORKSHOP) || $(WORKSHOP_VENV)/bin/python -m fairdiff_lib.workshop build $(WORKSHOP)
	$(WORKSHOP_VENV)/bin/jupyter lab $(WORKSHOP)/student/0_look.ipynb

# What a change breaks, in minutes: lint, types, rooms, the tests of seconds, and the smoke study
# through a kill. pytest last: its closing line is what one looks for.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# All tests: coverage by simulation, kills of every method, every study. Hours rather than minutes.
test-all: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ''

# Minutes: the smoke study twice, compared cell by cell; the stamps of what is committed.
verify: $(READY)
	$(BIN)/fairdiff verify --cores $(CORES)

# Ten chapters and what they rest on as a site, without network: build/book/html/index.html
book: $(READY)
	$(BIN)/python -m docs.build

# The main figures, and the README's table of findings, from the tables below figures.
figures: $(READY)
	$(BIN)/python -m docs.figures
	$(BIN)/python -m docs.facts

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What jobs take, for `fairdiff run --dry-run`, on a machine that does nothing else; then training
# and sampling against the usual way, turn by turn, and the audit against its definitions.
bench: study
	$(BIN)/python -m benchmarks jobs --write
	$(BIN)/python -m benchmarks steps --output benchmarks/results/steps.csv
	$(BIN)/python -m benchmarks audit --output benchmarks/results/audit.csv

# Whoever has a GPU for fifteen minutes; and whether SD 2.1's size fits this machine at all.
bench-gpu: $(READY)
	$(BIN)/python -m benchmarks gpu --output benchmarks/results/gpu.csv

bench-large: $(READY)
	$(BIN)/python -m benchmarks large --folder build/large --output benchmarks/results/large.csv

# The environment, once, and again when the lock or pyproject.toml changes. pip rather than uv:
# it takes a local torch wheel where the machine's pip is set up with one. Bytecode is made of what is
# imported, when it is: of all 360 MB of sources it would take a minute and a half.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed; %s is %d.%d. Name another: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(WORKSHOP_VENV)/.ready: .binder/requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed; %s is %d.%d. Name another: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv $(WORKSHOP_VENV)
	$(WORKSHOP_VENV)/bin/python -m pip install --quiet --no-compile --requirement .binder/requirements.txt
	$(WORKSHOP_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	$(WORKSHOP_VENV)/bin/jupyter labextension disable \
	  @jupyterlab/apputils-extension:announcements > /dev/null
	@touch $@

# Constraints for every platform and Python from 3.11 on. The lines of CUDA packages go: on a GPU
# machine torch chooses its own, and a CPU wheel needs none. Old pins stay where they still fit;
# to renew all of them, remove constraints.txt first.
lock:
	touch constraints.txt && cp constraints.txt constraints.new
	$(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links pyproject.toml --extra dev --extra gpu --extra slurm \
	  --output-file constraints.new
	printf '# made by make lock; edit pyproject.toml instead\n' > constraints.txt
	grep -viE '^(#|--|nvidia-|triton|cuda-)' constraints.new >> constraints.txt
	rm constraints.new

# Environment and caches. What runs made stays: data/runs is yours to remove.
clean:
	rm -rf $(VENV) $(WORKSHOP_VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
