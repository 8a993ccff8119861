#!/usr/bin/env bash
# Build clients/typescript into its dist/ with the packages of its lock file, which scripts/bootstrap.sh has installed in .venv/typescript.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
ln -sfn "$PWD/.venv/typescript/node_modules" clients/typescript/node_modules
cd clients/typescript
rm -rf dist
npm run --silent build
