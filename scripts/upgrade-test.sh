#!/usr/bin/env bash
# Proves that the previous release runs on the schema of this one. Run by `make upgrade-test`:
# upgrade-test.sh PATH/TO/PREVIOUS/tbg PATH/TO/tbg [RESULT-FILE]
# The order of an upgrade, under load: the schema first, then replica by replica. Nothing may fail, be lost or count twice.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/backup-lib.sh"
[ $# -ge 2 ] && [ -x "$1" ] && [ -x "$2" ] || die "usage: $0 PREVIOUS NEW [RESULT-FILE]" "make upgrade-test builds both"
previous=$(realpath "$1") new=$(realpath "$2")
results=${3:-$here/../backend/results/upgrade.txt}
pg_bin '' pg_dump pg_basebackup initdb pg_ctl psql pg_restore
command -v redis-server redis-cli curl >/dev/null || die "Redis or curl is missing" "scripts/setup.sh"
source "$here/backup-test-servers.sh"

table=() failed=0
# check NAME EXPECTED OBSERVED
check() {
    local verdict=ok
    [ "$2" = "$3" ] || { verdict=FAILED; failed=1; }
    table+=("$(printf '%-66s  %-20s  %-20s  %s' "$1" "$2" "$3" "$verdict")")
    say "${table[-1]}"
}

# --- servers, with the schema of the new release ------------------------------------------------------------------
port=$(free_port) redis_port=$(free_port)
cluster play "$port" ''
mkdir "$dir/redis"
printf '%s\n' "port $redis_port" 'bind 127.0.0.1' "dir $dir/redis" 'appendonly yes' >"$dir/redis.conf"
start_redis
export TBG_ENVIRONMENT=test TBG_LOG_FILTER=warn TBG_REDIS_URL=redis://127.0.0.1:$redis_port/0 TBG_BTC_NETWORK=signet
TBG_DATABASE_URL=$(url postgres "$port")
export TBG_DATABASE_URL TBG_EVENT_SOCKET_PATH=$dir/events.sock TBG_SPOOL_DIR=$dir/spool
export TBG_JWT_PRIVATE_KEY_FILE=$dir/key.pem TBG_LOTTERY_SALT_KEY_FILE=$dir/salt TBG_SHUTDOWN_DRAIN_SECONDS=10
(umask 077 && "$new" keys new >"$dir/key.pem" && head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"$dir/salt")
"$new" migrate >>"$dir/log"
migrations=$(sql postgres "$port" <<<'SELECT max(version) FROM _sqlx_migrations')
say "the schema is that of the new release: migration $migrations"

# start BINARY ROLES: its process and address.
start() {
    address=127.0.0.1:$(free_port)
    TBG_HTTP_LISTEN=$address "$1" serve --role "$2" >>"$dir/log" 2>&1 &
    started=$!
    disown
    processes+=("$started")
    local n
    for ((n = 0; n < 200; n++)); do
        [ "$(status_of "$address" /health)" != 200 ] || return 0
        sleep 0.1
    done
    die "$1 does not become healthy" "see its log above"
}
status_of() { curl -s -o /dev/null -w '%{http_code}' "http://$1$2" || true; }
# Asks the replicas whose addresses are in a file, over and over; counts what is no 200.
probe() {
    local one
    while [ -e "$dir/probing" ]; do
        for one in $(cat "$dir/replicas"); do
            echo "$(status_of "$one" /health)" >>"$dir/probes"
        done
        sleep 0.02
    done
}
applied() { sql postgres "$port" <<<'SELECT coalesce(sum(total_shares), 0) FROM user_daily_stats'; }
# pour NUMBER SEED: so many seconds of shares, at the speed of life, into the socket.
pour() {
    "$new" simulate --seed "$2" --miners 200 --share-seconds 2 --duration "$1" --register \
        --to "unix:$dir/events.sock" >>"$dir/log" 2>&1
}

# --- the previous release on the new schema ----------------------------------------------------------------------
start "$previous" all
old=$started old_address=$address
check "the previous release starts on the new schema" 200 "$(status_of "$old_address" /health)"
echo "$old_address" >"$dir/replicas"
touch "$dir/probing"
probe & prober=$!
# Partitions are made a moment after the start.
sleep 2
pour 6 1
sleep 2
first=$(applied)
check "it applies shares" yes "$([ "$first" -gt 300 ] && echo yes || echo "$first")"

# --- both, then the new one alone -----------------------------------------------------------------------------
start "$new" all
new_address=$address
echo "$old_address $new_address" >"$dir/replicas"
pour 8 2 & pouring=$!
sleep 3
echo "$new_address" >"$dir/replicas"
sleep 0.3
kill "$old"
for ((n = 0; n < 300; n++)); do kill -0 "$old" 2>/dev/null || break; sleep 0.05; done
check "the previous release ends when it is told to" gone "$(kill -0 "$old" 2>/dev/null && echo there || echo gone)"
wait "$pouring"
sleep 3
rm "$dir/probing"
wait "$prober"
check "the new one has taken over the writing" yes "$([ "$(applied)" -gt "$((first + 300))" ] && echo yes || applied)"
check "answers that are no 200, of $(wc -l <"$dir/probes")" 0 "$(grep -cv '^200$' "$dir/probes" || true)"
doubled=$(sql postgres "$port" <<<'SELECT count(*) - count(DISTINCT event_key) FROM ingest_ledger')
check "events that were applied twice" 0 "$doubled"
check "rows of days that differ from the shares" 0 "$(sql postgres "$port" <<'SQL'
SELECT count(*) FROM (SELECT u.id AS user_id, count(*) AS shares FROM shares JOIN users u USING (btc_address) GROUP BY u.id) s
FULL JOIN (SELECT user_id, sum(total_shares) AS shares FROM user_daily_stats GROUP BY user_id) d USING (user_id)
WHERE s.shares IS DISTINCT FROM d.shares
SQL
)"
check "the new one says that nothing has to be rebuilt" 0 \
    "$("$new" rebuild --domain gamification >>"$dir/log" 2>&1; echo $?)"
{
    echo "Upgrade test: $("$previous" version) -> $("$new" version), schema at migration $migrations"
    printf '%s\n' "${table[@]}"
} | tee "$(mkdir -p "$(dirname "$results")" && echo "$results")"
[ "$failed" -eq 0 ]
