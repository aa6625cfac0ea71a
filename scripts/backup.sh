#!/usr/bin/env bash
# Backups of PostgreSQL: dumps, base backups and the archive of the write-ahead log (WAL). `--help` says more.
set -euo pipefail
# Backups hold everything that the database holds: nobody else reads them.
umask 077

usage() {
    cat <<'HELP'
Usage:
  backup.sh dump --url-file FILE --to DIR [--keep-days 7]   daily: one file with everything, from one instant
  backup.sh base --url-file FILE --to DIR [--keep 2]        weekly: what point-in-time recovery starts from
  backup.sh wal-archive PATH NAME DIR                       PostgreSQL calls it for each finished piece of WAL
  backup.sh verify DIR                                      compare everything with its checksum, look for gaps

FILE holds a URL such as postgres://user:password@host:5432/tbg. It is read from a file, so that the password
is in no list of processes. DIR is the same folder for all commands:
  DIR/tbg-20260301T020000Z.dump   a dump; .json beside it: rows of each table, head of the audit log
  DIR/SHA256SUMS                  checksums of the dumps
  DIR/base-20260301T030000Z/      a base backup with its checksums
  DIR/wal/                        the WAL from the oldest base backup on
  DIR/status/KIND.timestamp       when dump, base or wal last succeeded, in Unix seconds

Set up once, in postgresql.conf (wal-archive runs as the user of PostgreSQL, which must own DIR/wal):
  archive_mode = on
  archive_timeout = 300           at most five minutes are lost with the machine
  archive_command = '/path/to/backup.sh wal-archive %p %f /backups'
and in a crontab in UTC, as the same user:
  0 2 * * *   backup.sh dump --url-file /run/secrets/backup_url --to /backups
  0 3 * * 0   backup.sh base --url-file /run/secrets/backup_url --to /backups

The role needs to read everything, and to copy the cluster; pg_hba.conf must let it in for "replication" too:
  CREATE ROLE tbg_backup LOGIN REPLICATION PASSWORD '…' IN ROLE pg_read_all_data;
restore.sh brings the data back; backup-test.sh proves it.
HELP
}

source "$(dirname "${BASH_SOURCE[0]}")/backup-lib.sh"

# Shows how far pg_dump is; its other words pass.
progress() {
    awk -v total="$1" '
        /dumping contents of table/ { printf "  %d tables of %d (with partitions): %s\n", ++n, total, $NF; next }
        /error|warning|detail|hint|FATAL/ { print }' >&2
}

