#!/usr/bin/env bash
# Make the synchronous Python client of the asynchronous one; with --check write nothing, but fail where they differ.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
package=clients/python/src/boilerhouse_client
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r "$package" pyproject.toml "$copy"
made="$copy/boilerhouse_client/_sync"
for source in "$package"/_async/*.py; do
  name=${source##*/}
  case $name in platform.py | __init__.py) continue ;; esac
  {
    echo "# Made of _async/$name by scripts/python-client.sh: change that one."
    sed -E \
      -e 's/\b_async\b/_sync/g' \
      -e 's/\basync (def|with|for) /\1 /g' \
      -e 's/\bawait //g' \
      -e 's/\b__a(enter|exit|iter|next)__\b/__\1__/g' \
      -e 's/\ba(close|read|iter_raw)\b/\1/g' \
      -e 's/\basynccontextmanager\b/contextmanager/g' \
      -e 's/\bAbstractAsyncContextManager\b/AbstractContextManager/g' \
      -e 's/\bAsync([A-Z][A-Za-z]*)/\1/g' \
      "$source"
  } >"$made/$name"
done
ruff check -q --fix --unsafe-fixes --select I,SIM117,UP028 "$made"
ruff format -q "$made"
if [ "${1:-}" = --check ]; then
  diff -ru -x __pycache__ "$package/_sync" "$made" || {
    echo "Run scripts/python-client.sh." >&2
    exit 1
  }
else
  cp "$made"/*.py "$package/_sync/"
fi
