#!/usr/bin/env bash
# The tests of `make quick` on each newer Python that this machine has, in an environment of its own from the same lock
# file. Says which ones it lacks, and fails if it has none of them, or not one that PYTHONS names. Arguments go to pytest.
# usage: [PYTHONS="3.12 3.13"] scripts/test-pythons.sh [PYTEST'S ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .uv/bin/uv)
find_python() { # print the interpreter of this version: the system's, pyenv's or uv's
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python "$("$uv" python find --managed-python --no-project "$1" 2>/dev/null)"; do
    # A shim of pyenv is there for each version that it has, and runs only the chosen one.
    if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
      return
    fi
  done
  return 1
}
missing=() code=0 count=0
for version in ${PYTHONS:-3.12 3.13}; do
  if ! interpreter=$(find_python "$version"); then
    missing+=("$version")
    continue
  fi
  count=$((count + 1))
  environment=.venv-$version
  echo "== Python $version ($interpreter)"
  UV_PROJECT_ENVIRONMENT=$environment "$uv" sync --frozen -q --python "$interpreter" --all-extras
  QUICK_PYTHON=$environment/bin/python scripts/quick.sh --tests-only "$@" || { echo "== Python $version FAILED"; code=1; }
done
if [ ${#missing[@]} -gt 0 ]; then echo "== not on this machine, and not tried: Python ${missing[*]}"; fi
if [ "$count" = 0 ] || { [ -n "${PYTHONS:-}" ] && [ ${#missing[@]} -gt 0 ]; }; then code=1; fi
exit "$code"
