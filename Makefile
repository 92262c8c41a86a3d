# Everything lives in .venv; each target sets up what it needs. Needs only Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq

# The optional packages live in an environment on top of .venv, which sees nothing of them.
EXTRAS       := .venv-extras
EXTRAS_STAMP := $(EXTRAS)/.installed
EXTRAS_READY := $(EXTRAS)/.downloaded
EXTRAS_PIP   := $(BIN)/python -m pip --python $(EXTRAS)/bin/python --disable-pip-version-check -qq

# one thread for each of the processes that share the tests
PYTEST_ARGS   ?= -n 2 --dist worksteal
NUMERIC_TESTS := $(addprefix tests/,models/test_parity.py models/test_tagger.py models/test_prompts.py \
	models/test_vsd.py models/test_lora.py restoration/passes/test_inference.py restoration/pixels/test_color_fix.py \
	metrics/test_fidelity.py metrics/test_structure.py metrics/test_deep_distances.py \
	degradation/test_kernels_and_jpeg.py)
EXAMPLES      ?= examples/lq
DEMO          ?= demo

.DEFAULT_GOAL := help
.PHONY: help setup setup-extras demo test test-extras test-isa test-nightly lint format bench clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*##/\1 /p' Makefile | while read -r name text; do \
		printf 'make %-13s %s\n' "$$name" "$$text"; done

setup: $(STAMP)  ## install everything into .venv

setup-extras: $(EXTRAS_STAMP)  ## install the optional packages into .venv-extras

demo: $(STAMP)  ## restore the photos in examples/ and put before and after side by side
	@$(BIN)/hbr restore -i $(EXAMPLES) -o $(DEMO)/restored --overwrite
	@$(BIN)/python examples/side_by_side.py $(EXAMPLES) $(DEMO)/restored $(DEMO)

test: $(STAMP)  ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

test-extras: $(EXTRAS_STAMP)  ## run the tests that need optional packages, in .venv-extras
	@OMP_NUM_THREADS=1 $(EXTRAS)/bin/python -m pytest $(PYTEST_ARGS) tests/extras \
		--ignore tests/extras/test_openvino.py
	@# a process of its own: beside the packages of the others, OpenVINO ends in a segmentation fault
	@OMP_NUM_THREADS=1 $(EXTRAS)/bin/python -m pytest $(PYTEST_ARGS) tests/extras/test_openvino.py

# The kernels of processors that this one is not: without AVX-512, and without 16-bit arithmetic.
test-isa: $(STAMP)  ## run the numeric tests with the kernels of other processors
	@OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
		$(BIN)/python -m pytest $(PYTEST_ARGS) $(NUMERIC_TESTS)
	@OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX512_CORE \
		$(BIN)/python -m pytest $(PYTEST_ARGS) $(NUMERIC_TESTS)

test-nightly: $(STAMP)  ## run the tests that .ci/run leaves out, slow ones and variants
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) -m slow --timeout 1800
	@$(MAKE) test-extras PYTEST_ARGS="$(PYTEST_ARGS) -m slow --timeout 1800"

lint: $(STAMP)  ## check style, types and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

format: $(STAMP)  ## put the code into the house's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP)  ## run the benchmarks; each prints JSON, the first writes a page too
	@for name in inference nano_quality degrade metrics evaluate curation curation_ray training_memory; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:  ## remove what make made, .venv included
	rm -rf $(VENV) $(EXTRAS) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Compiled on all cores, which pip cannot, but for what is hardly ever imported, half of it.
SELDOM := tests benchmarks transformers/models diffusers/pipelines diffusers/modular_pipelines \
	sympy/physics mypy mypyc skimage setuptools datasets torchmetrics torchgen onnx/backend \
	torch/testing torch/_vendor pygments/lexers networkx fontTools imageio ray/autoscaler \
	onnx/reference onnxruntime/transformers onnxruntime/quantization onnxruntime/tools \
	$(addprefix ray/,rllib tune serve dashboard train llm)

$(VENV)/.made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "hbr needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there). Another: make PYTHON=..." >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) comes without venv; install it (python3-venv on Debian and Ubuntu)." >&2; \
		exit 1; }
	@echo "Installing into $(VENV): this takes some minutes the first time."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# pip works on one core, so each half of what is pinned has a pip of its own under `make -j 2`. Neither
# brings more along, so they never write the same files.
$(VENV)/.half-%: $(VENV)/.made
	@$(PIP) install --no-compile --no-deps $$(awk '!/^#/ && NR % 2 == $*' constraints.txt)
	@touch $@

# Then the package, built by the pinned tools, and what is not pinned, such as what torch needs for CUDA.
$(STAMP): $(VENV)/.half-0 $(VENV)/.half-1
	@$(PIP) install --no-compile -c constraints.txt --no-build-isolation -e ".[dev,train,ray,hub,onnx,heic,jxl]"
	@$(BIN)/python -m compileall -qq -j 0 -x '/($(subst $() ,|,$(strip $(SELDOM))))/' $(VENV)/lib || true
	@touch $(STAMP)

# Exactly the listed packages, without what they would bring along: of .venv this needs pip alone,
# so `make -j 2` sets up both side by side.
$(EXTRAS_READY): $(VENV)/.made constraints-extras.txt
	@echo "Installing the optional packages into $(EXTRAS)."
	@rm -rf $(EXTRAS)
	@$(BIN)/python -m venv --without-pip $(EXTRAS)
	@$(EXTRAS_PIP) install --no-deps -c constraints-extras.txt setuptools
	@$(EXTRAS_PIP) install --no-deps --no-build-isolation -r constraints-extras.txt
	@touch $@

# Then .venv is put behind them, its own .pth files included.
$(EXTRAS_STAMP): $(STAMP) $(EXTRAS_READY) tests/extras/environment/sitecustomize.py
	@site() { $$1/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }; \
		cp tests/extras/environment/sitecustomize.py "$$(site $(EXTRAS))" && \
		echo "import site; site.addsitedir('$$(site $(VENV))')" >"$$(site $(EXTRAS))/venv_below.pth"
	@touch $@
