# ocimk: make demo, make test, make install PREFIX=/usr/local. See README.md.

PYTHON  ?= /usr/bin/python3
PREFIX  ?= /usr/local
DESTDIR ?=
PYTEST  ?=
VENDOR  ?= yes

VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := lib/ocimk/native
SOURCES := $(wildcard lib/ocimk/*.py lib/ocimk/*/*.py lib/ocimk/*/*/*.py)
PACK   := $(VENV)/packed
pack    = $(PYTHON) -IS -X utf8 -X no_debug_ranges $(1)/cli/pack.py && touch $(PACK)

# Debian's names. What building and running needs, and what the tests compare with besides.
BASE_PACKAGES := python3-venv python3-dev gcc libc6-dev libcap-dev libseccomp2 busybox-static
TEST_PACKAGES := runc crun podman conmon iproute2 procps util-linux uidmap strace
VM_PACKAGES := mmdebstrap qemu-system-x86 e2fsprogs openssh-client

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help packages test-packages venv native demo test lint bench soak install uninstall clean dist
.PHONY: check-security fuzz check-podman check-docker check-containerd check-buildah check-vm check-vm-clients

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- what must be there ----------------------------------------------------------------------------------------------

# $(call need,PACKAGES): install those that are missing; who may not is told which, and it ends there.
define need
	@missing=$$(for p in $(1); do \
	    dpkg-query -W -f='$${db:Status-Abbrev}' $$p 2>/dev/null | grep -q '^.i' || echo $$p; done); \
	[ -n "$$missing" ] || exit 0; \
	if ! command -v apt-get >/dev/null; then \
	    echo "make: no Debian here; these packages of Debian's are needed under their local names:" $$missing >&2; \
	elif [ "$$(id -u)" != 0 ]; then \
	    echo "make: packages are missing; as root: apt-get install" $$missing >&2; exit 1; \
	else \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing </dev/null; \
	fi
endef

packages: ## install the Debian packages that building and running needs
	$(call need,$(BASE_PACKAGES))

test-packages: ## install the Debian packages that the tests need besides
	$(call need,$(BASE_PACKAGES) $(TEST_PACKAGES))

# ---- the private Python and the native parts -------------------------------------------------------------------------

# $(call requirements,EXPRESSION): the packages that pyproject.toml names; p is its [project] table.
requirements = $(PYTHON) -I -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	    print("\n".join($(1)))'

venv: packages $(VENV)/.installed ## make the private venv with all that pyproject.toml names

$(VENV)/.installed: pyproject.toml | packages
	[ -x $(BIN)/python ] || $(PYTHON) -I -m venv $(VENV)
	$(call requirements,p["dependencies"] + p["optional-dependencies"]["dev"]) > $(VENV)/requirements
	cmp -s $(VENV)/requirements $@ || $(BIN)/python -m pip install -qq --disable-pip-version-check -r $(VENV)/requirements
	mv $(VENV)/requirements $@

native: $(NATIVE)/_native.abi3.so $(NATIVE)/image $(PACK) ## build the extension, the waiting image and the pack in place

$(NATIVE)/_native.abi3.so $(NATIVE)/image &: $(NATIVE)/_native.c $(NATIVE)/image.c $(NATIVE)/image.ld $(NATIVE)/kernel.h setup.py | $(VENV)/.installed
	$(BIN)/python -W ignore setup.py --quiet build_ext --force --inplace --build-temp $(VENV)/build
	touch $(NATIVE)/_native.abi3.so $(NATIVE)/image

# The byte code of the hot commands in one file; see lib/ocimk/cli/pack.py.
$(PACK): $(SOURCES) $(NATIVE)/_native.abi3.so
	$(call pack,lib/ocimk)

# ---- using and checking it -------------------------------------------------------------------------------------------

demo: venv native ## walk one container through its life (needs root)
	tests/demo.sh

test: test-packages venv native ## run all tests; PYTEST='-k mount' narrows them
	$(BIN)/python -m pytest $(PYTEST)

lint: venv ## check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: test-packages venv native ## measure against runc and crun
	$(BIN)/python tests/bench/bench.py

soak: test-packages venv native ## 1,000 containers one after the other and 200 at once leave nothing behind
	$(BIN)/python tests/bench/soak.py $(SOAK)

check-security: test-packages venv native ## mount all known attacks, each race run 500 times
	OCIMK_RACES=$${OCIMK_RACES:-500} $(BIN)/python -m pytest tests/security -o timeout=3600 -o faulthandler_timeout=3500 $(PYTEST)

fuzz: test-packages venv native ## feed 20,000 inputs of each kind, then ten minutes of a fuzzer that sees which code it reaches
	OCIMK_FUZZ=$${OCIMK_FUZZ:-20000} $(BIN)/python -m pytest tests/security/test_fuzz.py -o timeout=7200 -o faulthandler_timeout=7100 $(PYTEST)
	[ -x $(VENV)/fuzz/bin/python ] || $(PYTHON) -I -m venv $(VENV)/fuzz
	$(VENV)/fuzz/bin/python -m pip install -qq --disable-pip-version-check atheris
	for target in config folder; do \
	    $(VENV)/fuzz/bin/python tests/security/fuzz.py $$target -max_total_time=300 -timeout=20 -print_final_stats=1 || exit 1; done

