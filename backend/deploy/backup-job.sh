#!/usr/bin/env bash
# What the backup service runs at SCHEDULE (02:00 UTC): the dump; on Sundays, at 03:00, also the base backup.
# Mounted over the image's own /backup.sh, whose dumps have no manifest and no checksums.
set -euo pipefail
backup=(bash /usr/local/lib/tbg/backup.sh)
# One failure must not prevent the other.
failed=0
"${backup[@]}" dump --url-file /run/secrets/backup_url --to /backups --keep-days 7 || failed=1
if [ "$(date -u +%u)" = 7 ]; then
    wait=$(($(date -u -d 'today 03:00' +%s) - $(date -u +%s)))
    [ "$wait" -le 0 ] || sleep "$wait"
    "${backup[@]}" base --url-file /run/secrets/backup_url --to /backups --keep 2 || failed=1
fi
exit "$failed"
