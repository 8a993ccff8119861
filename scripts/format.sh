#!/usr/bin/env bash
# Lay out Python, templates, style sheets and scripts; with --check write nothing, but fail where a file is laid out otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
css=(css-beautify --indent-size=2 --end-with-newline)
js=(js-beautify --indent-size=2 --end-with-newline --brace-style=collapse,preserve-inline
  --operator-position=preserve-newline --keep-array-indentation)
set -x
if [ "${1:-}" = --check ]; then
  ruff format --check .
  djangofmt --check templates
  for sheet in static/*.css; do "${css[@]}" "$sheet" | diff -u "$sheet" -; done
  for script in static/*.js; do "${js[@]}" "$script" | diff -u "$script" -; done
else
  ruff format .
  djangofmt templates
  "${css[@]}" --replace static/*.css
  for script in static/*.js; do "${js[@]}" --replace --quiet "$script"; done
fi
