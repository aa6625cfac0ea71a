#!/usr/bin/env bash
# Installs what the game needs and a bare Debian or Ubuntu lacks: PostgreSQL, Redis, a C toolchain.
# Does nothing, and needs no root, when everything is there.
# Usage: scripts/setup.sh [python|observe|chaos]   python: also Python's virtual environments, for `make fuzz-api`;
# observe: those, Prometheus, Alertmanager and the exporters; chaos: Python, and a library that moves the clock.
set -euo pipefail

have_postgres() {
    local dir
    for dir in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin; do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && return 0
    done
    return 1
}

packages=()
have_postgres || packages+=(postgresql)
command -v redis-server >/dev/null || packages+=(redis-server)
command -v cc >/dev/null || packages+=(build-essential)
command -v cmake >/dev/null || packages+=(cmake)
case ${1:-} in
    '') ;;
    # Debian's python3 comes without ensurepip, and then cannot make a virtual environment.
    python) python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv) ;;
    observe)
        command -v python3 >/dev/null || packages+=(python3)
        python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
        for name in prometheus prometheus-alertmanager prometheus-node-exporter prometheus-postgres-exporter; do
            command -v "$name" >/dev/null || packages+=("$name")
        done
        ;;
    chaos)
        command -v python3 >/dev/null || packages+=(python3)
        command -v faketime >/dev/null || packages+=(faketime)
        ;;
    *) echo "usage: $0 [python|observe|chaos]" >&2 && exit 2 ;;
esac
[ ${#packages[@]} -eq 0 ] && exit 0

echo "Installing: ${packages[*]}"
if ! command -v apt-get >/dev/null; then
    echo "This script installs with apt-get. On this system, install by hand what these packages of Debian" \
        "hold (PostgreSQL must be 15 or newer, Redis 7 or newer): ${packages[*]}" >&2
    exit 1
fi
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
# The game brings its own private cluster: Debian need not make one on port 5432.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    "${sudo[@]}" mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | "${sudo[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq "${packages[@]}"
