#!/usr/bin/env bash
# Brings a backup of backup.sh back. Never overwrites anything. `--help` says more.
set -euo pipefail
umask 077

usage() {
    cat <<'HELP'
Usage:
  restore.sh dump FILE.dump --target-url-file FILE
      Into an empty database; FILE holds its URL, with a superuser: roles and owners come back too.
      Refuses a database that has any table. Compares the rows of every table with the manifest, and adds
      `system.restored` to the audit log.
      A new cluster needs a database and the logins first, because a dump holds no passwords:
          createdb --encoding=UTF8 --template=template0 tbg
          psql … the CREATE ROLE lines of backend/deploy/db-init.sql
      A cluster that the service `db` made on a new volume has both: restore into its database tbg.
      Roles that are still missing are made without a login.

  restore.sh pitr --base DIR --wal DIR --to 'TIME' --data-dir DIR [--start PORT]
      The whole cluster as it was at TIME (2026-03-03 14:05:00, in UTC or with an offset such as +01:00; `latest`
      is all that was archived), into an empty folder. --base is one folder base-…, the newest that was complete
      before TIME; --wal is the folder wal. Run it as the user of PostgreSQL. Without --start it starts nothing
      and prints the command that does. Roles and passwords are those of that time.

Which one? Somebody deleted or changed rows: pitr to the moment before. The machine is gone: pitr --to latest.
The WAL is damaged, or PostgreSQL gets a new major version: dump.

Afterwards: run `tbg audit verify --anchor SEAL:HASH` with the audit head of a manifest, then start the program.
backend/docs/runbooks/Restore.md has each command for the production stack.

Examples:
  restore.sh dump /backups/tbg-20260301T020000Z.dump --target-url-file FILE
      with postgres://postgres@/tbg?host=/var/run/postgresql in FILE: the superuser, over the socket
  restore.sh pitr --base /backups/base-20260301T030000Z --wal /backups/wal --to '2026-03-03 14:05:00' \
      --data-dir /var/lib/postgresql/restored
HELP
}

source "$(dirname "${BASH_SOURCE[0]}")/backup-lib.sh"

sql() { "$bin/psql" -XAtqw -v ON_ERROR_STOP=1 "$@"; }
# The tools of a small image (busybox) must do: `date` without zones and fractions, `sha256sum` without long options.
now() { echo "${EPOCHREALTIME/,/.}"; }
seconds_since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.1f", to - from }'; }

