# Each target sets up what it needs by itself, in .venv.
#   make demo [INPUT=folder|bag] [SCALE=8] [DEMO_ARGS="..."]   the node over real ROS 2 transport, with pictures and figures
#   make test [WORKERS=2] [TEST_ARGS="..."]                    all tests
#   make help                                                  the other targets

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
INPUT  ?=
SCALE  ?= 8
OUTPUT ?= demo_output
MINUTES ?= 30
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
EXTRAS := ros,bags,train,report,export,openvino,docs,dev
# An index with the torch build you want, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu (see README)
TORCH_INDEX ?=
PIP_INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt $(PIP_INDEX)
# Beforehand, because many containers forbid Python to write bytecode later, and every process would compile what it
# imports; and on all cores, which pip does not. Some files are templates, which cannot be compiled.
COMPILE = $(BIN)/python -m compileall -q -x '/tests?/'

.PHONY: help setup demo test docs coverage lint format colcon soak benchmark accuracy gpu clean

help:
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## create .venv and install everything in it

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $$($(PYTHON) --version) found; name another with PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: no venv module; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP_INSTALL) torch setuptools
	@$(COMPILE) $(VENV)/lib/python3*/site-packages/torch > /dev/null & $(PIP_INSTALL) -e '.[$(EXTRAS)]'; status=$$?; wait; exit $$status
	@$(COMPILE) -j 0 $(VENV)/lib stdnet_core stdnet_ros > /dev/null || true
	touch $@

demo: setup ## upsample a stream over ROS 2, leave pictures and metrics in $(OUTPUT)
	$(BIN)/python -m stdnet_ros.demo --output $(OUTPUT) --scale $(SCALE) $(if $(INPUT),--input '$(INPUT)') $(DEMO_ARGS)

test: setup ## check style and types, build the documentation, run all tests in WORKERS (2) processes
	@$(MAKE) --no-print-directory --jobs=$(WORKERS) lint docs
	$(PYTEST) $(TEST_ARGS)

coverage: setup ## branch coverage of the tests, in the processes that they start as well
	$(PYTEST) --cov --cov-report=term:skip-covered $(TEST_ARGS)

lint: setup ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup ## build the documentation site in site/; open site/index.html
	@if [ -x $(BIN)/mkdocs ]; then NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean; else echo "site not built: it needs Python 3.11"; fi

format: setup ## apply style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

colcon: setup ## build with colcon in a scratch workspace and start the installed node
	$(BIN)/python test/colcon_build.py

soak: setup ## run the node for MINUTES (30) while all around it goes wrong; memory and latency in soak_output
	$(BIN)/python -m stdnet_ros.soak --minutes $(MINUTES) --output soak_output

benchmark: setup ## measure the node's own cost and its age under overload; see docs/node_benchmarks.md
	$(BIN)/python -m stdnet_ros.benchmark --output benchmark_output

accuracy: setup ## figures of the shipped networks; RENDERED="clips..." REAL="recordings..." add folders of such data
	$(BIN)/python -m stdnet_core.accuracy $(foreach d,$(RENDERED),--rendered $(d)) $(foreach d,$(REAL),--real $(d)) --json accuracy.json --markdown accuracy.md --picture accuracy.png

gpu: ## check, measure and train on a GPU for 9 minutes; GPU_ARGS=--dry-run rehearses it on the CPU; see docs/gpu.md
	bash scripts/gpu_session.sh $(GPU_ARGS)

clean: ## remove what the targets made, except .venv
	rm -rf build install log demo_output soak_output benchmark_output gpu_session site .gpu_env .pytest_cache .ruff_cache .mypy_cache .coverage* *.egg-info
