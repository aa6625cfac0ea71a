#!/usr/bin/env bash
# Makes the secrets of a deployment, each in a file of its own; files that exist are kept. What only people
# know must be put there by hand before the first start: smtp_password, tls_cert, tls_key.
# Usage: backend/deploy/make-secrets.sh DIR TBG…      TBG…: the command that is the program, for `keys new`
#   backend/deploy/make-secrets.sh backend/secrets docker run --rm thebitcoingame/tbg:0.1.0
#   backend/deploy/make-secrets.sh backend/secrets backend/target/release/tbg
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: make-secrets.sh DIR TBG…" >&2; exit 2; }
dir=$1 tbg=("${@:2}")
fail() { echo "make-secrets: $1; run it again afterwards" >&2; exit 1; }
command -v openssl >/dev/null || fail "openssl is missing"
mkdir -p "$dir"
# The folder is what protects the files: `docker compose` mounts them as they are, for users without rights.
chmod 700 "$dir"
umask 022

# put NAME: standard input becomes the secret, unless there is one. Never an empty one.
put() {
    if [ -s "$dir/$1" ]; then cat >/dev/null; return; fi
    cat >"$dir/$1.partial"
    [ -s "$dir/$1.partial" ] || { rm -f "$dir/$1.partial"; fail "nothing to write into $1"; }
    mv "$dir/$1.partial" "$dir/$1"
}
# Hexadecimal, so that a password can stand in a URL as it is.
random() { openssl rand -hex 32 | tr -d '\n'; }
secret() { cat "$dir/$1"; }

# redis_password.spare is what the first rotation moves to: Redis knows it from the start (docs/runbooks/KeyRotation.md).
for name in db_password db_owner_password db_backup_password db_monitor_password redis_password \
    redis_password.spare redis_admin_password grafana_password lottery_salt_key; do
    random | put "$name"
done
# The program takes whole URLs.
printf 'postgres://tbg_service:%s@db:5432/tbg' "$(secret db_password)" | put database_url
printf 'postgres://tbg_owner:%s@db:5432/tbg' "$(secret db_owner_password)" | put database_owner_url
printf 'postgres://tbg_backup:%s@db:5432/tbg' "$(secret db_backup_password)" | put backup_url
printf 'redis://tbg:%s@redis:6379/0' "$(secret redis_password)" | put redis_url
# Redis keeps hashes only. The program may do everything but administer and stop the server for everybody;
# `operator` changes its password without a restart.
hash() { secret "$1" | sha256sum | cut -d' ' -f1; }
printf 'user default off\nuser tbg on #%s #%s ~* &* +@all -@admin -@dangerous +info\nuser operator on #%s ~* &* +@all\n' \
    "$(hash redis_password)" "$(hash redis_password.spare)" "$(hash redis_admin_password)" | put redis_users_acl
if [ ! -s "$dir/jwt_private_key" ]; then
    # Whole or not at all: a program that fails half way must not leave its first half.
    key=$("${tbg[@]}" keys new) && [[ $key == -----BEGIN*KEY-----* ]] || fail "no key came from: ${tbg[*]} keys new"
    printf '%s\n' "$key" | put jwt_private_key
fi

for name in smtp_password tls_cert tls_key; do
    [ -s "$dir/$name" ] || echo "still missing: $dir/$name" >&2
done
