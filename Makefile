# Every target makes what it needs in .venv; nothing but Python >= 3.11 (with venv) and make is
# asked for. The stamps keep a second run from installing again.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest
PINS := pyproject.toml constraints.txt

.PHONY: demo test coverage kernel test-portable chromium lint types claims bench soundness forgeries faults fuzz figures docs clean

demo: .venv/installed-demo
	$(BIN)/python examples/demo.py --out demo-output

# Two workers with one thread each for BLAS and torch: more would wait for each other. The tests that
# drive a browser wait for it in seconds, so that they run alone. Coverage adds a third or so.
MOST := -n 2 --dist loadfile -m "not browser"
test coverage: export OPENBLAS_NUM_THREADS = 1
test coverage: export OMP_NUM_THREADS = 1
test: .venv/installed-test chromium
	$(PYTEST) $(MOST)
	$(PYTEST) -m browser

coverage: .venv/installed-test chromium
	$(PYTEST) $(MOST) --cov --cov-report=
	$(PYTEST) -m browser --cov --cov-append --cov-report=term:skip-covered

# The C library in place, beside the Python files; an install does the same.
kernel:
	cmake -S src/kernel -B build/kernel
	cmake --build build/kernel

# The tests of the page drive a browser. Where it cannot be had they fail, and say what to do.
chromium:
	@command -v chromium >/dev/null || if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; \
	then apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; fi

# The main tests without the kernel: NumPy, SciPy and HiGHS must give the same answers.
test-portable: .venv/installed-test
	PREIMAGE_KERNEL=0 $(PYTEST) tests/lp tests/methods/test_exact.py \
		tests/methods/test_layerwise.py tests/test_layer_program.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-test
	$(BIN)/mypy

size:
	$(PYTHON) docs/hooks/size.py

claims: .venv/installed-test
	$(BIN)/python benchmarks/claims.py
	$(BIN)/python benchmarks/joint.py

bench: .venv/installed-test
	$(BIN)/python benchmarks/programs.py
	$(BIN)/python benchmarks/certificates.py
	$(BIN)/python benchmarks/inversions.py --out docs/benchmarks/inversions.md $(if $(MNIST),--data $(MNIST))

faults: .venv/installed-test
	$(BIN)/python tests/batch/faults.py

fuzz: .venv/installed-test
	PYTHONPATH=tests:tests/io $(BIN)/python tests/io/fuzz.py
soundness: .venv/installed-test
	$(BIN)/python benchmarks/soundness.py
	$(BIN)/python benchmarks/degenerate.py

# FORGED=1000000 takes an hour or so.
FORGED ?= 2000
forgeries: .venv/installed-test
	$(BIN)/python benchmarks/forgeries.py --forged $(FORGED)

# SCALE=paper has the paper's 200 draws; what is finished is not done again.
SCALE ?= quick
figures: .venv/installed-test
	$(BIN)/python -m experiments all --scale $(SCALE) --out $(if $(filter quick,$(SCALE)),docs/gallery,figures-$(SCALE))

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

clean:
	rm -rf .venv demo-output site

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "preimage needs Python >= 3.11; choose one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/installed-demo: $(PINS) | .venv/bin/python
	$(PIP) -e ".[plot]"
	@touch $@

.venv/installed-test: $(PINS) | .venv/bin/python
	$(PIP) -e ".[test]"
	@touch $@ .venv/installed-demo

.venv/installed-docs: $(PINS) | .venv/bin/python
	$(PIP) -e ".[docs]"
	@touch $@
