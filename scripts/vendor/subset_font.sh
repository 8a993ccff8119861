#!/usr/bin/env bash
# The part of a font that pages use: Latin of western Europe, arrows and typographic signs; regular to semibold.
# usage: scripts/vendor/subset_font.sh FROM.woff2 TO.woff2   (needs uvx)
set -euo pipefail
export SOURCE_DATE_EPOCH=0 # the same bytes each time
whole=$(mktemp --suffix=.ttf); trap 'rm -f "$whole"' EXIT
tools=(uvx --quiet --from fonttools==4.68.0 --with brotli==1.2.1)
"${tools[@]}" fonttools varLib.instancer --quiet --output "$whole" "$1" wght=400:600
"${tools[@]}" pyftsubset "$whole" --flavor=woff2 --no-hinting --layout-features=kern,tnum,calt,ccmp,locl --output-file="$2" \
  --unicodes=U+0020-007E,U+00A0-00FF,U+0131,U+0152-0153,U+2010-2015,U+2018-201E,U+2020-2022,U+2026,U+202F,U+2030,U+2039-203A,U+20AC,U+2122,U+2190-2193,U+2212