# in_utc TIME: the same moment as PostgreSQL writes it, in UTC. Fails when it is no time.
in_utc() {
    local day='([0-9]{4}-[0-9]{2}-[0-9]{2})' clock='([0-9]{2}:[0-9]{2})(:[0-9]{2})?' fraction='(\.[0-9]{1,6})?'
    local zone='(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)?' seconds
    [[ $1 =~ ^$day[\ T]$clock$fraction\ ?$zone$ ]] || return 1
    day=${BASH_REMATCH[1]} clock=${BASH_REMATCH[2]}${BASH_REMATCH[3]:-:00} fraction=${BASH_REMATCH[4]}
    zone=${BASH_REMATCH[5]//[:ZUTC]/}
    seconds=$(date -u -d "$day $clock" +%s 2>/dev/null) || return 1
    # Some would take 30 February for 2 March.
    [ "$(date -u -d "@$seconds" '+%F %T')" = "$day $clock" ] || return 1
    if [ -n "$zone" ]; then
        zone=${zone}00
        seconds=$((seconds - ${zone:0:1}(10#${zone:1:2} * 3600 + 10#${zone:3:2} * 60)))
    fi
    echo "$(date -u -d "@$seconds" '+%F %T')$fraction+00"
}

# check_sums DIR NAME…: these files are as they were written.
check_sums() {
    local dir=$1 name line sum
    shift
    [ -r "$dir/SHA256SUMS" ] ||
        die "$dir has no SHA256SUMS, so nobody knows whether the backup is whole" "copy SHA256SUMS along with it"
    for name in "$@"; do
        line=$(grep "  $name\$" "$dir/SHA256SUMS") ||
            die "SHA256SUMS does not name $name: it was not finished, or comes from elsewhere" "take another backup"
        sum=$(sha256sum <"$dir/$name") && [ "${sum%% *}" = "${line%% *}" ] ||
            die "$name is not as it was written; nothing was restored" "take another backup: backup.sh verify $dir"
    done
}

# Shows how far pg_restore is; its other words pass.
progress() {
    awk '/processing data for table/ { printf "  %d tables: %s\n", ++n, $NF; next }
        /error|warning|detail|hint|FATAL|Command was/ { print }' >&2
}

restore_dump() {
    local file='' url_file='' dir name manifest differences began answer
    began=$(now)
    while [ $# -gt 0 ]; do
        case $1 in
            --target-url-file) url_file=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
            -*) die "dump does not know $1" "restore.sh --help" ;;
            *) file=$1; shift ;;
        esac
    done
    [ -n "$file" ] && [ -n "$url_file" ] || die "dump needs FILE.dump --target-url-file FILE" "restore.sh --help"
    [ -r "$file" ] || die "cannot read $file"
    dir=$(dirname "$file") name=$(basename "$file" .dump)
    say "checking $name against its checksum"
    check_sums "$dir" "$name.dump" "$name.json"
    manifest=$(<"$dir/$name.json")

    pg_bin '' pg_restore psql
    connect_with "$url_file"
    answer=$(sql <<'SQL'
SELECT CASE
    WHEN NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN 'its role is no superuser'
    WHEN current_setting('server_encoding') <> 'UTF8' THEN 'its encoding is not UTF8'
    ELSE (SELECT format('it has %s table(s), such as %s', count(*), min(c.relname))
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^(pg_|information_schema$)'
            AND NOT EXISTS (SELECT FROM pg_depend d
                            WHERE d.classid = 'pg_class'::REGCLASS AND d.objid = c.oid AND d.deptype = 'e')
          HAVING count(*) > 0)
END
SQL
    ) || die "the target does not answer" "is the URL in $url_file right? the database must exist: createdb"
    [ -z "$answer" ] || die "the target is refused: $answer; nothing was changed" \
        "name another database, made with: createdb --encoding=UTF8 --template=template0 NAME"

    say "restoring"
    # Roles belong to the cluster and are in no dump. They come without a login: the operator gives one.
    sql -v saved="$manifest" <<'SQL'
SELECT format('CREATE ROLE %I NOLOGIN', name) FROM jsonb_array_elements_text(:'saved'::JSONB -> 'roles') AS name
WHERE to_regrole(quote_ident(name)) IS NULL
\gexec
SQL
    "$bin/pg_restore" -d service=tbg -wv -j 2 --exit-on-error "$file" 2> >(progress) ||
        die "pg_restore failed; the target is incomplete" \
            "see its words above; drop the database, create it again, then try again"
    # What belongs to the database and to roles is not in the dump either. ANALYZE: without statistics the first
    # hours would be slow.
    sql -v saved="$manifest" <<'SQL'
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), :'saved'::JSONB ->> 'database_owner') \gexec
SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT 'GRANT pg_read_all_stats TO tbg_app' WHERE to_regrole('tbg_app') IS NOT NULL \gexec
ANALYZE;
SQL

    say "comparing with the manifest"
    differences=$(sql -v saved="$manifest" -v restored="$(manifest_sql | sql)" <<'SQL'
WITH both_sides AS (
    SELECT side, key, value
    FROM (VALUES ('saved', :'saved'::JSONB), ('restored', :'restored'::JSONB)) AS manifest (side, content)
    CROSS JOIN LATERAL (
        SELECT 'rows of ' || key AS key, value FROM jsonb_each_text(content -> 'tables')
        UNION ALL SELECT name, content ->> name FROM unnest(ARRAY['schema_version', 'audit_head']) AS name) AS items
)
SELECT format('%s: %s in the manifest, %s in the target', key,
              coalesce(s.value, 'nothing'), coalesce(r.value, 'nothing'))
FROM (SELECT * FROM both_sides WHERE side = 'saved') s
FULL JOIN (SELECT * FROM both_sides WHERE side = 'restored') r USING (key)
WHERE s.value IS DISTINCT FROM r.value
SQL
    )
    [ -z "$differences" ] || die "the target differs from the manifest: $differences" \
        "do not use it; drop it and restore another dump"
    sql -v saved="$manifest" -v name="$name" <<'SQL'
INSERT INTO audit_log (action, resource_type, resource_id, details)
VALUES ('system.restored', 'database', :'name', jsonb_build_object('dump_of', :'saved'::JSONB -> 'created_at'));
SQL
    say "every table has its rows; the audit log names this restore"
    echo "restored $name in $(seconds_since "$began") s"
}

