#!/usr/bin/env bash
# Proves that the backups bring everything back. Run by `make backup-test`: backup-test.sh PATH/TO/tbg [RESULT-FILE]
# Starts its own servers on free ports, plays a game, backs it up, restores it in three ways and compares. Prints a
# table, writes it to backend/results/backup.txt as well, and fails when one line of it does.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/backup-lib.sh"
[ $# -ge 1 ] && [ -x "$1" ] || die "usage: $0 PATH/TO/tbg [RESULT-FILE]" "make backup-test builds it"
tbg=$(realpath "$1")
results=${2:-$here/../backend/results/backup.txt}
"$here/setup.sh" backup
pg_bin '' pg_dump pg_basebackup initdb pg_ctl psql pg_restore

source "$here/backup-test-servers.sh"
# restore.sh with the tools of a small image, such as that of the database in production.
mkdir "$pg/small"
busybox --install -s "$pg/small"
restore_in_small_image() { as_server env PATH="$pg/small:$PATH" "$pg/scripts/restore.sh" "$@"; }

# --- the table ----------------------------------------------------------------------------------------------
table=() failed=0 clock=0
now() { date +%s.%N; }
begin() { clock=$(now); }
took() { awk -v a="${1:-$clock}" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
# check NAME EXPECTED OBSERVED [SECONDS]
check() {
    local verdict=ok seconds=${4:-$(took)}
    [ "$2" = "$3" ] || { verdict=FAILED; failed=1; }
    table+=("$(printf '%-62s  %-24s  %-24s  %7s  %s' "$1" "$2" "$3" "$seconds" "$verdict")")
    say "${table[-1]}"
    begin
}
status() { local code=0; "$@" >>"$dir/log" 2>&1 || code=$?; echo "$code"; }
# refused WORDS COMMAND…: it fails, and for the reason that has these words.
refused() {
    local words=$1 output code=0
    shift
    output=$("$@" 2>&1) || code=$?
    printf '%s\n' "$output" >>"$dir/log"
    [ "$code" -ne 0 ] || { echo accepted; return; }
    grep -q "$words" <<<"$output" && echo refused || echo failed
}

# --- a game -------------------------------------------------------------------------------------------------
version=$("$bin/postgres" -V | awk '{ print $3 }')
say "starting PostgreSQL $version and Redis, in $dir"
began=$(now)
source_port=$(free_port)
# As in production, where the configuration is no part of a base backup.
cluster source "$source_port" "archive_mode = on
archive_timeout = 300
archive_command = '$pg/scripts/backup.sh wal-archive %p %f $backups'" '-c max_connections=200 -c max_worker_processes=12'
redis_port=$(free_port)
mkdir "$dir/redis"
{
    # The rules of the deployment, where they are at hand.
    grep -sE '^(save|append|maxmemory|zset-max-listpack-entries)' "$here/../backend/redis.conf" ||
        printf '%s\n' 'save 300 1' 'save 60 1000' 'appendonly yes' 'appendfsync everysec'
    printf '%s\n' "port $redis_port" 'bind 127.0.0.1' "dir $dir/redis" 'protected-mode yes'
} >"$dir/redis.conf"
start_redis

# As in a deployment: the owner migrates, the program has fewer rights.
sql postgres "$source_port" <<SQL
CREATE ROLE tbg_owner LOGIN PASSWORD '$password';
CREATE ROLE tbg_app LOGIN PASSWORD '$password' IN ROLE pg_read_all_stats;
CREATE ROLE tbg_backup LOGIN REPLICATION PASSWORD '$password' IN ROLE pg_read_all_data;
ALTER DATABASE tbg OWNER TO tbg_owner;
SQL
export TBG_ENVIRONMENT=test TBG_LOG_FILTER=error TBG_REDIS_URL=redis://127.0.0.1:$redis_port/0 TBG_BTC_NETWORK=signet
export TBG_EVENT_SOCKET_PATH=$dir/events.sock TBG_SPOOL_DIR=$dir/spool TBG_JWT_PRIVATE_KEY_FILE=$dir/key.pem
TBG_HTTP_LISTEN=127.0.0.1:$(free_port)
export TBG_HTTP_LISTEN
(umask 077 && "$tbg" keys new >"$dir/key.pem")
# program ROLE PORT ARGUMENT…
program() { TBG_DATABASE_URL=$(url "$1" "$2") "$tbg" "${@:3}" >>"$dir/log" 2>&1; }
program tbg_owner "$source_port" migrate
program tbg_app "$source_port" simulate --seed 7 --miners 200 --events 6000 --share-seconds 120 --register \
    --start "$(date -u -d '-2 hours' +%FT%TZ)" --to "$dir/events.ndjson"
echo 'not an event' >>"$dir/events.ndjson"
program tbg_app "$source_port" replay "$dir/events.ndjson"
# Older than a minute, so that the program seals them.
sql postgres "$source_port" <<'SQL'
INSERT INTO audit_log (timestamp, user_id, action, resource_type, resource_id, ip_address, user_agent, details, status)
SELECT now() - INTERVAL '20 minutes' + n * INTERVAL '1 second', nullif(n % 50, 0)::TEXT, 'auth.login', 'user', n::TEXT,
       '192.0.2.' || n % 200, 'test ☂ é', jsonb_build_object('n', n, 'ratio', n / 7.0),
       (ARRAY['success', 'failure', 'denied'])[1 + n % 3]
FROM generate_series(1, 500) AS n;
SQL
TBG_DATABASE_URL=$(url tbg_app "$source_port") "$tbg" serve --role jobs >>"$dir/log" 2>&1 &
jobs_pid=$!
processes+=("$jobs_pid")
say "the game is played: $(took "$began") s"

# --- d. Redis, while the program comes round to sealing the audit log ---------------------------------------
begin
for n in {1..200}; do echo "SET backup-test:$n $n"; done | redis-cli -p "$redis_port" >/dev/null
sleep 1.1
kill -9 "$redis"
while kill -0 "$redis" 2>/dev/null; do sleep 0.02; done
start_redis
check "redis: keys there after 1.1 s, kill -9, start" 200 \
    "$(redis-cli -p "$redis_port" --scan --pattern 'backup-test:*' | wc -l)"

# --- b. point in time ---------------------------------------------------------------------------------------
source_file=$(url_file tbg_backup "$source_port")
# Puts a row into the WAL and measures how long the archive takes to have it.
mark() {
    local wal
    sql postgres "$source_port" <<<"INSERT INTO users (btc_address) VALUES ('$1')"
    wal=$(sql postgres "$source_port" <<<'SELECT pg_walfile_name(pg_current_wal_lsn())')
    marked_at=$(now)
    moment=$(sql postgres "$source_port" <<<"SELECT clock_timestamp()")
    sql postgres "$source_port" <<<'SELECT pg_switch_wal()' >/dev/null
    until [ -e "$backups/wal/$wal" ]; do
        awk -v s="$(took "$marked_at")" 'BEGIN { exit s > 20 }' ||
            die "WAL does not reach the archive: $(tail -n 3 "$pg/source.log")"
        sleep 0.02
    done
    delay=$(took "$marked_at")
}
check "base backup, verified file by file" 0 "$(status backup base --url-file "$source_file" --to "$backups")"
first_base=$(echo "$backups"/base-*)
mark pitr-a
target=$moment archive_delay=$delay
sleep 0.2
mark pitr-b
begin
pitr_port=$(free_port)
clusters+=("$pg/pitr")
to_target=(pitr --base "$first_base" --wal "$backups/wal" --to "$target" --data-dir "$pg/pitr")
code=$(status restore_in_small_image "${to_target[@]}" --start "$pitr_port")
pitr_seconds=$(took)
has_row() { sql postgres "$pitr_port" <<<"SELECT count(*) FROM users WHERE btc_address = '$1'"; }
check "point in time, by the tools of a small image: it recovers" 0 "$code" "$pitr_seconds"
limits="SELECT concat_ws(' ', current_setting('max_connections'), current_setting('max_worker_processes'))"
check "point in time: the limits are those of the source" "200 12" "$(sql postgres "$pitr_port" <<<"$limits")"
check "point in time: the row before the moment is there" 1 "$(has_row pitr-a)"
check "point in time: the row after the moment is not" 0 "$(has_row pitr-b)"
check "point in time: it takes writes" 1 \
    "$(sql postgres "$pitr_port" <<<"INSERT INTO users (btc_address) VALUES ('pitr-c') RETURNING 1")"
check "point in time: a folder that is not empty is refused" refused \
    "$(refused "is not empty" restore "${to_target[@]}")"
no_time=(pitr --base "$first_base" --wal "$backups/wal" --to '2026-02-30 00:00:00' --data-dir "$pg/none")
check "point in time: the 30th of February is refused" "refused refused" \
    "$(refused "is no time" restore "${no_time[@]}") $(refused "is no time" restore_in_small_image "${no_time[@]}")"
as_server "$bin/pg_ctl" -D "$pg/pitr" -m immediate stop >>"$dir/log"
begin
clusters+=("$pg/latest")
to_latest=(pitr --base "$first_base" --wal "$backups/wal" --to latest --data-dir "$pg/latest")
code=$(status restore "${to_latest[@]}" --start "$pitr_port")
check "all that was archived: the cluster recovers" 0 "$code"
check "all that was archived: both rows are there" "1 1" "$(has_row pitr-a) $(has_row pitr-b)"
as_server "$bin/pg_ctl" -D "$pg/latest" -m immediate stop >>"$dir/log"
wal=$(basename "$(find "$backups/wal" -name '0*' -size +1M | sort | tail -n 1)")
check "WAL: the same piece again is a success" 0 "$(status backup wal-archive "$backups/wal/$wal" "$wal" "$backups")"
last=$(find "$backups/wal" -maxdepth 1 -regextype posix-extended -regex '.*/[0-9A-F]{24}' -printf '%f\n' | sort | tail -n 2)
for fault in damaged missing lost; do
    as_server cp -a "$backups/wal" "$pg/wal-$fault"
done
as_server dd if=/dev/urandom of="$pg/wal-damaged/${last#*$'\n'}" bs=1 seek=99 count=9 conv=notrunc status=none
as_server rm "$pg/wal-missing/${last%$'\n'*}"
as_server sed -i "/${last%$'\n'*}/d" "$pg/wal-missing/SHA256SUMS"
as_server rm "$pg/wal-lost/${last#*$'\n'}"
to_damaged=(pitr --base "$first_base" --to latest --data-dir "$pg/damaged" --wal)
check "all that was archived: a damaged piece, one missing and the last one lost are refused" "refused refused refused" \
    "$(refused "is damaged: ${last#*$'\n'}" restore "${to_damaged[@]}" "$pg/wal-damaged") $(refused "a piece is missing before ${last#*$'\n'}" restore "${to_damaged[@]}" "$pg/wal-missing") $(refused "is damaged: ${last#*$'\n'}" restore "${to_damaged[@]}" "$pg/wal-lost")"
check "WAL: another piece of the same name is refused" refused \
    "$(refused "other content" backup wal-archive "$pg/scripts/backup.sh" "$wal" "$backups")"
# A folder of its own, in which pieces are any files.
spare=$pg/spare a=0000000100000000000000A1 b=0000000100000000000000A2
as_server mkdir "$spare"
codes=$(status backup wal-archive "$pg/scripts/backup.sh" $a "$spare")
as_server mv "$spare/wal/$a" "$spare/away"
codes+=" $(status backup wal-archive "$pg/scripts/backup-lib.sh" $b "$spare")"
check "WAL: the checksum of a piece that is lost stays" "0 0 1" "$codes $(grep -c $a "$spare/wal/SHA256SUMS")"
codes=$(status backup wal-archive "$pg/scripts/backup-lib.sh" $a "$spare")
check "WAL: another piece in place of one moved away has its own" "0 0" "$codes $(status backup verify "$spare")"
as_server chmod 0 "$spare/wal/SHA256SUMS"
check "WAL: a list of checksums that cannot be read is no empty one" refused \
    "$(refused "cannot be read" backup wal-archive "$pg/scripts/backup.sh" 0000000100000000000000A3 "$spare")"

# --- a. dump and restore ------------------------------------------------------------------------------------
say "waiting for a seal of the audit log (once a minute)"
begin
for ((n = 0; n < 700; n++)); do
    seals=$(sql postgres "$source_port" <<<'SELECT count(*) FROM audit_seals')
    [ "$seals" -eq 0 ] || break
    sleep 0.1
done
check "the program sealed the audit log" 1 "$((seals > 0))"
# From here on the source rests, so that it can be compared.
stop "$jobs_pid"

touch "$backups/tbg-20200101T000000Z.dump" "$backups/tbg-20200101T000000Z.json"
give "$backups"/tbg-2020*
check "dump, with its manifest" 0 "$(status backup dump --url-file "$source_file" --to "$backups")"
check "dump: the one of 2020 is removed" 1 "$(find "$backups" -name 'tbg-*.dump' | wc -l)"
dump=$(echo "$backups"/tbg-*.dump)
check "all checksums agree, no WAL is missing" 0 "$(status backup verify "$backups")"

target_port=$(free_port)
cluster target "$target_port" ''
target_file=$(url_file postgres "$target_port")
rto_began=$(now)
begin
check "restore into a fresh cluster" 0 "$(status restore dump "$dump" --target-url-file "$target_file")"
for role in tbg_owner tbg_app; do
    sql postgres "$target_port" <<<"ALTER ROLE $role LOGIN PASSWORD '$password'"
done
TBG_DATABASE_URL=$(url tbg_app "$target_port") "$tbg" serve --role api >>"$dir/log" 2>&1 &
api_pid=$!
processes+=("$api_pid")
health() {
    exec 3<>"/dev/tcp/${TBG_HTTP_LISTEN/://}" &&
        printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3 &&
        awk '{ print $2; exit }' <&3
}
begin
code=
for ((n = 0; n < 300; n++)); do
    code=$( (health) 2>/dev/null || true)
    [ "$code" != 200 ] && kill -0 "$api_pid" 2>/dev/null || break
    sleep 0.05
done
check "the program starts on it: GET /health" 200 "$code"
rto=$(took "$rto_began")
stop "$api_pid"
check "restoring into it again is refused" refused \
    "$(refused "it has .* table" restore dump "$dump" --target-url-file "$target_file")"

# Rows and md5 of every table (partitions with their parents), then the sequences.
contents() {
    sql postgres "$1" <<'SQL'
SELECT string_agg(format($q$
    SELECT %L, count(*), md5(coalesce(string_agg(r::TEXT, E'\n' ORDER BY r::TEXT COLLATE "C"), '')) FROM %I AS r %s $q$,
    relname, relname, CASE relname WHEN 'audit_log' THEN $q$WHERE action <> 'system.restored'$q$ END), ' UNION ALL ')
FROM pg_class WHERE relnamespace = 'public'::REGNAMESPACE AND relkind IN ('r', 'p') AND NOT relispartition
\gexec
SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public';
SQL
}
# Tables, functions, triggers, rights. Newer tools put a random word behind a backslash. PostgreSQL writes the casts
# of `x IN ('a', 'b')` in another way after each restore, with the same meaning.
schema() { PGPASSWORD=$password "$bin/pg_dump" -sw -h 127.0.0.1 -U postgres -p "$1" tbg |
    grep -v '^\\' | sed -E 's/::(character varying|text)(\[\])?//g; /CHECK/s/[()]//g'; }
begin
contents "$source_port" | sort >"$dir/before"
contents "$target_port" | sort >"$dir/after"
tables=$(grep -c '|.*|' "$dir/before")
rows=$(awk -F'|' 'NF == 3 { n += $2 } END { print n }' "$dir/before")
equal() { diff "$@" >>"$dir/log" && echo equal || echo different; }
check "rows and content hashes are equal: $tables tables, $rows rows" equal "$(equal "$dir/before" "$dir/after")"
check "enough to compare: more than 5,000 rows" 1 "$((rows > 5000))"
check "tables, functions, triggers and rights are equal" equal \
    "$(equal <(schema "$source_port") <(schema "$target_port"))"
anchor=$(tr -d '\n ' <"${dump%.dump}.json" |
    sed -E 's/.*"audit_head":\{"hash":"([0-9a-f]+)","seal_no":([0-9]+)\}.*/\2:\1/')
check "tbg audit verify, anchored in the manifest" 0 \
    "$(status program tbg_app "$target_port" audit verify --anchor "$anchor")"
check "the restore is in the audit log" 1 \
    "$(sql postgres "$target_port" <<<"SELECT count(*) FROM audit_log WHERE action = 'system.restored'")"
change() { sql "$1" "$target_port" <<<"UPDATE audit_log SET status = 'denied'"; }
check "UPDATE on audit_log as tbg_app" refused "$(refused "permission denied" change tbg_app)"
check "UPDATE on audit_log as tbg_owner" refused "$(refused append-only change tbg_owner)"
check "UPDATE on audit_log as a superuser" refused "$(refused append-only change postgres)"
program tbg_app "$target_port" doctor || true
check "tbg doctor finds the walls of the audit log" 1 "$(grep -c 'ok *audit log: append-only' "$dir/log" || true)"
check "tbg migrate runs on it as the owner" 0 "$(status program tbg_owner "$target_port" migrate)"

# --- c. one wrong byte --------------------------------------------------------------------------------------
mkdir "$pg/tampered"
cp "$dump" "${dump%.dump}.json" "$backups/SHA256SUMS" "$pg/tampered/"
bad=$pg/tampered/$(basename "$dump")
middle=$(($(stat -c %s "$bad") / 2))
byte=$(od -An -tu1 -j "$middle" -N 1 "$bad" | tr -d ' ')
printf '%b' "$(printf '\\x%02x' $((byte ^ 1)))" | dd of="$bad" bs=1 seek="$middle" conv=notrunc 2>/dev/null
give "$pg/tampered"
sql postgres "$target_port" <<<'CREATE DATABASE empty TEMPLATE template0'
sed -i 's|/tbg$|/empty|' "$target_file"
check "a dump with one wrong bit is refused" refused \
    "$(refused "not as it was written" restore dump "$bad" --target-url-file "$target_file")"
check "verify finds it" refused "$(refused "not all is" backup verify "$pg/tampered")"

# --- housekeeping -------------------------------------------------------------------------------------------
begin
for n in 1 2; do sleep 1; backup base --url-file "$source_file" --to "$backups" >>"$dir/log" 2>&1; done
check "after three base backups, two are kept" 2 "$(find "$backups" -maxdepth 1 -name 'base-*' | wc -l)"
oldest=$(first_wal "$(find "$backups" -maxdepth 1 -name 'base-*' | sort | head -n 1)")
check "and no WAL from before them" "$oldest" \
    "$(find "$backups/wal" -name '0*' -size +1M -printf '%f\n' | sort | head -n 1)"
check "all checksums still agree" 0 "$(status backup verify "$backups")"
check "times of dump, base and wal are written" 3 "$(grep -lE '^[0-9]{10}$' "$backups"/status/*.timestamp | wc -l)"

mkdir -p "$(dirname "$results")"
{
    echo "Backup and restore, $(date -u +%FT%TZ): $("$tbg" --version), PostgreSQL $version," \
        "Redis $(redis-server --version | sed -E 's/.*v=([^ ]+).*/\1/'), $(nproc) CPUs"
    echo
    printf '%-62s  %-24s  %-24s  %7s\n' check expected observed seconds
    printf '%s\n' "${table[@]}"
    echo
    echo "RPO: $(awk -v d="$archive_delay" 'BEGIN { printf "%.2f", 300 + d }') s at most: archive_timeout 300 s +" \
        "$archive_delay s until the archive has the piece (measured)"
    echo "RTO: $rto s from a dump to /health 200 ($rows rows); $pitr_seconds s to a point in time"
    echo "All of it: $(took "$began") s. Result: $([ "$failed" -eq 0 ] && echo PASSED || echo FAILED)"
} | tee "$results"
exit "$failed"
