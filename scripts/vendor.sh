#!/usr/bin/env bash
# The JavaScript of others that pages use: fetched by name and version, compared with the hash here, committed.
# usage: scripts/vendor.sh [--check]   (needs npm; nothing else of Boilerhouse does)
set -euo pipefail
cd "$(dirname "$0")/.."
files=(
  "idiomorph@0.7.4 dist/idiomorph-ext.min.js LICENSE"
)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for entry in "${files[@]}"; do
  read -r name wanted license <<<"$entry"
  (cd "$work" && npm pack --silent "$name" >/dev/null && tar -xzf ./*.tgz && rm ./*.tgz)
  target="static/vendor/${name/@/-}"
  if [ "${1:-}" = --check ]; then
    cmp "$work/package/$wanted" "$target/$(basename "$wanted")"
  else
    mkdir -p "$target"; cp "$work/package/$wanted" "$work/package/$license" "$target/"
  fi
  rm -rf "$work/package"
done
(cd static/vendor && if [ "${1:-}" = --check ]; then sha512sum --quiet -c SHA512SUMS; else find . -type f ! -name SHA512SUMS | sort | xargs sha512sum >SHA512SUMS; fi)