pitr() {
    local base='' wal='' to='' data='' port='' began major made path limits start
    began=$(now)
    while [ $# -gt 0 ]; do
        case $1 in
            --base) base=${2:-} ;; --wal) wal=${2:-} ;; --to) to=${2:-} ;;
            --data-dir) data=${2:-} ;; --start) port=${2:-} ;;
            *) die "pitr does not know $1" "restore.sh --help" ;;
        esac
        shift $(($# > 1 ? 2 : 1))
    done
    [ -n "$base" ] && [ -n "$wal" ] && [ -n "$to" ] && [ -n "$data" ] ||
        die "pitr needs --base DIR --wal DIR --to TIME --data-dir DIR" "restore.sh --help"
    [ "$(id -u)" -ne 0 ] || die "PostgreSQL refuses to run as root" \
        "run this as its user: runuser -u postgres -- restore.sh pitr …"
    [ -r "$base/base.json" ] || die "$base is no base backup" "give one folder base-… of the folder of backups"
    [ -d "$wal" ] || die "$wal is no folder" "give the folder wal of the folder of backups"
    if [ "$to" != latest ]; then
        to=$(in_utc "$to") || die "--to is no time" "such as --to '2026-03-03 14:05:00' (UTC), or --to latest"
        made=$(in_utc "$(sed -nE 's/.*"created_at": "([^"]+)".*/\1/p' "$base/base.json")") ||
            die "$base/base.json does not say when it was made" "take another base backup"
        # Both to the second, and written alike.
        [[ ! ${to:0:19} < ${made:0:19} ]] ||
            die "$to lies before the end of this base backup ($made)" "choose an older one, or a later time"
    fi
    [ -e "$wal/$(first_wal "$base")" ] ||
        die "$wal does not hold $(first_wal "$base"), with which this base backup begins" "choose a newer base backup"
    [ ! -e "$data" ] || { [ -d "$data" ] && [ -z "$(ls -A "$data")" ]; } ||
        die "$data is not empty; nothing was changed" "name a new folder, or move this one away"
    wal=$(realpath "$wal")
    [[ $wal != *[\'%\\]* ]] ||
        die "the path $wal holds a character that PostgreSQL would read as a sign" "move the WAL to a plain path"
    for path in "$base"/*.tar.gz; do
        [ "${path##*/}" = base.tar.gz ] ||
            die "the backup has tablespaces, which this script does not know" \
                "unpack it by hand, as PostgreSQL's manual says"
    done

    say "checking the base backup against its checksums"
    check_sums "$base" base.tar.gz backup_manifest base.json
    say "checking the WAL against its checksums"
    check_wal "$wal" "$(first_wal "$base")" "$to"
    say "unpacking into $data"
    mkdir -p "$data" && chmod 700 "$data"
    tar -xzf "$base/base.tar.gz" -C "$data"
    data=$(realpath "$data")
    major=$(<"$data/PG_VERSION")
    pg_bin "$major" postgres pg_ctl pg_controldata
    # Debian keeps its configuration elsewhere; then the cluster starts with defaults, for this machine's own users.
    [ -e "$data/postgresql.conf" ] || touch "$data/postgresql.conf"
    [ -e "$data/pg_hba.conf" ] || echo 'local all all peer' >"$data/pg_hba.conf"
    limits=$(source_limits)
    # Archiving is off: two histories must not meet in one archive.
    cat >>"$data/postgresql.auto.conf" <<CONF
# Written by restore.sh
restore_command = 'cp "$wal/%f" "%p"'
archive_mode = off
# Nobody reads while it recovers: so a limit that was raised after the base backup does not stop it.
hot_standby = off
# The limits of its source, whose configuration may lie outside of the data folder.
$limits
CONF
    [ "$to" = latest ] || cat >>"$data/postgresql.auto.conf" <<CONF
recovery_target_time = '$to'
recovery_target_action = 'promote'
CONF
    touch "$data/recovery.signal"
    sync -f "$data"

    start=("$bin/pg_ctl" -D "$data" -l "$data/restore.log" -w -t 86400)
    if [ -z "$port" ]; then
        say "Unpacked in $(seconds_since "$began") s. To recover to $to, start it on a free port:"
        echo "${start[*]} -o '-p 5433' start"
    else
        say "recovering to $to"
        recover
        echo "recovered to $to on port $port in $(seconds_since "$began") s"
    fi
    say "Then: look whether what you want is there, run \`tbg audit verify\` on it, and write the restore down:"
    say "  INSERT INTO audit_log (action, resource_type, resource_id) VALUES ('system.restored', 'cluster', '$to');"
    say "Before it takes over: remove what this script appended to its configuration; archive into a new folder of"
    say "backups; take a base backup."
    say "  sed -i '/^# Written by restore.sh\$/,\$d' $data/postgresql.auto.conf"
}

control_data() { LC_ALL=C "$bin/pg_controldata" -D "$data"; }
# What recovery wants no smaller than in the source, as settings.
source_limits() {
    local found
    found=$(control_data | sed -nE '
        s/^max_prepared_xacts /max_prepared_transactions /
        s/^max_locks_per_xact /max_locks_per_transaction /
        s/^(max_[a-z_]+) setting: +([0-9]+)$/\1 = \2/p')
    [ "$(wc -l <<<"$found")" -eq 5 ] || die "pg_controldata does not name the five limits of $data" "see its output"
    echo "$found"
}
# Starts the cluster and waits until it takes writes.
recover() {
    "${start[@]}" -o "-p $port" start >&2 || failed_recovery
    until control_data | grep -q 'cluster state: *in production'; do
        "$bin/pg_ctl" -D "$data" status >/dev/null || failed_recovery
        sleep 0.1
    done
}
failed_recovery() {
    tail -n 5 "$data/restore.log" >&2
    die "PostgreSQL did not come up; its log is $data/restore.log" \
        "if recovery ended before the target, the WAL does not reach so far: --to latest, an empty --data-dir"
}

case ${1:-} in
    dump) shift && restore_dump "$@" ;;
    pitr) shift && pitr "$@" ;;
    -h | --help | help) usage ;;
    *) usage >&2 && exit 2 ;;
esac
