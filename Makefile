# Two commands: `make demo` trains the first flow and writes its report; `make test` checks everything.
# Each makes .venv where it is missing and installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
DEMO_FLAGS := --preset digits --preprocess logit --data digits --threads 1

.PHONY: demo test lint first-run clean
.DELETE_ON_ERROR:

demo: .venv/.installed
	$(BIN)/longflow train nice $(DEMO_FLAGS) --out $(DEMO) $(if $(wildcard $(DEMO)/config.json),--resume)
	@echo "open $(DEMO)/report.html"

test: export OMP_NUM_THREADS = 1
test: lint first-run
	$(BIN)/python -m pytest -n 2

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The README's first run, shortened, in a folder of its own.
first-run: .venv/.installed-dev
	rm -rf build/first-run
	$(BIN)/longflow train nice $(DEMO_FLAGS) --steps 100 --out build/first-run
	$(BIN)/longflow check build/first-run

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "longflow needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -e . -c constraints.txt
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

clean:
	rm -rf .venv build runs