dump() {
    local url_file='' to='' keep_days=7 name snapshot extension total old manifest
    local filters=(-N '_timescaledb*' -N 'timescaledb*')
    while [ $# -gt 0 ]; do
        case $1 in
            --url-file) url_file=${2:-} ;; --to) to=${2:-} ;; --keep-days) keep_days=${2:-} ;;
            *) die "dump does not know $1" "backup.sh --help" ;;
        esac
        shift $(($# > 1 ? 2 : 1))
    done
    [ -n "$url_file" ] && [ -n "$to" ] && [[ $keep_days =~ ^[0-9]+$ ]] ||
        die "dump needs --url-file FILE --to DIR [--keep-days N]" "backup.sh --help"
    pg_bin '' pg_dump pg_restore psql
    connect_with "$url_file"
    prepare "$to"; lock "$to"
    # What a crash left: nobody else works here while we hold the lock.
    rm -f "$to"/.tbg-*.partial
    name=tbg-$(date -u +%Y%m%dT%H%M%SZ)
    [ ! -e "$to/$name.dump" ] || die "$to/$name.dump exists" "wait a second"

    # The session stays open so that pg_dump sees exactly the rows that the manifest counts.
    open_session
    ask 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();'
    snapshot=$answer
    ask "SELECT extname FROM pg_extension WHERE extname NOT LIKE 'timescaledb%';"
    # An image may bring TimescaleDB, which the tables do not use and a restore would stumble over.
    while IFS= read -r extension; do filters+=(-e "$extension"); done <<<"$answer"
    ask "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::REGNAMESPACE;"
    total=$answer
    say "counting the rows of all tables"
    ask "$(manifest_sql)"
    manifest=$answer
    say "dumping into $to/$name.dump"
    "$bin/pg_dump" -Fc -wv --lock-wait-timeout=60s --snapshot="$snapshot" "${filters[@]}" \
        -f "$to/.$name.partial" 2> >(progress "$total") ||
        die "pg_dump failed; nothing was kept" "see above; when a table was locked or dropped meanwhile, run it again"
    ask 'COMMIT;'

    say "reading the dump back"
    "$bin/pg_restore" --list "$to/.$name.partial" >/dev/null && "$bin/pg_restore" -f /dev/null "$to/.$name.partial" ||
        die "the dump cannot be read back" "check the disk of $to, then run it again"
    printf '%s\n' "$manifest" >"$to/.$name.json.partial"
    sync "$to/.$name.partial" "$to/.$name.json.partial"
    mv "$to/.$name.json.partial" "$to/$name.json"
    mv "$to/.$name.partial" "$to/$name.dump"
    # By the time in the name: a copy of the folder has other file times. The newest is ours and stays.
    for old in "$to"/tbg-*.dump; do
        old=${old%.dump}
        [[ ${old##*/} < tbg-$(date -u -d "-$keep_days days" +%Y%m%dT%H%M%SZ) && ${old##*/} != "$name" ]] || continue
        rm -f "$old.dump" "$old.json" && say "removed ${old##*/}: older than $keep_days days"
    done
    add_sums "$to" "$name.dump" "$name.json"
    succeeded "$to" dump
    say "done: $(du -h "$to/$name.dump" | cut -f1) in $SECONDS s"
    echo "$to/$name.dump"
}

base() {
    local url_file='' to='' keep=2 name part label count=0 all
    while [ $# -gt 0 ]; do
        case $1 in
            --url-file) url_file=${2:-} ;; --to) to=${2:-} ;; --keep) keep=${2:-} ;;
            *) die "base does not know $1" "backup.sh --help" ;;
        esac
        shift $(($# > 1 ? 2 : 1))
    done
    [ -n "$url_file" ] && [ -n "$to" ] && [[ $keep =~ ^[1-9][0-9]*$ ]] ||
        die "base needs --url-file FILE --to DIR [--keep N]" "backup.sh --help"
    pg_bin '' pg_basebackup pg_archivecleanup psql
    connect_with "$url_file"
    prepare "$to"; lock "$to"
    rm -rf "$to"/.base-*.partial
    case $("$bin/psql" -XAtqwc 'SHOW archive_mode' || echo unreachable) in
        on | always) ;;
        unreachable) die "PostgreSQL does not answer" "is the URL in $url_file right?" ;;
        *) die "archive_mode is off: without its WAL a base backup is worth nothing" \
            "set it up as backup.sh --help says, and restart PostgreSQL" ;;
    esac
    name=base-$(date -u +%Y%m%dT%H%M%SZ)
    part=$to/.$name.partial
    [ ! -e "$to/$name" ] || die "$to/$name exists" "wait a second"
    say "copying the cluster into $to/$name"
    "$bin/pg_basebackup" -D "$part" -Ft -z -X none --checkpoint=fast -Pw --label="$name" ||
        die "pg_basebackup failed; nothing was kept" \
            "has the role REPLICATION, does pg_hba.conf let it in, and does archive_command succeed (PostgreSQL's log)?"
    # The label is the first file of the archive: tar stops there.
    label=$(tar -xzOf "$part/base.tar.gz" --occurrence=1 backup_label)
    printf '{"created_at": "%s", "first_wal": "%s"}\n' "$(date -u +%FT%TZ)" \
        "$(sed -nE 's/^START WAL.*file ([0-9A-F]{24}).*/\1/p' <<<"$label")" >"$part/base.json"
    [ -n "$(first_wal "$part")" ] || die "the base backup has no label" "check the disk of $to, then run it again"
    verify_base "$part"
    (cd "$part" && sha256sum -- * >SHA256SUMS)
    sync "$part"/* "$part"
    mv "$part" "$to/$name"
    sync "$to"
    # Names sort by time.
    all=("$to"/base-*/)
    for ((; count < ${#all[@]} - keep; count++)); do
        rm -rf "${all[count]}" && say "removed $(basename "${all[count]}"): $keep newer ones are kept"
    done
    all=("$to"/base-*/)
    if [ -d "$to/wal" ]; then
        "$bin/pg_archivecleanup" "$to/wal" "$(first_wal "${all[0]}")"
        (exec 8>"$to/wal/.lock" && flock 8 && forget_sums "$to/wal" "$(first_wal "${all[0]}")")
    fi
    succeeded "$to" base
    say "done: $(du -sh "$to/$name" | cut -f1) in $SECONDS s"
    echo "$to/$name"
}

# Compares every file with the server's own manifest. Tools before version 18 cannot look into a tar file.
verify_base() {
    local need free
    need=$(grep -o '"Size": [0-9]*' "$1/backup_manifest" |
        awk '{ sum += $2 } END { printf "%.0f", sum / 1024 + 65536 }')
    free=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
    [ -x "$bin/pg_verifybackup" ] && [ "$free" -gt "$need" ] ||
        { say "not unpacked to verify it: no pg_verifybackup, or too little space"; return 0; }
    say "verifying every file"
    mkdir "$1/check"
    tar -xzf "$1/base.tar.gz" -C "$1/check"
    "$bin/pg_verifybackup" -qn -m "$1/backup_manifest" "$1/check" ||
        die "the base backup does not agree with its manifest" "check the disk of $1, then run it again"
    rm -rf "$1/check"
}

# What ends with success here is deleted by PostgreSQL: it must be on disk, whole, under its name.
wal_archive() {
    [ $# -eq 3 ] || die "wal-archive needs PATH NAME DIR" \
        "archive_command = '/path/to/backup.sh wal-archive %p %f /backups'"
    local path=$1 name=$2 wal=$3/wal sum
    [[ $name =~ ^[0-9A-F]{8}(\.history|[0-9A-F]{16}(\.partial|\.[0-9A-F]{8}\.backup)?)$ ]] ||
        die "$name is no name of WAL"
    prepare "$3"
    mkdir -p "$wal"
    if [ -e "$wal/$name" ]; then
        # A crash after the rename lets PostgreSQL ask again. Other content means that two servers archive here.
        cmp -s "$path" "$wal/$name" ||
            die "$wal/$name exists with other content" "give each server, and each restored one, a folder of its own"
    else
        cp "$path" "$wal/.$name.partial"
        sync "$wal/.$name.partial"
        mv "$wal/.$name.partial" "$wal/$name"
    fi
    exec 8>"$wal/.lock" && flock 8
    # The whole line: a piece of the same name that was moved away may have left its own.
    sum=$(cd "$wal" && sha256sum -- "$name")
    if ! grep -aqsxF "$sum" "$wal/SHA256SUMS"; then
        rewrite_sums "$wal" '$2 "" != name ""' "$name" "$name"
    fi
    sync "$wal"
    succeeded "$3" wal
}

verify() {
    [ $# -eq 1 ] && [ -d "$1" ] || die "verify needs the folder of the backups" "backup.sh verify DIR"
    local dir file gaps bad=0 good=0
    for dir in "$1" "$1"/base-*/ "$1/wal"; do
        if [ ! -e "$dir/SHA256SUMS" ]; then
            [[ $dir != */base-* || ! -d $dir ]] || { say "NO CHECKSUMS: $dir"; bad=1; }
            continue
        fi
        (cd "$dir" && sha256sum --check --quiet --strict SHA256SUMS >&2) || bad=1
        good=$((good + $(wc -l <"$dir/SHA256SUMS")))
        for file in "$dir"/*; do
            [ ! -f "$file" ] || [ "${file##*/}" = SHA256SUMS ] || grep -q "  ${file##*/}\$" "$dir/SHA256SUMS" ||
                { say "NO CHECKSUM: $file (whatever wrote it did not finish)"; bad=1; }
        done
    done
    gaps=$([ ! -d "$1/wal" ] || wal_gaps "$1/wal")
    [ -z "$gaps" ] || { say "MISSING WAL: $gaps"; say "  -> recovery ends there: take a new base backup now"; bad=1; }
    [ "$bad" -eq 0 ] ||
        die "not all is as it was written" "do not restore from what is named above; make a new dump and base backup"
    [ "$good" -gt 0 ] || die "$1 holds no backup"
    echo "all is as it was written: $good files"
}

case ${1:-} in
    dump) shift && dump "$@" ;;
    base) shift && base "$@" ;;
    wal-archive) shift && wal_archive "$@" ;;
    verify) shift && verify "$@" ;;
    -h | --help | help) usage ;;
    *) usage >&2 && exit 2 ;;
esac
