#!/usr/bin/env bash
# Everything that CI checks besides the tests. The types take about as long as all the rest, and are checked beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" BOILERHOUSE_DATA_DIR
BOILERHOUSE_DATA_DIR=$(mktemp -d) log=$(mktemp)
uv=$(command -v uv || echo .uv/bin/uv)
mypy >"$log" 2>&1 &
types=$!
trap 'kill "$types" 2>/dev/null || true; rm -rf "$BOILERHOUSE_DATA_DIR" "$log"' EXIT
rest() (
  set -ex
  "$uv" lock --check
  ruff check .
  scripts/format.sh --check
  scripts/python-client.sh --check
  lint-imports --no-logo
  python manage.py makemigrations --check --dry-run
  python manage.py check --deploy --fail-level WARNING
  python manage.py spectacular --validate --fail-on-warn --format openapi-json --file "$BOILERHOUSE_DATA_DIR/openapi.json"
  diff -q docs/openapi.json "$BOILERHOUSE_DATA_DIR/openapi.json"
  cd static/vendor
  sha512sum --quiet -c SHA512SUMS
)
set +e # within `rest || …` its own -e would have no effect
rest
code=$?
wait "$types" || code=1
echo "+ mypy"
cat "$log"
exit "$code"
