#!/usr/bin/env bash
# All tests, on SQLite and on PostgreSQL, and with a Docker engine of their own that they kill. Arguments go to pytest.
# BOILERHOUSE_LONG=1 adds the slow ones, and runs those, too, on both databases that do not depend on which it is.
set -euo pipefail
cd "$(dirname "$0")/.."
run() { # run COUNT PART...: so many at a time, the next one as soon as one has ended; fails after the last if one failed
  local count=$1; shift
  printf '%s\n' "$@" | xargs -P "$count" -n 1 scripts/test-part.sh "${arguments[@]}"
}
arguments=("$@")
BOILERHOUSE_UNSTEADY=$(mktemp); export BOILERHOUSE_UNSTEADY
trap 'cat "$BOILERHOUSE_UNSTEADY"; rm -f "$BOILERHOUSE_UNSTEADY"' EXIT # at the very end, where nobody overlooks them
processors=$(nproc)
if [ -z "${BOILERHOUSE_LONG:-}" ]; then
  # A part waits for containers, sinks and clocks about half of its time, so three keep two processors busy. Longest first.
  run $((processors < 2 ? 1 : 3)) \
    stack-sqlite syncing-sqlite in-process-postgresql apps-sqlite core-sqlite dashboard-sqlite stack-postgresql \
    pages-sqlite engine-sqlite
else
  # Some slow tests of the stack put all the load on it that this machine bears, so nothing runs beside them.
  code=0
  run $((processors < 2 ? 1 : 2)) syncing-sqlite apps-sqlite in-process-postgresql core-sqlite dashboard-sqlite engine-sqlite || code=1
  run 1 stack-sqlite stack-postgresql engine-postgresql || code=1
  scripts/test-engines.sh "${arguments[@]}" || code=1
  exit "$code"
fi
