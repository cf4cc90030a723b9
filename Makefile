# Everyday commands. `make` alone lists them.
#
# Everything is installed into .venv, in steps, so that a newcomer's `make demo` does not wait for
# the test suite's packages: .venv/.base (NumPy and maturin), .venv/.dev (the test suite and the
# linters), .venv/.bench and .venv/.docs. All follow the versions of requirements-dev.txt.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip
ADAPTERS := $(VENV)/adapters
EXTENSION := omendb/_core.abi3.so
RUST := Cargo.toml $(wildcard Cargo.lock build.rs .cargo/config.toml) $(shell find src -name '*.rs')
# A continuous build must not resolve new versions silently; a developer may.
LOCKED := $(if $(CI),--locked)

# Where `make capi` installs. The number is OMEN_ABI_VERSION: programs look for the library by it.
PREFIX ?= .cache/capi
ifeq ($(shell uname),Darwin)
SO := dylib
SOFILE := libomendb.dylib
else
SO := so
SOFILE := libomendb.so.1
SONAME := -C link-arg=-Wl,-soname,$(SOFILE)
endif

# The newest interpreter that runs and can make virtual environments; `make PYTHON=...` overrides.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

# clippy and maturin compile pyo3 for the same interpreter, whatever is active in the shell.
export PYO3_PYTHON := $(abspath $(PY))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1
export HYPOTHESIS_STORAGE_DIRECTORY := .cache/hypothesis

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo build capi header test test-rust test-python test-adapters test-slow test-qemu lint \
	format types stubs docs notebooks bench bench-quick wheel wheel-test lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(EXTENSION) ## build, then search the documentation on this machine
	$(PY) -m omendb demo

build: $(EXTENSION) ## compile the extension (release) into omendb/

# The C library is the Rust crate without Python, so nothing of .venv is needed for it.
capi: ## the C library, its header and omendb.pc, into PREFIX (.cache/capi)
	cargo rustc $(LOCKED) --release --lib --crate-type cdylib,staticlib -- $(SONAME)
	mkdir -p '$(PREFIX)/include' '$(PREFIX)/lib/pkgconfig'
	cp include/omendb.h '$(PREFIX)/include/'
	cp target/release/libomendb.a '$(PREFIX)/lib/'
	cp target/release/libomendb.$(SO) '$(PREFIX)/lib/libomendb.$(SO).new'
	mv '$(PREFIX)/lib/libomendb.$(SO).new' '$(PREFIX)/lib/$(SOFILE)' # programs may have it mapped
	test -e '$(PREFIX)/lib/libomendb.$(SO)' || ln -s $(SOFILE) '$(PREFIX)/lib/libomendb.$(SO)'
	printf '%s\n' 'prefix=$(abspath $(PREFIX))' 'Name: omendb' 'Description: nearest neighbours' \
		"Version: $$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" \
		'Cflags: -I$${prefix}/include' 'Libs: -L$${prefix}/lib -lomendb' \
		'Libs.private: -lgcc_s -lpthread -lm -ldl' > '$(PREFIX)/lib/pkgconfig/omendb.pc'

header: ## rewrite include/omendb.h and the list of its lines from src/capi.rs
	OMENDB_WRITE=1 cargo test --test header

test: test-rust test-python ## the whole test suite: Rust, Python and C

# With the release profile: dependencies, which take longest, are compiled once for tests and capi.
test-rust: ## Rust tests; needs no Python
	cargo test $(LOCKED) --release --features table \
		--config profile.release.package.omendb.debug-assertions=true \
		--config profile.release.package.omendb.overflow-checks=true

test-python: $(EXTENSION) $(VENV)/.dev capi ## Python and C tests, README and docstrings
	$(PY) -m pytest

test-adapters: $(EXTENSION) $(ADAPTERS)/.done ## LangChain's and Haystack's own tests, and mypy with their types
	$(ADAPTERS)/bin/python -m pytest -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function \
		--benchmark-storage=file://.cache/benchmarks \
		tests/test_langchain.py tests/test_haystack.py tests/test_docs.py tests/test_guest.py \
		-k 'langchain or haystack or documents or readme or frameworks or reference or optional'
	$(ADAPTERS)/bin/python -m mypy

test-slow: $(EXTENSION) $(VENV)/.dev ## all Python tests, slow ones too, on many more drawn examples
	$(PY) -m pytest -m 'not notebook' -o timeout=3600 --hypothesis-profile=slow

test-qemu: $(EXTENSION) $(VENV)/.dev ## Rust tests and README on CPUs without AVX and AVX-512
	for cpu in Nehalem Haswell; do \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64 -cpu $$cpu" \
			cargo test --target x86_64-unknown-linux-gnu $(LOCKED) --features table && \
		OPENBLAS_CORETYPE=$$cpu qemu-x86_64 -cpu $$cpu \
			$(PY) -m pytest -o timeout=0 tests/test_docs.py -k README || exit 1; \
	done