check-podman: test-packages venv native ## run containers with podman on top of this tree
	$(call need,catatonit)
	OCIMK_CLIENT=podman $(BIN)/python -m pytest tests/clients/test_podman.py tests/clients/test_podman_more.py $(PYTEST)

# $(call client,NAME,PACKAGES): the tests of a client that make test leaves alone.
define client
	$(call need,$(2))
	OCIMK_CLIENT=$(1) $(BIN)/python -m pytest tests/clients/test_$(1).py $(PYTEST)
endef

check-docker: test-packages venv native ## run containers with docker, on a daemon of the tests' own
	$(call client,docker,docker.io)

check-containerd: test-packages venv native ## run containers with containerd: ctr and the shim of Kubernetes
	$(call client,containerd,containerd)

check-buildah: test-packages venv native ## build images with buildah
	$(call client,buildah,buildah)

check-vm: venv native ## run the tests that need systemd and all of cgroup v2, in a virtual machine
	$(call need,$(VM_PACKAGES))
	$(PYTHON) tests/vm/lane.py -- $(PYTEST)

check-vm-clients: venv native ## run the callers' tests in a virtual machine: systemd and cgroup v2
	$(call need,$(VM_PACKAGES))
	$(PYTHON) tests/vm/lane.py --clients -- $(PYTEST)

# ---- installing ------------------------------------------------------------------------------------------------------

to      := $(DESTDIR)$(PREFIX)
library := $(PREFIX)/lib/ocimk
stages  := $(PREFIX)/libexec/ocimk
share   := $(PREFIX)/share

# A program finds its library from where it stands; installed, that is elsewhere than in the tree.
fit = sed -e '1s|/usr/bin/python3|$(PYTHON)|' -e 's|"/../lib"|"$(2)"|' $(1) > $(DESTDIR)$(3) && chmod 755 $(DESTDIR)$(3)
complete = $(PYTHON) -ISB -c 'import sys; sys.path.insert(0, "lib"); from ocimk.cli import completion; completion.main(["$(1)"])'

install: venv native ## install below DESTDIR/PREFIX; VENDOR=no leaves the third-party packages to the distribution
	rm -rf $(DESTDIR)$(library) $(DESTDIR)$(stages)
	install -d $(to)/bin $(DESTDIR)$(stages) $(DESTDIR)$(library) $(share:%=$(DESTDIR)%/bash-completion/completions) \
	    $(DESTDIR)$(share)/zsh/site-functions $(DESTDIR)$(share)/fish/vendor_completions.d
	tar -C lib -cf - --exclude=__pycache__ --exclude='*.[ch]' --exclude='*.ld' --exclude='*.pyi' --exclude='.*' --mode=u+rwX,go=rX ocimk \
	    | tar -C $(DESTDIR)$(library) --no-same-owner -xf -
	git describe --always --abbrev=40 --dirty > $(DESTDIR)$(library)/ocimk/commit 2>/dev/null \
	    || rm -f $(DESTDIR)$(library)/ocimk/commit
	[ "$(VENDOR)" = no ] || { $(call requirements,p["dependencies"]) > $(VENV)/vendor \
	    && $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile \
	    --target $(DESTDIR)$(library)/vendor -r $(VENV)/vendor && rm -rf $(DESTDIR)$(library)/vendor/bin; }
	$(PYTHON) -I -m compileall -q -s '$(DESTDIR)' -p / $(DESTDIR)$(library)
	$(call pack,$(DESTDIR)$(library)/ocimk)
	$(call fit,bin/oci,/../lib/ocimk,$(PREFIX)/bin/oci)
	set -e; for stage in libexec/oci-*; do $(call fit,$$stage,/../../lib/ocimk,$(stages)/$${stage##*/}); done
	set -e; for page in $(wildcard man/*.[1578]); do section=$${page##*.}; \
	    install -D -m 644 $$page $(DESTDIR)$(share)/man/man$$section/$${page##*/}; done
	$(call complete,bash) > $(DESTDIR)$(share)/bash-completion/completions/oci
	$(call complete,zsh) > $(DESTDIR)$(share)/zsh/site-functions/_oci
	$(call complete,fish) > $(DESTDIR)$(share)/fish/vendor_completions.d/oci.fish

uninstall: ## remove what install put there
	rm -rf $(DESTDIR)$(library) $(DESTDIR)$(stages)
	rm -f $(to)/bin/oci $(DESTDIR)$(share)/bash-completion/completions/oci \
	    $(DESTDIR)$(share)/zsh/site-functions/_oci $(DESTDIR)$(share)/fish/vendor_completions.d/oci.fish
	for page in $(notdir $(wildcard man/*.[1578])); do rm -f $(DESTDIR)$(share)/man/man$${page##*.}/$$page; done

clean: ## remove what was built, the private venv too
	rm -rf $(VENV) build dist *.egg-info lib/*.egg-info $(NATIVE)/_native.abi3.so $(NATIVE)/image
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find bin lib tests -name __pycache__ -prune -exec rm -rf {} +

dist: ## pack the committed sources
	install -d dist
	version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' lib/ocimk/__init__.py); \
	    git archive --prefix=ocimk-$$version/ -o dist/ocimk-$$version.tar.gz HEAD && echo dist/ocimk-$$version.tar.gz
