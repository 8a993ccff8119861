#!/usr/bin/env bash
# One part of all tests; scripts/test.sh runs them. BOILERHOUSE_LONG=1 is its, too.
# Up to three tests that fail run once more, alone: what fails twice fails the part, what passes then is said to be
# unsteady, on the last lines, and in the file BOILERHOUSE_UNSTEADY if that is set. Worse than that (more failures, errors
# of collection, a signal) fails the part at once, as does any failure with BOILERHOUSE_RERUN=0 and with -x or --maxfail.
# usage: scripts/test-part.sh [PYTEST'S ARGUMENT...] PART-sqlite|PART-postgresql
# PART: stack, engine, in-process; or core, dashboard, apps, syncing: a quarter of in-process each; or pages: the tests of
# stack in a browser, which stack-sqlite then leaves out. With BOILERHOUSE_LONG=1, stack-sqlite has those, too.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
unset DATABASE_URL BOILERHOUSE_DATA_DIR
part=${!#}
arguments=("${@:1:$#-1}")
command=()
case $part in
  engine-*) command+=(scripts/engine.sh); folders=(tests/engine) ;;
  stack-* | pages-sqlite) folders=(tests/stack) ;;
  core-*) folders=(tests/core) ;;
  dashboard-*) folders=(tests/dashboard) ;;
  apps-*) folders=(tests/pools tests/tenants) ;;
  syncing-*) folders=(tests/syncing) ;;
  in-process-*) folders=(tests/core tests/pools tests/syncing tests/tenants tests/dashboard) ;;
  *) echo "No such part: $part" >&2; exit 2 ;;
esac
case $part in
  *-postgresql) command+=(scripts/postgresql.sh); left_out="not long and not any_database" ;;
  *) left_out="not long and not postgresql" ;;
esac
case $part in
  pages-sqlite) left_out+=" and browser" ;;
  stack-sqlite) left_out+=" and not browser" ;;
esac
cache=.pytest_cache/$part
command+=(.venv/bin/pytest -q -o "cache_dir=$cache" "${folders[@]}")
if [ -z "${BOILERHOUSE_LONG:-}" ]; then command+=(-m "$left_out"); fi
command+=("${arguments[@]}")
rerun=${BOILERHOUSE_RERUN:-1}
for argument in ${PYTEST_ADDOPTS:-} "${arguments[@]}"; do # stopped early, the tests after the failure never ran
  if [[ $argument =~ ^(-[a-zA-Z]*x[a-zA-Z]*|--exitfirst|--maxfail.*)$ ]]; then rerun=0; fi
done
unsteady=()
failed() { # one node id a line
  .venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$cache/v/cache/lastfailed"
}
tests() {
  local code=0 once
  rm -rf "$cache"
  "${command[@]}" || code=$?
  # With 1 tests failed, or what they need (PostgreSQL, an engine) did not start: then pytest has written nothing.
  if [ "$code" != 1 ] || [ "$rerun" = 0 ] || [ ! -f "$cache/v/cache/lastfailed" ]; then return "$code"; fi
  mapfile -t once < <(failed)
  if [ "${#once[@]}" = 0 ] || [ "${#once[@]}" -gt 3 ]; then return "$code"; fi
  printf '\n== %s runs what failed once more\n' "$part"
  "${command[@]}" --last-failed --last-failed-no-failures=none || return
  unsteady=("${once[@]}")
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
for test in "${unsteady[@]}"; do
  printf '== UNSTEADY, passed only when run once more: %s (%s)\n' "$test" "$part" | tee -a "${BOILERHOUSE_UNSTEADY:-/dev/null}"
done
exit "$code"
