#!/usr/bin/env bash
# One part of all tests; scripts/test.sh runs them. BOILERHOUSE_LONG=1 is its, too.
# usage: scripts/test-part.sh [PYTEST'S ARGUMENT...] in-process-sqlite|in-process-postgresql|stack-…|engine-…
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
unset DATABASE_URL BOILERHOUSE_DATA_DIR
part=${!#}
arguments=("${@:1:$#-1}")
command=()
case $part in
  engine-*) command+=(scripts/engine.sh); folders=(tests/engine) ;;
  stack-*) folders=(tests/stack) ;;
  in-process-*) folders=(tests/core tests/pools tests/syncing tests/tenants tests/dashboard) ;;
  *) echo "No such part: $part" >&2; exit 2 ;;
esac
case $part in
  *-postgresql) command+=(scripts/postgresql.sh); left_out="not long and not any_database" ;;
  *) left_out="not long and not postgresql" ;;
esac
command+=(.venv/bin/pytest -q "${folders[@]}")
if [ -z "${BOILERHOUSE_LONG:-}" ]; then command+=(-m "$left_out"); fi
command+=("${arguments[@]}")
echo "== $part begins"
code=0
if [ "$part" = stack-sqlite ]; then # the longest: whoever looks on sees it going on
  "${command[@]}" || code=1
else # in one piece when it has ended, as another part writes meanwhile
  log=$(mktemp); trap 'rm -f "$log"' EXIT
  "${command[@]}" >"$log" 2>&1 || code=1
  printf '\n'; cat "$log"
fi
printf '\n== %s took %d s%s\n' "$part" "$SECONDS" "$([ "$code" = 0 ] || echo ' and FAILED')"
exit "$code"
