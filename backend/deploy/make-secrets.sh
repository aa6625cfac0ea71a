#!/usr/bin/env bash
# Makes the secrets of a deployment, each in a file of its own; files that exist are kept. What only people
# know must be put there by hand before the first start: smtp_password, tls_cert, tls_key.
# Usage: backend/deploy/make-secrets.sh DIR TBG      TBG: the program, for `tbg keys new`
set -euo pipefail
dir=${1:?usage: make-secrets.sh DIR TBG} tbg=${2:?usage: make-secrets.sh DIR TBG}
mkdir -p "$dir"
# The folder is what protects the files: `docker compose` mounts them as they are, for users without rights.
chmod 700 "$dir"
umask 022

# put NAME: standard input becomes the secret, unless there is one.
put() {
    if [ -s "$dir/$1" ]; then cat >/dev/null; return; fi
    cat >"$dir/$1.partial" && mv "$dir/$1.partial" "$dir/$1"
}
# Hexadecimal, so that a password can stand in a URL as it is.
random() { openssl rand -hex 32 | tr -d '\n'; }
secret() { cat "$dir/$1"; }

for name in db_password db_owner_password db_backup_password db_monitor_password redis_password \
    redis_admin_password grafana_password lottery_salt_key; do
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
printf 'user default off\nuser tbg on #%s ~* &* +@all -@admin -@dangerous +info\nuser operator on #%s ~* &* +@all\n' \
    "$(hash redis_password)" "$(hash redis_admin_password)" | put redis_users_acl
[ -s "$dir/jwt_private_key" ] || "$tbg" keys new | put jwt_private_key

for name in smtp_password tls_cert tls_key; do
    [ -s "$dir/$name" ] || echo "still missing: $dir/$name" >&2
done
