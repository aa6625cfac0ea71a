#!/usr/bin/env bash
# Prints the versions of the stack's configs, for the shell that deploys. A swarm never changes a config, and a
# service restarts when one of its configs has another name. So each is named after what is in its file: what
# has changed restarts, and nothing else. Without these versions nothing can be deployed.
# Usage: eval "$(backend/deploy/config-versions.sh)"      after each change of a file, before each deployment
set -euo pipefail
cd "$(dirname "$0")/.."
sed -nE 's/^  [a-z_]+: \{name: "tbg_[a-z_]+_\$\{([A-Z_]+):\?[^}]*\}", file: ([^ }]+)\}$/\1 \2/p' docker-compose.prod.yml |
    while read -r variable file; do
        sum=$(sha256sum <"$file")
        echo "export $variable=${sum:0:12}"
    done
