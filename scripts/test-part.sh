#!/usr/bin/env bash
# One part of all tests; scripts/test.sh runs them. BOILERHOUSE_LONG=1 is its, too.
# Up to three tests that fail run once more, alone: what fails twice fails the part, what passes then is printed as unsteady.
# BOILERHOUSE_RERUN=0 fails the part at once.
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
cache=.pytest_cache/$part
command+=(.venv/bin/pytest -q -o "cache_dir=$cache" "${folders[@]}")
if [ -z "${BOILERHOUSE_LONG:-}" ]; then command+=(-m "$left_out"); fi
command+=("${arguments[@]}")
failed() { .venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$cache/v/cache/lastfailed"; }
tests() {
  local code=0
  rm -rf "$cache"
  "${command[@]}" || code=$?
  if [ "$code" != 1 ] || [ "${BOILERHOUSE_RERUN:-1}" = 0 ]; then return "$code"; fi # 1: tests failed; the rest is worse
  mapfile -t unsteady < <(failed)
  if [ "${#unsteady[@]}" = 0 ] || [ "${#unsteady[@]}" -gt 3 ]; then return "$code"; fi
  printf '\n== %s runs what failed once more\n' "$part"
  "${command[@]}" --last-failed --last-failed-no-failures=none || return 1
  printf '== UNSTEADY, passed only when run once more: %s\n' "${unsteady[@]}" | tee "$cache/unsteady"
}
echo "== $part begins"
code=0
if [ "$part" = stack-sqlite ]; then # the longest: whoever looks on sees it going on
  tests || code=1
else # in one piece when it has ended, as another part writes meanwhile
  log=$(mktemp); trap 'rm -f "$log"' EXIT
  tests >"$log" 2>&1 || code=1
  printf '\n'; cat "$log"
fi
printf '\n== %s took %d s%s\n' "$part" "$SECONDS" "$([ "$code" = 0 ] || echo ' and FAILED')"
exit "$code"
