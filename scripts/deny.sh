#!/usr/bin/env bash
# Licences, sources and duplicates of dependencies; known vulnerabilities where their database can be fetched. Run by
# `make deny`. The database comes from the internet: where there is none, this says NOT RUN and does not fail.
set -euo pipefail
cd "$(dirname "$0")/../backend"
cargo fetch --locked --quiet
cargo deny --offline --config ../deny.toml check bans licenses sources
if timeout 60 cargo deny --config ../deny.toml fetch db; then
    cargo deny --offline --config ../deny.toml check advisories
else
    echo "NOT RUN: advisories. Their database cannot be fetched from here; run this where it can."
fi
