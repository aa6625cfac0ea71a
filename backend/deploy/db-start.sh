#!/bin/sh
# Starts PostgreSQL. The image makes its own folders; that of the backups is a new volume, which belongs to root.
# The backup service runs as the same user and finds it ready.
set -eu
mkdir -p /backups
chown postgres: /backups
exec docker-entrypoint.sh "$@"
