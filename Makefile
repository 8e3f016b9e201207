# Each target sets up what it needs from nothing; stamp files in .venv keep it from being done twice.
#   make demo    FTRagRec on the bundled ml-100k, DuoRec warm start included
#   make test    the default tests
#   make slow    the tests that take longer
#   make lint    ruff and mypy
#   make wheel   dist/*.whl and the source archive
#   make distclean   removes .venv too; needed before another PYTHON is chosen
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: same-python demo test slow lint wheel clean distclean

demo: $(VENV)/.stamp-run
	$(PY) run_recbole_ext.py --model=FTRagRec --dataset=ml-100k --config_files=examples/demo.yaml

test: $(VENV)/.stamp-test
	$(PY) -m pytest -q -n 2 --dist worksteal

slow: $(VENV)/.stamp-test
	$(PY) -m pytest -q -m slow

lint: $(VENV)/.stamp-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

wheel: $(VENV)/.stamp-dev
	$(PY) -m build

# The stamps do not know by which Python .venv was made: where one is asked for, it is compared.
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
same-python:
	@if [ "$(origin PYTHON)" != file ] && [ -x $(PY) ] && [ "$$($(PY) $(VERSION))" != "$$($(PYTHON) $(VERSION))" ]; then \
		echo "$(VENV) is of Python $$($(PY) $(VERSION)), and PYTHON=$(PYTHON) is another; run make distclean first, or leave PYTHON out" >&2; exit 1; fi

# RecBole 1.2.1 requires a ray that Python 3.12 and later cannot install, so there it comes without its dependencies,
# which setup.cfg lists for those versions.
$(VENV)/.stamp-run: setup.cfg setup.py pyproject.toml constraints.txt | same-python
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python 3.10 to 3.13 is needed, and $(PYTHON) is {v[0]}.{v[1]}; choose one: make PYTHON=python3.11" if not (3, 10) <= v < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e .
	if $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then $(INSTALL) --no-deps recbole==1.2.1; fi
	touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-run
	$(INSTALL) -e '.[test]'
	touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-test
	$(INSTALL) -e '.[dev]'
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

distclean: clean
	rm -rf $(VENV)
