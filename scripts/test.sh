#!/usr/bin/env bash
# All tests, on SQLite and on PostgreSQL, and with a Docker engine of their own that they kill. Arguments go to pytest.
# BOILERHOUSE_LONG=1 adds the slow ones, and runs those, too, on both databases that do not depend on which it is.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
unset DATABASE_URL BOILERHOUSE_DATA_DIR
if [ -n "${BOILERHOUSE_LONG:-}" ]; then first=() second=(); else first=(-m "not long and not postgresql") second=(-m "not long and not any_database"); fi
parts=(tests/core tests/pools tests/syncing tests/tenants tests/dashboard)
# These need a processor each and nothing of one another, and the engine's tests have an engine of their own; the rest
# waits for containers and clocks, and runs alone.
second_log=$(mktemp)
beside() {
  scripts/postgresql.sh .venv/bin/pytest -q "${parts[@]}" "${second[@]}" "$@" && scripts/engine.sh .venv/bin/pytest -q tests/engine "${first[@]}" "$@"
}
beside "$@" >"$second_log" 2>&1 & beside=$!
first_rc=0; .venv/bin/pytest -q "${parts[@]}" "${first[@]}" "$@" || first_rc=$?
second_rc=0; wait "$beside" || second_rc=$?
cat "$second_log"; rm -f "$second_log"
[ "$first_rc" = 0 ] && [ "$second_rc" = 0 ]
.venv/bin/pytest -q tests/stack "${first[@]}" "$@"
scripts/postgresql.sh .venv/bin/pytest -q tests/stack "${second[@]}" "$@"
if [ -n "${BOILERHOUSE_LONG:-}" ]; then scripts/engine.sh scripts/postgresql.sh .venv/bin/pytest -q tests/engine "$@"; fi
