#!/usr/bin/env bash
# The private servers of backup-test.sh, which sources this: PostgreSQL clusters and Redis on free ports, under
# a temporary folder. All that was started here is stopped and removed at the end, and nothing else.

dir=$(mktemp -d)
clusters=() processes=()
stop_all() {
    local code=$? it
    [ "$code" -eq 0 ] || tail -n 40 "$dir/log" >&2 || true
    for it in "${processes[@]}"; do stop "$it"; done
    for it in "${clusters[@]}"; do as_server "$bin/pg_ctl" -D "$it" -m immediate stop >/dev/null 2>&1 || true; done
    rm -rf "$dir"
}
# stop PID: kindly, and after ten seconds for good.
stop() {
    local n
    kill "$1" 2>/dev/null || return 0
    for ((n = 0; n < 200; n++)); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.05; done
    kill -9 "$1" 2>/dev/null || true
}
trap stop_all EXIT
trap 'exit 130' INT TERM

# PostgreSQL refuses to run as root. Its user cannot look into root's folders: it gets copies and a folder.
server_user=
[ "$(id -u)" -ne 0 ] || server_user=$(id -un postgres 2>/dev/null || echo nobody)
as_server() {
    [ -n "$server_user" ] || { "$@"; return; }
    HOME=$pg TMPDIR=$pg setpriv --reuid="$server_user" --regid="$(id -g "$server_user")" --clear-groups -- "$@"
}
give() { [ -z "$server_user" ] || chown -R "$server_user" "$@"; }
pg=$dir/pg
chmod 711 "$dir"
mkdir -p "$pg/scripts" "$pg/backups"
cp "$here/backup.sh" "$here/backup-lib.sh" "$here/restore.sh" "$pg/scripts/"
chmod -R go+rX "$pg"
give "$pg"
cd "$pg"
backup() { as_server "$pg/scripts/backup.sh" "$@"; }
restore() { as_server "$pg/scripts/restore.sh" "$@"; }
backups=$pg/backups

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}
# Passwords with the characters that a URL writes differently.
password="p@ss/$RANDOM:$RANDOM%&?#"
escaped=$(sed 's/%/%25/g; s/@/%40/g; s|/|%2F|g; s/:/%3A/g; s/&/%26/g; s/?/%3F/g; s/#/%23/g' <<<"$password")
url() { echo "postgres://$1:$escaped@127.0.0.1:$2/tbg"; }
# url_file ROLE PORT: the path of a file with the URL, readable by its user alone.
url_file() {
    local file=$pg/url-$1-$2
    (umask 077 && url "$1" "$2" >"$file")
    give "$file"
    echo "$file"
}
# sql ROLE PORT [DATABASE]: statements on standard input. The scripts under test find their connection by themselves.
sql() {
    PGOPTIONS='-c client_min_messages=warning' PGTZ=UTC PGPASSWORD=$password \
        "$bin/psql" -XAtqw -v ON_ERROR_STOP=1 -h 127.0.0.1 -U "$1" -p "$2" -d "${3:-tbg}"
}
# cluster NAME PORT SETTINGS [OPTIONS]: a new one, with an empty database tbg. OPTIONS are those of the server's
# command line, which are in no file of the data folder.
cluster() {
    local data=$pg/$1
    (umask 077 && echo "$password" >"$pg/password")
    give "$pg/password"
    as_server "$bin/initdb" -D "$data" -U postgres -A scram-sha-256 --pwfile="$pg/password" \
        -E UTF8 --locale=C.UTF-8 -N >>"$dir/log"
    as_server tee -a "$data/postgresql.conf" >/dev/null <<CONF
port = $2
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
shared_buffers = 64MB
$3
CONF
    clusters+=("$data")
    as_server "$bin/pg_ctl" -D "$data" -l "$pg/$1.log" -o "${4:-}" -w start >>"$dir/log"
    sql postgres "$2" postgres <<<"CREATE DATABASE tbg TEMPLATE template0 ENCODING 'UTF8'"
}
start_redis() {
    redis-server "$dir/redis.conf" >>"$dir/log" 2>&1 &
    redis=$!
    disown
    processes+=("$redis")
    until [ "$(redis-cli -p "$redis_port" ping 2>/dev/null)" = PONG ]; do sleep 0.05; done
}
