# `make demo` and `make test` need only Python (3.11 or newer), pip and a compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MINIHACK_VENV ?= .venv-minihack
SITE = $$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.PHONY: demo test test-minihack docs clean

demo: $(VENV)/.installed
	$(BIN)/lang-agent train --config recipes/demo.yaml --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict --quiet

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "lang_agent needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version): make PYTHON=python3.12"; \
	  exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# nle asks for a Gymnasium of its own: an environment that sees the other one's packages, and before
# them those in which it differs.
test-minihack: $(MINIHACK_VENV)/.installed
	$(MINIHACK_VENV)/bin/python -m pytest tests/test_minihack.py

$(MINIHACK_VENV)/.installed: $(VENV)/.installed-test constraints-minihack.txt
	test -x $(MINIHACK_VENV)/bin/python || $(PYTHON) -m venv $(MINIHACK_VENV)
	echo "import site; site.addsitedir('$(call SITE,$(abspath $(VENV)))')" > $(call SITE,$(MINIHACK_VENV))/main.pth
	$(MINIHACK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-minihack.txt gymnasium minihack nle setuptools
	touch $@

clean:
	rm -rf $(VENV) $(MINIHACK_VENV) build dist site *.egg-info
