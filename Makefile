# make fit · make test · make check · make docs · make test-slow · make test-diffusion · make test-backends · make bench
# Every target builds the environment it needs, from the lock of this Python, once.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
LOCK := constraints/$(VERSION).txt
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Tests run in so many processes, a file in one of them.
JOBS ?= 2

.PHONY: fit test test-slow test-diffusion test-backends check docs bench lock clean

fit: $(VENV)/train.stamp
	$(BIN)/leakdet-tf fit experiments/gas_unet.toml $(ARGS)

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow $(ARGS)

# torch and diffusers are large: an environment of their own.
test-diffusion: $(VENV)-diffusion/stamp
	$(VENV)-diffusion/bin/python -m pytest -m "slow or not slow" tests/config/test_diffusion.py tests/synth/test_repaint.py \
	  tests/synth/test_diffusion.py tests/jobs/test_diffuse_job.py $(ARGS)

$(VENV)-diffusion/stamp: $(LOCK) setup.cfg pyproject.toml
	test -x $(VENV)-diffusion/bin/python || $(PYTHON) -m venv $(VENV)-diffusion
	$(VENV)-diffusion/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) 'torch==2.13.0' -e '.[diffusion]' pytest
	touch $@

# Keras's other backends are large too. What holds between backends first, then what each promises by itself.
BETWEEN := tests/analysis/explain/test_heat.py::test_every_backend_finds_the_same_heat
ON_EACH = tests/training/test_on_every_backend.py tests/training/test_checkpoint.py tests/training/test_steps.py \
  tests/training/test_detect_loop.py
test-backends: $(VENV)-backends/stamp
	$(VENV)-backends/bin/python -m pytest tests/backends $(BETWEEN) $(ARGS)
	KERAS_BACKEND=jax $(VENV)-backends/bin/python -m pytest $(ON_EACH) $(ARGS)
	KERAS_BACKEND=torch $(VENV)-backends/bin/python -m pytest $(ON_EACH) $(ARGS)

# Of torch exactly this one: a looser range resolves to gigabytes of CUDA.
$(VENV)-backends/stamp: $(LOCK) setup.cfg pyproject.toml
	test -x $(VENV)-backends/bin/python || $(PYTHON) -m venv $(VENV)-backends
	$(VENV)-backends/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) 'torch==2.13.0' 'jax==0.10.2' -e '.[jax,torch,test]'
	touch $@

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/dev.stamp
	$(BIN)/python -m leakdet_tf.config.reference > docs/experiment-file.md

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/startup.py

# One environment: the test target adds its packages to the one that fit made.
$(VENV)/train.stamp: $(LOCK) setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -e '.[train]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/train.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -e '.[dev]'
	touch $@

$(LOCK):
	@echo "there is no lock for this Python ($(VERSION)): use Python 3.11, 3.12 or 3.13, as in: make fit PYTHON=python3.12" >&2
	@exit 2

# Resolves the locks again; needs uv.
lock:
	for v in 3.11 3.12 3.13; do \
	  uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --python-version $$v --extra dev -c constraints/overlooked.in \
	    -o constraints/py$$(echo $$v | tr -d .).txt setup.cfg; \
	done
	uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --python-version 3.10 -o constraints/py310.txt setup.cfg

clean:
	rm -rf $(VENV) $(VENV)-diffusion $(VENV)-backends build *.egg-info .mypy_cache .ruff_cache .pytest_cache
