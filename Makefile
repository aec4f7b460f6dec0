# Everything a checkout can do. Needs Python 3.11 or newer (with venv), make and a package index.
#   .venv      what a device needs: the package and ONNX Runtime, without torch (kept below 400 MB)
#   .venv-dev  what development, training and export need on top
PYTHON ?= python3
DATA ?= ../shared/data
OUT ?= demo-out
BENCH ?= bench-out

EDGE := .venv
DEV := .venv-dev
# Exact versions, always: an open "torch" would bring gigabytes of CUDA libraries.
INSTALL := -m pip --disable-pip-version-check install --quiet --no-compile -c constraints.txt
# With all cores; some packages carry files for other versions of Python, which do not compile.
COMPILE := -m compileall -qq -j 0

.DEFAULT_GOAL := help
.PHONY: help demo test pytest soak lint reference research scores bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' Makefile

demo: $(EDGE)/.installed  ## segment synthetic scans with the shipped model; results in $(OUT)
	$(EDGE)/bin/octedge demo --out "$(OUT)"

# Side by side: both installations, then lint and tests.
test:  ## lint and run all tests
	$(MAKE) --no-print-directory -j 2 $(DEV)/.installed $(EDGE)/.installed
	$(MAKE) --no-print-directory -j 2 lint pytest

pytest: $(DEV)/.installed $(EDGE)/.installed
	OMP_NUM_THREADS=1 OCTEDGE_EDGE_PYTHON="$(CURDIR)/$(EDGE)/bin/python" $(DEV)/bin/python -m pytest -n auto --dist worksteal

soak: $(DEV)/.installed  ## what make test has no time for: more builds, 1,000 crashes, 10,000 damaged files
	$(DEV)/bin/python -m pytest -m soak
	$(DEV)/bin/python -m benchmarks.crash --rounds 1000
	$(DEV)/bin/python -m benchmarks.fuzz --files 10000

lint: $(DEV)/.installed  ## style, types and import floors
	$(DEV)/bin/python -m ruff check .
	$(DEV)/bin/python -m mypy
	$(DEV)/bin/lint-imports

reference: $(DEV)/.installed  ## train, select and export the shipped model from DATA
	$(DEV)/bin/python -m benchmarks.reference --data "$(DATA)"

research: $(DEV)/.installed  ## train and export a network of ten times the size from DATA, into bundles/research; for a GPU
	$(DEV)/bin/python -m benchmarks.reference --data "$(DATA)" --recipe recipes/research.toml --run runs/research --bundle bundles/research

scores: $(DEV)/.installed  ## print every accuracy number of the README from DATA
	$(DEV)/bin/python -m benchmarks.scores --data "$(DATA)"

# On a machine that does nothing else: about half an hour on two cores.
bench: $(DEV)/.installed $(EDGE)/.installed  ## measure speed, memory and start on this machine; tables and pictures in BENCH
	mkdir -p "$(BENCH)"
	$(DEV)/bin/python -m benchmarks.start --python $(EDGE)/bin/python --out "$(BENCH)" > "$(BENCH)/start.md"
	$(DEV)/bin/python -m benchmarks.scaling --out "$(BENCH)" > "$(BENCH)/scaling.md"
	$(DEV)/bin/python -m benchmarks.peers > "$(BENCH)/peers.md"
	$(DEV)/bin/python -m benchmarks.facts > "$(BENCH)/precisions.md"
	$(DEV)/bin/python -m benchmarks.precisions >> "$(BENCH)/precisions.md"
	$(DEV)/bin/python -m benchmarks.facts > "$(BENCH)/decode.md"
	$(DEV)/bin/python -m benchmarks.decode >> "$(BENCH)/decode.md"

clean:  ## remove what the other targets made
	rm -rf $(EDGE) $(DEV) "$(OUT)" "$(BENCH)" .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# The stamp is written last: an interrupted installation is taken up again.
$(EDGE)/.installed: pyproject.toml constraints.txt
	test -x $(EDGE)/bin/python || $(PYTHON) -m venv $(EDGE)
	$(EDGE)/bin/python $(INSTALL) -e ".[cpu]"
	-@$(EDGE)/bin/python $(COMPILE) $(EDGE)/lib
	touch $@

$(DEV)/.installed: pyproject.toml constraints.txt
	test -x $(DEV)/bin/python || $(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(INSTALL) -e ".[dev]"
	-@$(DEV)/bin/python $(COMPILE) $(DEV)/lib
	touch $@
