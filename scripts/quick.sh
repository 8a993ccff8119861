#!/usr/bin/env bash
# What CI checks besides the tests, and the in-process tests that need no server and no engine, on SQLite: as much at a
# time as there are processors. Each part's output comes when it has ended. Arguments go to pytest.
# usage: [QUICK_PYTHON=.venv/bin/python] scripts/quick.sh [--tests-only] [PYTEST'S ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --part ]; then
  part=$2 code=0 log=$(mktemp)
  shift 2
  trap 'rm -f "$log"' EXIT
  case $part in
    check) command=(scripts/check.sh) ;;
    core) folders=(tests/core) ;;
    pages) folders=(tests/dashboard) ;;
    apps) folders=(tests/pools tests/tenants tests/syncing) ;;
    *) echo "No such part: $part" >&2; exit 2 ;;
  esac
  if [ "$part" != check ]; then
    command=("$QUICK_PYTHON" -m pytest -q -o "cache_dir=.pytest_cache/quick-$part" "${folders[@]}")
    command+=(-m "not slow and not long and not postgresql" "$@")
  fi
  "${command[@]}" >"$log" 2>&1 || code=1
  if [ "$part" = check ] && [ "$code" = 0 ]; then : >"$log"; fi
  cat "$log"
  printf '== quick: %s took %d s%s\n' "$part" "$SECONDS" "$([ "$code" = 0 ] || echo ' and FAILED')"
  exit "$code"
fi
export PATH="$PATH:/usr/sbin:/sbin" QUICK_PYTHON=${QUICK_PYTHON:-.venv/bin/python}
unset DATABASE_URL BOILERHOUSE_DATA_DIR
parts=(core apps pages check)
if [ "${1:-}" = --tests-only ]; then parts=(core apps pages); shift; fi
printf '%s\0' "${parts[@]}" | xargs -0 -P "$(nproc)" -I PART scripts/quick.sh --part PART "$@"
