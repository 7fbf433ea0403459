# The commands of this house. Each one sets up what it needs on a fresh Debian 12 machine (as root), says what it does,
# names what failed, and is quick the second time. The work is done by the scripts in .ci/.
#
#   make demo     plaintext redis on both ends, AT-TLS in between: as anybody, then on two private machines; PASS or FAIL
#   make test     ruff, mypy, the whole test suite
#   make bench    what attls costs, next to nginx stream, haproxy, stunnel and envoy (15 to 20 minutes)
#   make lint     ruff and mypy alone
#   make clean    removes what these commands made inside this directory (the packages stay)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo test bench lint clean

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

demo:
	@.ci/packages demo
	.ci/environment run
	.venv/bin/attls demo

test:
	@.ci/packages test
	.ci/environment test
	.ci/checks lint tests

bench:
	@.ci/packages bench
	.ci/environment bench
	.venv/bin/python -m bench

lint:
	@.ci/packages lint
	.ci/environment test
	.ci/checks lint

clean:
	@rm -rf .venv .state .mypy_cache .pytest_cache .ruff_cache .hypothesis
	echo "make clean: removed the virtual environment, logs and caches"
