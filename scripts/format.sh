#!/usr/bin/env bash
# Lay out Python, templates and style sheets; with --check write nothing, but fail where a file is laid out otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
css=(css-beautify --indent-size=2 --end-with-newline)
set -x
if [ "${1:-}" = --check ]; then
  ruff format --check .
  djangofmt --check templates
  for sheet in static/*.css; do "${css[@]}" "$sheet" | diff -u "$sheet" -; done
else
  ruff format .
  djangofmt templates
  "${css[@]}" --replace static/*.css
fi
