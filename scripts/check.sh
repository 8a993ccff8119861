#!/usr/bin/env bash
# Everything that CI checks besides the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" BOILERHOUSE_DATA_DIR
BOILERHOUSE_DATA_DIR=$(mktemp -d); trap 'rm -rf "$BOILERHOUSE_DATA_DIR"' EXIT
uv=$(command -v uv || echo .uv/bin/uv)
set -x
"$uv" lock --check
ruff check .
scripts/format.sh --check
mypy
lint-imports --no-logo
python manage.py makemigrations --check --dry-run
python manage.py check --deploy --fail-level WARNING
python manage.py spectacular --validate --fail-on-warn --format openapi-json --file "$BOILERHOUSE_DATA_DIR/openapi.json"
diff -q docs/openapi.json "$BOILERHOUSE_DATA_DIR/openapi.json"
(cd static/vendor && sha512sum --quiet -c SHA512SUMS)
