#!/usr/bin/env bash
# All tests, on SQLite and on PostgreSQL, and with a Docker engine of their own that they kill. Arguments go to pytest. BOILERHOUSE_LONG=1 adds the slow ones.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
unset DATABASE_URL BOILERHOUSE_DATA_DIR
parts=(tests/core tests/pools tests/syncing tests/tenants tests/dashboard)
.venv/bin/pytest -q "${parts[@]}" "$@"
scripts/postgresql.sh .venv/bin/pytest -q "${parts[@]}" "$@"
.venv/bin/pytest -q tests/stack "$@"
scripts/postgresql.sh .venv/bin/pytest -q tests/stack "$@"
scripts/engine.sh .venv/bin/pytest -q tests/engine "$@"
if [ -n "${BOILERHOUSE_LONG:-}" ]; then scripts/engine.sh scripts/postgresql.sh .venv/bin/pytest -q tests/engine "$@"; fi
