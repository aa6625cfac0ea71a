#!/usr/bin/env bash
# What backup.sh, restore.sh and backup-test.sh have in common. Not a command: they source it.

say() { printf '%s\n' "$*" >&2; }
# die WHAT [WHAT-TO-DO]
die() { printf 'error: %s\n' "$1" >&2; [ $# -lt 2 ] || printf '  -> %s\n' "$2" >&2; exit 1; }

scratch=
in_scratch() { [ -n "$scratch" ] || { scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; }; }

# pg_bin MAJOR TOOL…: sets `bin` to the folder of the newest PostgreSQL with these tools (MAJOR may be empty).
pg_bin() {
    local major=$1 dir tool version newest=0
    shift
    bin=
    for dir in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin /usr/local/bin; do
        for tool in "$@"; do [ -x "$dir/$tool" ] || continue 2; done
        version=$("$dir/$1" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
        [ "${major:-$version}" = "$version" ] && [ "$version" -gt "$newest" ] || continue
        bin=$dir newest=$version
    done
    [ -n "$bin" ] || die "PostgreSQL $major with $* was not found" "install it: scripts/setup.sh"
}

decode() { local text=${1//\\/\\\\}; printf '%b' "${text//%/\\x}"; }

# connect_with FILE: everything started from now on connects as the URL in FILE says. The parts go into a
# service file of libpq, readable by us alone: neither arguments nor the environment hold the password.
connect_with() {
    local url rest authority login='' query='' pair key value
    [ -r "$1" ] || die "cannot read $1" "it must hold a URL: postgres://user:password@host:5432/database"
    url=$(<"$1")
    [[ $url =~ ^postgres(ql)?://[^[:space:]]+$ ]] || die "$1 holds no postgres:// URL on a single line"
    rest=${url#*://}
    [[ $rest != *\?* ]] || { query=${rest#*\?}; rest=${rest%%\?*}; }
    authority=${rest%%/*}
    local -A part=()
    [[ $rest != */?* ]] || part[dbname]=${rest#*/}
    [[ $authority != *@* ]] || { login=${authority%@*}; authority=${authority##*@}; }
    [ -z "$login" ] || part[user]=${login%%:*}
    [[ $login != *:* ]] || part[password]=${login#*:}
    if [[ $authority =~ ^\[(.*)\](:([0-9]+))?$ || $authority =~ ^([^:]*)(:([0-9]+))?$ ]]; then
        [ -z "${BASH_REMATCH[1]}" ] || part[host]=${BASH_REMATCH[1]}
        [ -z "${BASH_REMATCH[3]:-}" ] || part[port]=${BASH_REMATCH[3]}
    else
        die "the URL in $1 names no single host and port" \
            "characters such as @ : / in a password are written %40 %3A %2F"
    fi
    while IFS= read -r -d '&' pair; do
        key=${pair%%=*} value=${pair#*=}
        # The program's driver takes these spellings too.
        case ${key//-/} in
            sslrootcert | sslcert | sslkey | sslmode) part[${key//-/}]=$value ;;
            host | port | user | password | dbname | options | connect_timeout) part[$key]=$value ;;
            application_name | applicationname) part[application_name]=$value ;;
            '' | statementcachecapacity) ;;
            *) die "the URL in $1 has the parameter $key, which this script does not know" ;;
        esac
    done <<<"$query&"
    in_scratch
    {
        echo '[tbg]'
        for key in "${!part[@]}"; do
            value=$(decode "${part[$key]}")
            [[ $value != *$'\n'* ]] || die "the URL in $1 holds a line break"
            printf '%s=%s\n' "$key" "$value"
        done
    } >"$scratch/service"
    export PGSERVICEFILE=$scratch/service PGSERVICE=tbg PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-10} PGTZ=UTC
    # A role may have short limits for the program's sake, and the server for clients that vanish; a backup takes as long
    # as it takes, and as its disk stands still.
    export PGOPTIONS='-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c tcp_user_timeout=0'
}

# One person's backup at a time: the lock goes with the process.
lock() { exec 9>"$1/.lock"; flock -n 9 || die "another backup into $1 is running" "wait for it to end"; }
prepare() { mkdir -p -m 711 "$1" && mkdir -p -m 755 "$1/status"; }
# The program runs as somebody else and exports these times.
succeeded() {
    date +%s >"$1/status/.$2.partial"
    chmod 644 "$1/status/.$2.partial"
    mv "$1/status/.$2.partial" "$1/status/$2.timestamp"
}

# add_sums DIR FILE…: the checksums of DIR, without files that are gone and with these. Not for WAL.
add_sums() {
    local dir=$1 sum name
    shift
    {
        [ ! -e "$dir/SHA256SUMS" ] || while read -r sum name; do
            [[ " $* " == *" $name "* || ! -e $dir/$name ]] || printf '%s  %s\n' "$sum" "$name"
        done <"$dir/SHA256SUMS"
        (cd "$dir" && sha256sum -- "$@")
    } >"$dir/.SHA256SUMS.partial"
    sync "$dir/.SHA256SUMS.partial"
    mv "$dir/.SHA256SUMS.partial" "$dir/SHA256SUMS"
    sync "$dir"
}

# rewrite_sums WAL CONDITION NAME [FILE]: the checksums of WAL for which awk finds the condition true (of $2, a name,
# and `name`), and that of FILE. Whole or not at all: a line that a full disk cut off would be glued to the next, and a
# list that cannot be read must not be taken for an empty one.
rewrite_sums() {
    local wal=$1 sums=$1/SHA256SUMS part=$1/.SHA256SUMS.partial
    : >"$part"
    [ ! -e "$sums" ] ||
        awk -v name="$3" "NF == 2 && length(\$1) == 64 && \$1 !~ /[^0-9a-f]/ && ($2)" "$sums" >>"$part" ||
        die "$sums cannot be read" "give it to the user who archives, or look at the disk"
    [ -z "${4:-}" ] || (cd "$wal" && sha256sum -- "$4") >>"$part"
    sync "$part"
    mv "$part" "$sums"
}

# Names look like numbers to awk, too large ones to be told apart: "" makes texts of them.
# forget_sums WAL FIRST: without the checksums of pieces before FIRST, which pg_archivecleanup removes. A piece that is
# gone and should not be keeps its own: that is how its loss is seen. As there, the timeline does not count.
forget_sums() {
    rewrite_sums "$1" '$2 !~ /^[0-9A-F]+([.]partial)?$/ || substr($2, 9, 16) "" >= substr(name, 9, 16) ""' "$2"
    sync "$1"
}

# Prints the pieces of WAL that are missing between the first and the last of each timeline.
wal_gaps() {
    local size segments=(find "$1" -maxdepth 1 -regextype posix-extended -regex '.*/[0-9A-F]{24}' -printf)
    size=$("${segments[@]}" '%s\n' | sort -n | tail -n 1)
    "${segments[@]}" '%f\n' | sort |
        while read -r name; do
            local line=${name:0:8} number=$((16#${name:8:8} * (4294967296 / size) + 16#${name:16}))
            [ "${line_before:-}" != "$line" ] || [ $((number_before + 1)) -eq "$number" ] || echo "before $name"
            local line_before=$line number_before=$number
        done
}

# check_wal DIR FIRST TO: the WAL from FIRST on is as it was written, and all of it. PostgreSQL takes the first record that
# it cannot read for the end: for `latest` that would be a success with less, for a time it is an error that names itself.
check_wal() {
    local dir=$1 first=$2 to=$3 fault
    [ -e "$dir/SHA256SUMS" ] || { say "no checksums in $dir: not checked"; return 0; }
    fault=$(cd "$dir" && awk -v first="$first" '($2 "") >= (first "")' SHA256SUMS | sha256sum -c --quiet - 2>/dev/null | head -n 1 || true)
    [ -n "$fault" ] || fault=$(wal_gaps "$dir" | awk -v first="$first" '($2 "") > (first "") { print "a piece is missing " $0; exit }' || true)
    [ -n "$fault" ] || return 0
    [ "$to" != latest ] ||
        die "the WAL is damaged: $fault; nothing was changed" "fetch that file from another copy, or name a --to TIME before it"
    say "WARNING: the WAL is damaged: $fault"
}

# SQL that makes the SQL of a manifest: partitions count with their parents, and what belongs to an extension
# is not ours. The roles are those without which a restore fails; a dump does not hold them.
manifest_sql() {
    cat <<'SQL'
SELECT format($manifest$
    SELECT jsonb_pretty(jsonb_build_object(
        'created_at', to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'server_version', current_setting('server_version'),
        'schema_version', (SELECT max(version) FROM _sqlx_migrations),
        'database_owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()),
        'roles', (SELECT jsonb_agg(DISTINCT pg_get_userbyid(role)) FROM (
            SELECT refobjid AS role FROM pg_shdepend
            WHERE refclassid = 'pg_authid'::REGCLASS AND deptype IN ('o', 'a')
              AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            UNION SELECT relowner FROM pg_class WHERE relnamespace = 'public'::REGNAMESPACE) AS needed),
        'audit_head', (SELECT jsonb_build_object('seal_no', seal_no, 'hash', encode(hash, 'hex'))
                       FROM audit_seals ORDER BY seal_no DESC LIMIT 1),
        'tables', (SELECT jsonb_object_agg(name, n) FROM (%s) AS counts)))
    $manifest$, string_agg(format('SELECT %L AS name, count(*) AS n FROM public.%I', relname, relname), ' UNION ALL '))
FROM pg_class c
WHERE relnamespace = 'public'::REGNAMESPACE AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::REGCLASS AND d.objid = c.oid AND d.deptype = 'e')
\gexec
SQL
}

# open_session: one psql that stays open, for `ask`.
open_session() {
    mkfifo "$scratch/ask" "$scratch/answers"
    "$bin/psql" -XAtqw -v ON_ERROR_STOP=1 <"$scratch/ask" >"$scratch/answers" 2>"$scratch/session" 7>&- 9>&- &
    exec 5>"$scratch/ask" 6<"$scratch/answers"
}

# ask SQL: puts the answer of the open session into `answer`.
ask() {
    local line
    answer=
    # When psql has ended, the answer says why; the signal of a broken pipe would only kill us.
    trap '' PIPE
    printf '%s\n\\echo --end--\n' "$1" >&5 2>/dev/null || true
    trap - PIPE
    while IFS= read -r line <&6; do
        [ "$line" != --end-- ] || return 0
        answer+=${answer:+$'\n'}$line
    done
    die "PostgreSQL says: $(<"$scratch/session")" \
        "is the URL right, may its role read every table (pg_read_all_data), and did \`tbg migrate\` run?"
}

# first_wal BASE: the first piece of WAL that a base backup needs.
first_wal() { sed -nE 's/.*"first_wal": "([0-9A-F]{24})".*/\1/p' "$1/base.json"; }
