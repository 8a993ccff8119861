#!/usr/bin/env bash
# The JavaScript and the font of others that pages use: fetched by name and version, compared with the hash here, committed.
# usage: scripts/vendor.sh [--check]   (needs npm and uvx; nothing else of Boilerhouse needs npm)
set -euo pipefail
cd "$(dirname "$0")/.."
files=( # PACKAGE@VERSION FILE...
  "idiomorph@0.7.4 dist/idiomorph-ext.min.js LICENSE"
  "uplot@1.6.32 dist/uPlot.iife.min.js dist/uPlot.min.css LICENSE"
  "@xterm/xterm@6.0.0 lib/xterm.js css/xterm.css LICENSE"
  "@xterm/addon-fit@0.11.0 lib/addon-fit.js LICENSE"
  "@fontsource-variable/inter@5.3.0 files/inter-latin-wght-normal.woff2 LICENSE"
)
as_served() { # without the reference to a map that is not there; of a font, the part that pages use
  case $1 in *.woff2) scripts/vendor/subset_font.sh "$1" "$work/part.woff2" && cat "$work/part.woff2" ;; *) sed '/^\/\/# sourceMappingURL=/d' "$1" ;; esac
}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for entry in "${files[@]}"; do
  read -r -a words <<<"$entry"
  name=${words[0]}
  (cd "$work" && npm pack --silent "$name" >/dev/null && tar -xzf ./*.tgz && rm ./*.tgz)
  flat=${name#@}; flat=${flat//\//-}; target="static/vendor/${flat/@/-}"
  for wanted in "${words[@]:1}"; do
    served="$target/$(basename "${wanted/wght-normal/400-600}")"
    if [ "${1:-}" = --check ]; then
      cmp <(as_served "$work/package/$wanted") "$served"
    else
      mkdir -p "$target"; as_served "$work/package/$wanted" >"$served"
    fi
  done
  rm -rf "$work/package"
done
# Icons: one sprite of our own shapes and some of Lucide's, part of every page.
(cd "$work" && npm pack --silent lucide-static@1.62.0 >/dev/null && tar -xzf ./*.tgz && rm ./*.tgz)
python3 scripts/vendor/sprite.py "$work/package" "$work/sprite.html"
if [ "${1:-}" = --check ]; then cmp "$work/sprite.html" templates/components/sprite.html
else cp "$work/sprite.html" templates/components/sprite.html; mkdir -p static/vendor/lucide-static-1.62.0; cp "$work/package/LICENSE" static/vendor/lucide-static-1.62.0/; fi
rm -rf "$work/package"

# CodeMirror comes as modules; its lock file names each by hash, and esbuild makes one file of them.
cp -r scripts/vendor/json-editor "$work/"
(cd "$work/json-editor" && npm ci --silent --no-audit --no-fund >/dev/null && npx --no-install esbuild editor.js --bundle --minify --format=iife --target=es2022 --legal-comments=none --log-level=error --outfile=json-editor.min.js)
target=static/vendor/json-editor
if [ "${1:-}" = --check ]; then cmp "$work/json-editor/json-editor.min.js" "$target/json-editor.min.js"
else mkdir -p "$target"; cp "$work/json-editor/json-editor.min.js" "$target/"; cp "$work/json-editor/node_modules/@codemirror/view/LICENSE" "$target/LICENSE"; fi
(cd static/vendor && if [ "${1:-}" = --check ]; then sha512sum --quiet -c SHA512SUMS; else find . -type f ! -name SHA512SUMS | sort | xargs sha512sum >SHA512SUMS; fi)