lint: $(EXTENSION) $(VENV)/.dev types stubs ## formatting, clippy, ruff, types, stub, house rules
	cargo fmt --check
	cargo clippy $(LOCKED) --all-targets -- -D warnings
	cargo clippy $(LOCKED) --all-targets --features python -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --no-deps --quiet
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m pytest --quiet tests/test_house.py

types: $(EXTENSION) $(VENV)/.dev ## mypy, strict; the examples of README and docs/ by pyright as well
	$(PY) -m mypy
	$(PY) tests/examples.py target/examples
	$(PY) -m mypy target/examples
	$(PY) -m pyright --pythonpath $(PY) --warnings

stubs: $(EXTENSION) $(VENV)/.dev ## compare omendb/_core.pyi with the compiled module
	$(PY) -m mypy.stubtest omendb._core

format: $(VENV)/.dev ## rewrite Rust and Python in the project's format
	cargo fmt
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

docs: $(EXTENSION) $(VENV)/.docs ## the site, into .cache/docs; a warning is an error
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet --doctree-dir .cache/doctrees docs .cache/docs

notebooks: $(EXTENSION) $(VENV)/.docs ## run all notebooks; OMENDB_WRITE=1 stores what they gave
	$(PY) -m pytest -m notebook tests/test_notebooks.py
	$(PY) -m pytest tests/test_docs.py -k knn-graph # with UMAP, which `make test` has not

bench: $(EXTENSION) $(VENV)/.bench ## omendb beside its peers (EXACT_ARGS=..., GRAPH_ARGS=... to choose)
	$(PY) benches/exact.py $(EXACT_ARGS)
	$(PY) benches/graph.py $(GRAPH_ARGS)

bench-quick: $(EXTENSION) $(VENV)/.bench ## its short form: the small sets, two minutes for each half
	$(PY) benches/exact.py --quick $(EXACT_ARGS)
	$(PY) benches/graph.py --quick $(GRAPH_ARGS)

wheel: $(VENV)/.base ## the wheel as published, into dist/
	rm -rf dist
	$(VENV)/bin/maturin build $(LOCKED) --profile dist --out dist

wheel-test: wheel ## its size, and the suite in a clean environment of every Python found
	.ci/wheel-test dist/*.whl

lock: $(VENV)/.base ## rewrite requirements-*.txt with the newest versions
	$(PY) -m venv .cache/lock && .cache/lock/bin/pip install uv
	.cache/lock/bin/uv pip compile --quiet --universal --upgrade --python-version 3.11 \
		--extra dev --no-header --no-annotate pyproject.toml --output-file .cache/lock/pins
	{ sed -n '/^#/p' requirements-dev.txt; cat .cache/lock/pins; } > .cache/lock/new
	mv .cache/lock/new requirements-dev.txt
	.cache/lock/bin/uv pip compile --quiet --universal --upgrade --python-version 3.11 \
		--extra adapters --constraint requirements-dev.txt --no-header --no-annotate pyproject.toml \
		--output-file .cache/lock/pins
	{ sed -n '/^#/p' requirements-adapters.txt; grep -vxFf requirements-dev.txt .cache/lock/pins; } \
		> .cache/lock/new
	mv .cache/lock/new requirements-adapters.txt

clean: ## remove everything that was built or installed
	rm -rf target dist $(VENV) .cache $(EXTENSION)
	find omendb tests benches -name __pycache__ -exec rm -rf {} +

# The extension is built where Python finds it: maturin puts it into omendb/ and this folder on
# the path of .venv. CONDA_PREFIX is hidden because maturin refuses two active environments.
$(EXTENSION): $(RUST) pyproject.toml $(VENV)/.base
	unset CONDA_PREFIX; VIRTUAL_ENV=$(abspath $(VENV)) \
		$(VENV)/bin/maturin develop $(LOCKED) --profile release
	@touch $@

$(VENV)/.base: requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "make: found no Python 3.11 or newer that can make virtual" \
		"environments (on Debian: apt install python3-venv); try make PYTHON=/path/to/python3"; \
		exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint requirements-dev.txt numpy maturin
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) install --requirement requirements-dev.txt
	@touch $@

# An environment that sees all of .venv and has the frameworks besides.
$(ADAPTERS)/.done: requirements-adapters.txt $(VENV)/.dev
	$(PY) -m venv $(ADAPTERS)
	$(PY) -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> "$$($(ADAPTERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/parent.pth"
	$(ADAPTERS)/bin/python -m pip install --requirement requirements-adapters.txt
	@touch $@

# Versions that are not in requirements-dev.txt stand in pyproject.toml, extras `bench` and `docs`.
$(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: pyproject.toml $(VENV)/.base
	$(PY) -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		print(*project['optional-dependencies']['$*'], sep='\n')" > $@.txt
	$(PIP) install --constraint requirements-dev.txt --requirement $@.txt
	@touch $@
