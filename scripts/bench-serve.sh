#!/usr/bin/env bash
# Start-up time and memory of `tbg serve --role all`. Run by `make bench-serve`, inside with-servers.
# Prints: five times from start to the first 200 of /health, then the highest resident memory under a
# paced load (2,000 miners, about 4,000 events/s) and when flooded with 200,000 events as fast as the
# socket takes them.
set -euo pipefail
tbg=$1
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT

export TBG_DATABASE_URL=$DATABASE_URL TBG_REDIS_URL=$TBG_TEST_REDIS_URL TBG_LOG_FILTER=error
# Signet has a low minimum difficulty: the simulated miners reach the wanted rate at once.
export TBG_BTC_NETWORK=signet TBG_HTTP_LISTEN=127.0.0.1:18431 TBG_EVENT_SOCKET_PATH=$dir/events.sock TBG_SPOOL_DIR=$dir/spool
"$tbg" migrate

start() {
    local began=$(date +%s%N)
    "$tbg" serve --role all &
    server=$!
    until "$tbg" healthcheck >/dev/null; do
        # A server that has ended will never answer.
        kill -0 "$server" 2>/dev/null || { echo "bench-serve: the server ended before it answered" >&2; exit 1; }
        sleep 0.002
    done
    echo "start to first /health 200: $((($(date +%s%N) - began) / 1000000)) ms"
}
stop() { kill -TERM "$server"; wait "$server"; server=; }
peak() { echo "$1: $(awk '/VmHWM/ { printf "%.0f MB", $2 / 1024 }' "/proc/$server/status") at most"; }

for _ in 1 2 3 4 5; do start; stop; done
start
"$tbg" simulate --to "unix:$dir/events.sock" --miners 2000 --share-seconds 0.4 --duration 20 --register
peak "paced load"
stop
start
"$tbg" simulate --to "unix:$dir/events.sock" --miners 2000 --seed 2 --events 200000 --fast --register \
    --start "$(date -u -d '-10 minutes' +%FT%TZ)"
sleep 10
peak "flooded"
stop
