#!/usr/bin/env bash
# What the backup service runs at SCHEDULE (02:00 UTC): the dump; on Sundays, at 03:00, also the base backup. When a
# Sunday went by without one, as after a restart of the service while it waited, the next day makes it, at once.
# Mounted over the image's own /backup.sh, whose dumps have no manifest and no checksums.
# By hand: /backup.sh dump or /backup.sh base makes this one, at once, whatever day it is.
set -euo pipefail
dump() { bash /usr/local/lib/tbg/backup.sh dump --url-file /run/secrets/backup_url --to /backups --keep-days 7; }
base() { bash /usr/local/lib/tbg/backup.sh base --url-file /run/secrets/backup_url --to /backups --keep 2; }
case ${1:-} in
    '') ;;
    dump | base) "$1"; exit ;;
    *) echo "usage: /backup.sh [dump|base]" >&2 && exit 2 ;;
esac
# One failure must not prevent the other.
failed=0
dump || failed=1
if [ "$(date -u +%u)" = 7 ]; then
    wait=$(($(date -u -d 'today 03:00' +%s) - $(date -u +%s)))
    [ "$wait" -le 0 ] || sleep "$wait"
    base || failed=1
else
    # By the time in the name: a copy of the folder has other file times. No name at all is older than any.
    newest=$(find /backups -maxdepth 1 -name 'base-*' -printf '%f\n' | sort | tail -n 1)
    # 6.5 days, in hours.
    [[ ! $newest < base-$(date -u -d '-156 hours' +%Y%m%dT%H%M%SZ) ]] || base || failed=1
fi
exit "$failed"
