#!/usr/bin/env bash
# Installs what the game needs and a bare Debian or Ubuntu lacks: PostgreSQL, Redis, a C toolchain.
# Does nothing, and needs no root, when everything is there.
# Usage: scripts/setup.sh [python|observe|chaos|backup|alerts|pentest]   also, for one purpose:
#   python    Python's virtual environments, for `make fuzz-api`
#   observe   those, Prometheus, Alertmanager and the exporters
#   chaos     Python, and a library that moves the clock
#   backup    the tools of a small image, for `make backup-test`
#   alerts    promtool and amtool, and nothing else
#   pentest   sqlmap, for `make pentest`
set -euo pipefail

have_postgres() {
    local dir
    for dir in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin; do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && return 0
    done
    return 1
}

packages=() options=(-o DPkg::Lock::Timeout=300)
# need COMMAND PACKAGE
need() { command -v "$1" >/dev/null || packages+=("$2"); }
need_game() {
    have_postgres || packages+=(postgresql)
    need redis-server redis-server
    need cc build-essential
    need cmake cmake
}
# Debian's python3 comes without ensurepip, and then cannot make a virtual environment.
need_environments() { python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv); }
case ${1:-} in
    '') need_game ;;
    python) need_game && need_environments ;;
    observe)
        need_game
        need python3 python3
        need_environments
        for name in prometheus prometheus-alertmanager prometheus-node-exporter prometheus-postgres-exporter; do
            need "$name" "$name"
        done
        ;;
    chaos) need_game && need python3 python3 && need faketime faketime ;;
    backup) need_game && need busybox busybox ;;
    alerts)
        need promtool prometheus
        need amtool prometheus-alertmanager
        # What Debian recommends are servers.
        options+=(--no-install-recommends)
        ;;
    pentest) need_game && need sqlmap sqlmap ;;
    *) echo "usage: $0 [python|observe|chaos|backup|alerts|pentest]" >&2 && exit 2 ;;
esac
[ ${#packages[@]} -eq 0 ] && exit 0

echo "Installing: ${packages[*]}"
if ! command -v apt-get >/dev/null; then
    echo "This script installs with apt-get. On this system, install by hand what these packages of Debian" \
        "hold (PostgreSQL must be 15 or newer, Redis 7, Prometheus 2.42, Alertmanager 0.25): ${packages[*]}" >&2
    exit 1
fi
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
# The game brings its own private cluster: Debian need not make one on port 5432.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    "${sudo[@]}" mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | "${sudo[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${options[@]}" "${packages[@]}"
# Of what watches the game only the tools are wanted, not the servers that Debian starts with them.
if [ -d /run/systemd/system ]; then
    for name in "${packages[@]}"; do
        [[ $name != prometheus* ]] || "${sudo[@]}" systemctl disable --now --quiet "$name"
    done
fi
