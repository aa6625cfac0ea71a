#!/usr/bin/env bash
# Builds stand-ins for the images of the stack from Debian packages, for places where no image can be pulled:
# the same program inside, started by the same command line, as the same user. Only `make stack-test` uses
# them. Grafana and TimescaleDB are no Debian packages: Grafana has no stand-in, the database is plain PostgreSQL.
# Usage, as root: scripts/standin-images.sh [RELEASE-BINARY]     (default backend/target/release/tbg)
# Settings: TBG_DEBIAN_MIRROR. An image that exists is kept; REBUILD=1 makes all of them anew. The image of
# the program is always made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-backend/target/release/tbg}
mirror=${TBG_DEBIAN_MIRROR:-http://deb.debian.org/debian}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The classic builder: the other one wants a plugin and fetches a front end.
export DOCKER_BUILDKIT=0

[ -x "$binary" ] || { echo "standin-images: no release binary at $binary (cargo build --release -p tbg)" >&2; exit 1; }
docker info >/dev/null 2>&1 || { echo "standin-images: dockerd does not answer" >&2; exit 1; }

have() { [ -z "${REBUILD:-}" ] && docker image inspect "tbg-standin/$1" >/dev/null 2>&1; }

# image NAME: builds tbg-standin/NAME from the Dockerfile on standard input and the files in $work/NAME.
# The network of the host, because a build's own may know no name server.
image() {
    mkdir -p "$work/$1"
    cat >"$work/$1/Dockerfile"
    docker build --quiet --network host --tag "tbg-standin/$1" "$work/$1" >"$work/build.log" 2>&1 ||
        { tail -n 30 "$work/build.log" >&2; exit 1; }
    echo "tbg-standin/$1: $(docker image inspect -f '{{.Size}}' "tbg-standin/$1" | awk '{printf "%d MB", $1 / 1e6}')"
}

if ! have base; then
    command -v debootstrap >/dev/null || { echo "standin-images: apt-get install debootstrap" >&2; exit 1; }
    debootstrap --variant=minbase bookworm "$work/root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
    tar -C "$work/root" -c . | docker import --change 'CMD ["sh"]' - tbg-standin/debian >/dev/null
    rm -rf "$work/root"
    # The lists of packages stay in the base, so that the other builds need not fetch them again.
    image base <<'DOCKERFILE'
FROM tbg-standin/debian
ENV DEBIAN_FRONTEND=noninteractive
RUN printf 'Acquire::Check-Valid-Until "false";\nAPT::Install-Recommends "false";\n' >/etc/apt/apt.conf.d/90standin \
 && printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
 && apt-get update -qq
DOCKERFILE
fi

if ! have db; then
    mkdir -p "$work/db"
    # What the entry point of the PostgreSQL images does, as far as this stack uses it.
    cat >"$work/db/docker-entrypoint.sh" <<'SCRIPT'
#!/bin/sh
set -eu
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown -R postgres: "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
# There is no TimescaleDB in Debian; the last setting of a name wins.
set -- "$@" -c shared_preload_libraries=
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust \
        --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >/dev/null
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    shift_first=$1
    shift
    pg_ctl -D "$PGDATA" -w start -o "-c listen_addresses='' $*"
    [ "$POSTGRES_DB" = postgres ] || createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        [ ! -f "$file" ] || psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file"
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    set -- "$shift_first" "$@"
fi
exec "$@"
SCRIPT
    chmod 755 "$work/db/docker-entrypoint.sh"
    # 70: the user of the real image.
    image db <<'DOCKERFILE'
FROM tbg-standin/base
RUN groupadd -g 70 postgres && useradd -u 70 -g 70 -d /var/lib/postgresql postgres \
 && apt-get install -y -qq postgresql-common >/dev/null \
 && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && apt-get install -y -qq postgresql >/dev/null
ENV PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/data
COPY docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN mkdir -p /docker-entrypoint-initdb.d "$PGDATA" && chown postgres: "$PGDATA"
STOPSIGNAL SIGINT
ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]
CMD ["postgres"]
DOCKERFILE
fi

have redis || image redis <<'DOCKERFILE'
FROM tbg-standin/base
RUN groupadd -g 1000 redis && useradd -u 999 -g 1000 -d /data redis \
 && apt-get install -y -qq redis-server >/dev/null && mkdir -p /data && chown redis:redis /data
WORKDIR /data
CMD ["redis-server"]
DOCKERFILE

have proxy || image proxy <<'DOCKERFILE'
FROM tbg-standin/base
RUN groupadd -g 101 nginx && useradd -u 101 -g 101 -d /nonexistent nginx \
 && apt-get install -y -qq nginx-light wget >/dev/null
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
DOCKERFILE

have prometheus || image prometheus <<'DOCKERFILE'
FROM tbg-standin/base
RUN apt-get install -y -qq prometheus >/dev/null && mkdir -p /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
DOCKERFILE

have alertmanager || image alertmanager <<'DOCKERFILE'
FROM tbg-standin/base
RUN apt-get install -y -qq prometheus-alertmanager >/dev/null && mkdir -p /alertmanager && chown 65534:65534 /alertmanager
USER 65534:65534
WORKDIR /alertmanager
ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]
DOCKERFILE

have node-exporter || image node-exporter <<'DOCKERFILE'
FROM tbg-standin/base
RUN apt-get install -y -qq prometheus-node-exporter >/dev/null
USER 65534:65534
ENTRYPOINT ["/usr/bin/prometheus-node-exporter"]
DOCKERFILE

have postgres-exporter || image postgres-exporter <<'DOCKERFILE'
FROM tbg-standin/base
RUN apt-get install -y -qq prometheus-postgres-exporter >/dev/null
USER 65534:65534
ENTRYPOINT ["/usr/bin/prometheus-postgres-exporter"]
DOCKERFILE

if ! have backup; then
    mkdir -p "$work/backup"
    # The part of the backup image that this stack uses: /backup.sh every day at the time of SCHEDULE. Debian's
    # cron wants to be root; a loop does not.
    cat >"$work/backup/init.sh" <<'SCRIPT'
#!/bin/sh
set -u
minute=${SCHEDULE%% *} rest=${SCHEDULE#* }
while true; do
    next=$(date -u -d "today ${rest%% *}:$minute" +%s)
    [ "$next" -gt "$(date +%s)" ] || next=$((next + 86400))
    sleep $((next - $(date +%s)))
    /backup.sh || echo "the backup failed" >&2
done
SCRIPT
    chmod 755 "$work/backup/init.sh"
    # Not the client alone: a base backup is followed by pg_archivecleanup, which comes with the server.
    image backup <<'DOCKERFILE'
FROM tbg-standin/base
RUN apt-get install -y -qq postgresql-common >/dev/null \
 && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && apt-get install -y -qq postgresql >/dev/null
COPY init.sh /init.sh
CMD ["/init.sh"]
DOCKERFILE
fi

# The program as Dockerfile.prod leaves it: same path, user and folders.
mkdir -p "$work/tbg"
cp "$binary" "$work/tbg/tbg"
# binutils may be missing; what is not stripped only takes more space.
strip "$work/tbg/tbg" 2>/dev/null || true
image tbg <<'DOCKERFILE'
FROM tbg-standin/base
COPY tbg /usr/local/bin/tbg
RUN mkdir -p /run/ckpool /var/spool/tbg && chown 65532:65532 /run/ckpool /var/spool/tbg
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/tbg"]
CMD ["serve", "--role", "api"]
DOCKERFILE
