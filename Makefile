# Each target is one line that you can repeat by hand. `make lab` and `make test` need nothing installed but Python 3.10-3.13.
.DEFAULT_GOAL := help
.PHONY: help lab test check sync notebooks bench gpu grader-report site new
PYTHON := .venv/bin/python
FIRST = $(firstword $(sort $(wildcard notebooks/[0-9]*.ipynb)))
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 16

.venv/installed: pyproject.toml constraints.txt tools/setup.sh tools/lab_settings.json
	@tools/setup.sh

lab: .venv/installed  ## install if needed, then JupyterLab on the first notebook
	$(PYTHON) -m jupyterlab $(AS_ROOT) --LabApp.default_url=/lab/tree/$(FIRST)

test: .venv/installed  ## install if needed, then the tests (without the slow ones)
	$(PYTHON) -m pytest -n 2 --dist worksteal

check: .venv/installed  ## what you have solved: every exercise of the answer book, graded
	$(PYTHON) -m course_lib.commands.cli check --all

sync: .venv/installed  ## solutions/ -> exercises/, notebook cells, README table
	$(PYTHON) -m tools.sync && $(PYTHON) -m tools.readme_table

notebooks: .venv/installed  ## lint the notebooks, then run each one unsolved and solved
	$(PYTHON) -m tools.notebook_lint && $(PYTHON) -m tools.run_notebooks

new: .venv/installed  ## make new N=04: the empty files of a chapter
	$(PYTHON) -m tools.new_chapter $(N)

bench: .venv/installed  ## race the kernels of the course against their peers on this machine
	$(PYTHON) -m course_lib.commands.cli bench

gpu: .venv/installed  ## what needs a CUDA GPU: the tests, then the races
	$(PYTHON) -m pytest -m gpu -rs && $(PYTHON) -m course_lib.commands.cli bench

grader-report: .venv/installed  ## measure the grader: 20 seeds, 20 repeats, a class of 200 (half an hour or more)
	$(PYTHON) -m tools.grader_report && $(PYTHON) -m tools.grader_report --class 200

site:  ## (later) the static site
	@echo "make site: the static site is not built yet; read the notebooks with make lab." >&2; exit 2
