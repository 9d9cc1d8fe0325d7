# Two commands do everything on a fresh machine: `make demo` (the main job, as root) and `make test`.
# The interpreter must be one that every user can read: workers run under their own uid and import from .venv.
PYTHON := $(shell sh tests/find_python)
VENV := .venv
BIN := $(VENV)/bin

export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export HYPOTHESIS_STORAGE_DIRECTORY := .cache/hypothesis
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PACKAGES := $(CURDIR)/dist

.PHONY: packages packages-try packages-lint guest-take-over budget handlers demo test unit machine kills guest far faults lint mutate bench clean venv

demo: root-needed venv
	@$(BIN)/python -m waagent.lab.commands demo

root-needed:
	@test "$$(id -u)" = 0 || { echo "make demo needs root (it makes namespaces and a loop device); try: sudo make demo"; exit 1; }

test: venv
	@$(BIN)/python tests/run_all

unit: venv
	@$(BIN)/python -m pytest tests/unit

machine: venv
	@$(BIN)/python -m pytest tests/machine

kills: venv
	@WAAGENT_KILL_POINTS=50 $(BIN)/python -m pytest -q -s tests/machine/provision/test_kill_points.py

guest: venv
	@$(BIN)/python -m pytest tests/guest

far: venv
	@$(BIN)/python -m pytest -q -n auto --hypothesis-profile=far tests/unit

faults: venv
	@$(BIN)/python -m pytest -q -n auto --dist worksteal tests/faults

lint: venv
	@sh tests/lint $(BIN)

mutate: venv
	@$(BIN)/python tests/mutate.py

bench: venv
	@$(BIN)/pip install -qq -e '.[bench]' && rm -rf waagent.egg-info build && PEER="$(PEER)" $(BIN)/python -m bench.run

budget: root-needed venv
	@WAAGENT_ROUNDS=300 $(BIN)/python -m pytest -q tests/machine/agent/test_budget.py

handlers: root-needed venv
	@SOURCES="$(SOURCES)" PEER="$(PEER)" GO="$(GO)" KEEP="$(KEEP)" $(BIN)/python -m tests.real_handlers.run

# for Debian's own Python, so that the packages fit a Debian
packages:
	@sh tests/make_packages /usr/bin/python3 $(PACKAGES)

# install, upgrade and erase of the .rpm in a scratch root; two builds, so that there is something to upgrade
packages-try:
	@BUILD_NUMBER=2 sh tests/make_packages /usr/bin/python3 $(PACKAGES)
	@mv $(PACKAGES)/*.rpm .cache/next.rpm
	@$(MAKE) packages
	@$(MAKE) packages-lint
	@sh tests/try_rpm $(PACKAGES)/*.rpm .cache/next.rpm

packages-lint:
	@lintian --allow-root $(PACKAGES)/*.deb && echo "lintian: nothing to say"
	@rpmlint -c rpm/rpmlint.toml $(PACKAGES)/*.rpm

guest-take-over: venv
	@$(BIN)/python -m pytest tests/guest_take_over

venv: $(VENV)/.complete

$(VENV)/.complete: setup.cfg pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "no Python 3.9 or newer with venv that every user can read: install python3 and python3-venv"; exit 1; }
	@echo "making $(VENV) with $(PYTHON); fetching from PyPI: psutil pyzmq msgpack lxml cryptography requests pycdlib libpass pytest pytest-xdist hypothesis mypy ruff"
	@sh tests/make_venv $(PYTHON) $(VENV)

clean:
	rm -rf build dist .venv .cache waagent.egg-info
