#!/usr/bin/env bash
# Starts a server and looks at its API page with a browser. Run by `make docs-check`, inside with-servers.
set -euo pipefail
tbg=$1
export TBG_DATABASE_URL=$DATABASE_URL TBG_REDIS_URL=$TBG_TEST_REDIS_URL TBG_LOG_FILTER=error
export TBG_HTTP_LISTEN=127.0.0.1:18433 TBG_PUBLIC_BASE_URL=http://127.0.0.1:18433
"$tbg" migrate >/dev/null
"$tbg" serve --role api &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
until "$tbg" healthcheck >/dev/null 2>&1; do
    # A server that has ended will never answer.
    kill -0 "$server" 2>/dev/null || { echo "docs-check: the server ended before it answered" >&2; exit 1; }
    sleep 0.05
done
"$(dirname "$0")/docs-browser-check.sh" http://127.0.0.1:18433
