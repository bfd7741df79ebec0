# `make help` lists the targets.  Everything is installed into this folder: .venv, .tools, build.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
SHELL := /bin/sh

# The first Python that is new enough and can make a virtual environment.  It is run to find out, because a shim may exist for a missing version.
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3 python,$(shell \
	$(name) -c 'import sys, ensurepip; sys.version_info < (3, 11) and sys.exit(1); print("$(name)")' 2>/dev/null)))

VENV := .venv/bin/python
LOCK := .tools/venv/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11
PIP := -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --requirement

# External programs that some tests need; `make tools` fetches them.
export HMS_TOOLS_DIR ?= $(CURDIR)/.tools/prometheus
export HMS_TOOLS_DIR_2 ?= $(CURDIR)/.tools/prometheus-2

# The address at which docs/alerts.md is published, for the links in alerts: make generate RUNBOOKS=https://wiki.example.org/hms-alerts
RUNBOOKS ?=

CORES := $(shell getconf _NPROCESSORS_ONLN)
TESTS := $(VENV) -m pytest --maxprocesses 5 --dist worksteal

# Further arguments for the command of a target: make demo ARGS=--web.listen-address=:9000, make quick ARGS='-k reload'
ARGS ?=

##@ Run
.PHONY: demo run stack

demo: .venv/.run ## the exporter on a made-up company's rooms, without an account
	@$(VENV) -m exporter demo $(ARGS)

run: .venv/.run ## the exporter with config.yaml and the credentials in the environment
	@if [ -z "$$HMS_ACCESS_KEY$$HMS_SECRET" ] && grep -q '{HMS_ACCESS_KEY}' config.yaml 2>/dev/null && [ -z "$(findstring --config.file,$(ARGS))" ]; then \
		echo "config.yaml takes the credentials of your workspace from HMS_ACCESS_KEY and HMS_SECRET, which are not set." >&2; \
		echo "  with an account:  HMS_ACCESS_KEY=... HMS_SECRET=... make run   (100ms dashboard, section Developer)" >&2; \
		echo "  without:          make demo" >&2; exit 2; fi
	@$(VENV) -m exporter run $(ARGS)

stack: .venv/.dev ## the demo with Prometheus and Alertmanager beside it, and Grafana if it is installed
	@$(VENV) -m scripts.stack $(ARGS)

##@ Test
.PHONY: test quick lint bench soak

test: lint .venv/.dev ## lint, types and all tests
	$(TESTS) -n $$(($(CORES) + 1)) $(ARGS) # one process more than cores, because many tests wait for a program

quick: .venv/.dev ## the fast tests
	HMS_EXAMPLES=$${HMS_EXAMPLES:-20} $(TESTS) -n $(CORES) -m "not slow" --ignore tests/e2e $(ARGS)

lint: .venv/.dev ## style, format and types
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy

bench: .venv/.dev ## measure speed and memory; prints one table at the end
	$(VENV) -m bench $(ARGS)

soak: .venv/.dev ## simulated days in an hour, with faults
	$(VENV) -m soak $(ARGS)

##@ Release
.PHONY: image dist

image: ## the image, with docker, podman or buildah
	@scripts/image

dist: .venv/.dev .tools/venv/.installed ## a release in dist/: wheel, sdist, image, bill of materials, chart, dashboards, checksums
	@$(VENV) -m scripts.dist

##@ Maintain
.PHONY: generate pictures lock tools clean help

generate: .venv/.dev ## write what is made from other files: dashboards, the Kubernetes rules
	$(VENV) -m scripts.prometheusrule $(RUNBOOKS)
	$(VENV) -m grafana
	$(VENV) -m grafana --portable dist/dashboards

pictures: .venv/.dev ## draw the dashboards' pictures in docs/images again (node, npm, chromium)
	$(VENV) -m grafana.pictures $(ARGS)

lock: .tools/venv/.installed ## write the lock files again from pyproject.toml
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml --group dev -o requirements-dev.lock
	$(LOCK) --group build -o requirements-build.lock
	$(LOCK) --group tools -o requirements-tools.lock

tools: ## fetch Prometheus, Alertmanager and a browser for the tests that need them (Debian)
	scripts/fetch-tools

clean: ## remove everything that was installed or built here
	rm -rf .venv .tools build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { print "\n" substr($$0, 5) } /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "No usable Python found: this needs Python 3.11 or later with its venv module (Debian: apt install python3-venv)." \
		"Name one with make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Setting up .venv with $(PYTHON), once"
	@$(PYTHON) -m venv --clear .venv

.venv/.run: requirements.lock .venv/bin/python
	@$(VENV) $(PIP) requirements.lock
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	@echo "Installing the packages of the tests, once"
	@$(VENV) $(PIP) requirements-dev.lock
	@touch $@

.tools/venv/.installed: requirements-tools.lock .venv/bin/python
	@$(VENV) -m venv --clear .tools/venv
	@.tools/venv/bin/python $(PIP) requirements-tools.lock
	@touch $@
