# ocimk: make demo, make test, make install PREFIX=/usr/local. See README.md.

PYTHON  ?= /usr/bin/python3
PREFIX  ?= /usr/local
DESTDIR ?=
PYTEST  ?=

VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := lib/ocimk/native

# Debian's names. What building and running needs, and what the tests compare with besides.
BASE_PACKAGES := python3-venv python3-dev gcc libc6-dev libcap-dev libseccomp2 busybox-static
TEST_PACKAGES := runc crun podman conmon iproute2 procps util-linux uidmap strace

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv native packages test-packages

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- what must be there ----------------------------------------------------------------------------------------

# $(call need,PACKAGES): install those that are missing; someone who may not is told which, and it ends there.
define need
	@missing=$$(for p in $(1); do \
	    dpkg-query -W -f='$${db:Status-Abbrev}' $$p 2>/dev/null | grep -q '^.i' || echo $$p; done); \
	[ -n "$$missing" ] || exit 0; \
	if ! command -v apt-get >/dev/null; then \
	    echo "make: not a Debian; install what these Debian packages are here:" $$missing >&2; \
	elif [ "$$(id -u)" != 0 ]; then \
	    echo "make: packages are missing; run as root: apt-get install" $$missing >&2; exit 1; \
	else \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing </dev/null; \
	fi
endef

packages: ## install the Debian packages that building and running needs
	$(call need,$(BASE_PACKAGES))

test-packages: packages
	$(call need,$(TEST_PACKAGES))

# ---- the private Python and the native parts -------------------------------------------------------------------

venv: packages $(VENV)/.installed ## make the private venv with all that pyproject.toml names

$(VENV)/.installed: pyproject.toml | packages
	[ -x $(BIN)/python ] || $(PYTHON) -I -m venv $(VENV)
	$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	    print("\n".join(p["dependencies"] + p["optional-dependencies"]["dev"]))' > $(VENV)/requirements.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r $(VENV)/requirements.txt
	touch $@

native: $(NATIVE)/_native.abi3.so $(NATIVE)/image ## build the extension and the waiting image in place

$(NATIVE)/_native.abi3.so $(NATIVE)/image &: $(NATIVE)/_native.c $(NATIVE)/image.c $(NATIVE)/image.ld setup.py | $(VENV)/.installed
	$(BIN)/python -W ignore setup.py --quiet build_ext --force --inplace --build-temp $(VENV)/build
	touch $(NATIVE)/_native.abi3.so $(NATIVE)/image
