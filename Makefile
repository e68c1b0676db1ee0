# Each target is one line that you can repeat by hand. `make lab` and `make test` need nothing installed but Python 3.10-3.13.
.DEFAULT_GOAL := help
.PHONY: help lab test check sync notebooks bench gpu site new
PYTHON := .venv/bin/python
FIRST = $(firstword $(sort $(wildcard notebooks/[0-9]*.ipynb)))
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

help:  ## what there is
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 12

.venv/installed: pyproject.toml constraints.txt tools/setup.sh tools/lab_settings.json
	@tools/setup.sh

lab: .venv/installed  ## install if needed, then JupyterLab on the first notebook
	$(PYTHON) -m jupyterlab $(AS_ROOT) --LabApp.default_url=/lab/tree/$(FIRST)

test: .venv/installed  ## install if needed, then the tests (without the slow ones)
	$(PYTHON) -m pytest

check: .venv/installed  ## what you have solved: every exercise of the answer book, graded
	$(PYTHON) -m course_lib.commands.cli check --all

sync: .venv/installed  ## solutions/ -> exercises/, notebook cells, README table
	$(PYTHON) -m tools.sync && $(PYTHON) -m tools.readme_table

notebooks: .venv/installed  ## lint the notebooks, then run each one unsolved and solved
	$(PYTHON) -m tools.notebook_lint && $(PYTHON) -m tools.run_notebooks

new: .venv/installed  ## make new N=04: the empty files of a chapter
	$(PYTHON) -m tools.new_chapter $(N)

bench:  ## (later) measure the kernels of the course on this machine
	@echo "make bench: there are no kernels to measure yet; they come with chapter 04." >&2; exit 2

gpu: .venv/installed  ## the tests and measurements that need a CUDA GPU
	$(PYTHON) -m pytest -m gpu -rs && $(PYTHON) benchmarks/ch03_tiled_attention.py

site:  ## (later) the static site
	@echo "make site: the static site is not built yet; read the notebooks with make lab." >&2; exit 2
