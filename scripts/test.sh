#!/usr/bin/env bash
# All tests, on SQLite and on PostgreSQL. Arguments go to pytest. BOILERHOUSE_LONG=1 adds the slow ones.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
unset DATABASE_URL BOILERHOUSE_DATA_DIR
parts=(tests/core tests/pools tests/syncing tests/tenants tests/dashboard)
.venv/bin/pytest -q "${parts[@]}" "$@"
scripts/postgresql.sh .venv/bin/pytest -q "${parts[@]}" "$@"
.venv/bin/pytest -q tests/stack "$@"
scripts/postgresql.sh .venv/bin/pytest -q tests/stack "$@"
