# Two commands are all a newcomer needs; each is complete on a fresh clone with Python 3.11 or newer:
#   make demo   environment, install, and the main job on real digits (writes to demo-results/)
#   make test   environment, install, and the whole default test suite
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow docs wheel clean

demo: .venv/installed
	$(BIN)/boundlab demo

test: .venv/installed
	$(BIN)/ruff check src tests benchmarks docs examples
	$(BIN)/mypy
	$(BIN)/python -m compileall -q src  # so that the processes that tests start need not compile, each for itself
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

slow: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt -e ".[dev,ray]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

docs: .venv/installed
	$(BIN)/python docs/tools/reference.py
	$(BIN)/python -m mkdocs build --strict

wheel: .venv/installed
	$(BIN)/python -m build --outdir dist

.venv/installed: pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv demo-results dist build
