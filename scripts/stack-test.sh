#!/usr/bin/env bash
# Deploys the production stack and breaks it a little (contract production.md §15, §2.3 number 1). The stack
# file is the real one; only image names are others (backend/deploy/standin.override.yml). Run by
# `make stack-test`, as root, on a machine whose swarm nobody else uses. Everything is removed at the end.
# Usage: scripts/stack-test.sh [--binary FILE] [--update-delay 30s] [--requests 100000] [--keep]
#   --keep   leaves the stack running, to look around
set -euo pipefail
cd "$(dirname "$0")/.."

binary=backend/target/release/tbg delay=30s wanted=100000 keep=
while [ $# -gt 0 ]; do
    case $1 in
        --binary) binary=$2 && shift ;;
        --update-delay) delay=$2 && shift ;;
        --requests) wanted=$2 && shift ;;
        --keep) keep=1 ;;
        *) echo "usage: $0 [--binary FILE] [--update-delay 30s] [--requests 100000] [--keep]" >&2 && exit 2 ;;
    esac
    shift
done
for tool in docker wrk curl openssl python3; do
    command -v "$tool" >/dev/null || { echo "stack-test: $tool is missing" >&2; exit 1; }
done

stack=tbgtest
work=$(mktemp -d)
results=backend/results/stack.txt
mkdir -p backend/results
export TBG_SECRETS_DIR=$work/secrets TBG_HTTP_PORT=${TBG_HTTP_PORT:-18080} TBG_HTTPS_PORT=${TBG_HTTPS_PORT:-18443}
export TBG_UPDATE_DELAY=$delay TBG_DOMAIN=thebitcoingame.com
# A small machine may not allow more.
limit=$(ulimit -Hn)
[ "$limit" = unlimited ] || [ "$limit" -ge 65536 ] || export TBG_OPEN_FILES=$limit
http=http://127.0.0.1:$TBG_HTTP_PORT https=https://127.0.0.1:$TBG_HTTPS_PORT
daemon= swarm_is_ours= deployed= load=

cleanup() {
    set +e
    # shellcheck disable=SC2046
    [ -z "$load" ] || kill $load 2>/dev/null
    if [ -n "$deployed" ] && [ -z "$keep" ]; then
        docker stack rm "$stack" >/dev/null 2>&1
        for _ in $(seq 90); do
            [ -z "$(docker ps -aq --filter "label=com.docker.stack.namespace=$stack")" ] && break
            sleep 1
        done
        docker volume ls -q --filter "label=com.docker.stack.namespace=$stack" | xargs -r docker volume rm >/dev/null 2>&1
    fi
    if [ -z "$keep" ]; then
        [ -z "$swarm_is_ours" ] || docker swarm leave --force >/dev/null 2>&1
        [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

now() { date +%s.%N; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.1f", to - from }'; }
bad=0
# row VERDICT CHECK OBSERVED
row() {
    printf '%-5s %-58s %s\n' "$1" "$2" "$3" | tee -a "$work/table"
    [ "$1" != FAIL ] || bad=1
}
# check CHECK OBSERVED CONDITION…
check() {
    local name=$1 observed=$2
    shift 2
    if "$@"; then row ok "$name" "$observed"; else row FAIL "$name" "$observed"; fi
}
at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'; }
healthy() { docker ps -q --filter "label=com.docker.swarm.service.name=${stack}_$1" --filter health=healthy; }
tasks() { docker service ps --no-trunc --filter desired-state=running --format '{{.Name}} {{.ID}}' $(docker service ls -q) | sort; }
container() { docker ps -q --filter "label=com.docker.swarm.service.name=${stack}_$1" | head -n 1; }
code() { curl -sk -o /dev/null -m 10 -w '%{http_code}' "$@" || true; }
# wait_until SECONDS COMMAND…
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}
replicas_healthy() { [ "$(healthy api | wc -l)" -ge "$1" ]; }
# sockets FILE: holds two sockets open with the token in FILE until it is told to stop, comes back after each
# close, and says with which codes they were closed.
sockets() {
    exec python3 - "$TBG_HTTPS_PORT" "$1" <<'PYTHON'
import base64, os, signal, socket, ssl, struct, sys, threading, time

port, token = int(sys.argv[1]), open(sys.argv[2]).read().strip()
codes, is_open = [], [False, False]


def connect():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=60))
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall((f"GET /ws?token={token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                  f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n").encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise OSError("closed in the handshake")
        head += byte
    if b" 101 " not in head:
        raise OSError(head.split(b"\r\n")[0].decode())
    return sock


def exactly(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise OSError("closed without a code")
        data += part
    return data


def until_closed(sock):
    while True:
        first, length = exactly(sock, 2)
        if length == 126:
            length = struct.unpack(">H", exactly(sock, 2))[0]
        elif length == 127:
            length = struct.unpack(">Q", exactly(sock, 8))[0]
        body = exactly(sock, length)
        if first & 15 == 9:
            sock.sendall(bytes([0x8A, 0x80 | length, 0, 0, 0, 0]) + body)
        elif first & 15 == 8:
            return struct.unpack(">H", body[:2])[0]


def hold(n):
    while True:
        try:
            sock = connect()
            is_open[n] = True
            code = until_closed(sock)
            # The other half of the closing handshake.
            sock.sendall(bytes([0x88, 0x82, 0, 0, 0, 0]) + struct.pack(">H", code))
            sock.close()
            codes.append(str(code))
        except (OSError, ValueError) as error:
            print(error, flush=True)
            if is_open[n]:
                codes.append("lost")
        is_open[n] = False
        time.sleep(2)


def report(*_):
    print(f"closed {' '.join(codes) or 'never'}; open again {sum(is_open)} of 2", flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, report)
for n in range(2):
    threading.Thread(target=hold, args=(n,), daemon=True).start()
while True:
    time.sleep(1)
PYTHON
}
serves() { [ "$(code "$https/health")" = 200 ]; }

if ! docker info >/dev/null 2>&1; then
    echo "starting dockerd"
    # With the settings that the stack file asks for. Among mounts of its own, where / is shared, as systemd has it:
    # node-exporter wants to hear of new ones.
    unshare --mount --propagation shared dockerd --no-new-privileges --userland-proxy=false >"$work/dockerd.log" 2>&1 &
    daemon=$!
    wait_until 30 docker info >/dev/null 2>&1 || { tail "$work/dockerd.log" >&2; exit 1; }
fi
if [ "$(docker info -f '{{.Swarm.LocalNodeState}}')" = inactive ]; then
    docker swarm init --advertise-addr 127.0.0.1 >/dev/null
    swarm_is_ours=1
fi
[ -z "$(docker service ls -q)" ] || { echo "stack-test: this swarm has services; the test wants one of its own" >&2; exit 1; }
# Before version 25 Docker looks at a new container for the first time after the whole interval.
version=$(docker version -f '{{.Server.Version}}')
if [ "${version%%.*}" -lt 25 ]; then
    export TBG_HEALTH_INTERVAL=${TBG_HEALTH_INTERVAL:-2s}
fi

scripts/standin-images.sh "$binary"
backend/deploy/make-secrets.sh "$work/secrets" "$binary" 2>/dev/null
openssl rand -hex 24 >"$work/secrets/smtp_password"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=api.$TBG_DOMAIN" -addext "subjectAltName=IP:127.0.0.1" \
    -keyout "$work/secrets/tls_key" -out "$work/secrets/tls_cert" 2>/dev/null
chmod 644 "$work"/secrets/*

echo
echo "Docker $version, update delay $delay, health interval ${TBG_HEALTH_INTERVAL:-10s}"
started=$(now)
deployed=1
stack_deploy() { docker stack deploy --resolve-image never -c backend/docker-compose.prod.yml -c backend/deploy/standin.override.yml "$stack"; }
check "without the versions of configs nothing is deployed" "$(stack_deploy 2>&1 | tail -n 1 | grep -o 'see the head of this file')" test -z "$(docker service ls -q)"
eval "$(backend/deploy/config-versions.sh)"
deploy() { stack_deploy >"$work/deploy.log" 2>&1 || { cat "$work/deploy.log" >&2; exit 1; }; }
deploy
if ! wait_until 180 replicas_healthy 2 || ! wait_until 60 serves; then
    row FAIL "2 replicas of the API are healthy" "not within 180 s"
    docker service ls >&2
    for service in migrate db redis api proxy; do
        echo "== $service" >&2
        docker service ps --no-trunc --format '{{.Name}} {{.CurrentState}} {{.Error}}' "${stack}_$service" | head -n 4 >&2
        docker service logs --tail 8 "${stack}_$service" >&2 2>&1 || true
    done
    exit 1
fi
row ok "2 replicas of the API healthy, /health 200 through the proxy" "$(since "$started") s after the deployment"

everything_runs() { [ -z "$(docker service ls --format '{{.Name}} {{.Replicas}}' | grep -vE '_(migrate|grafana) ' | awk '{ split($2, n, "/"); if (n[1] != n[2]) print }')" ]; }
wait_until 60 everything_runs || true
check "every other service runs" "$(docker service ls --format '{{.Name}} {{.Replicas}}' | sed "s/^${stack}_//" | sort | tr '\n' ' ')" everything_runs
check "ingest and jobs are healthy" "$(healthy ingest | wc -l) and $(healthy jobs | wc -l)" \
    wait_until 60 eval '[ -n "$(healthy ingest)" ] && [ -n "$(healthy jobs)" ]'

# A config is named after its content: an alert that changes restarts Prometheus, and nothing else.
tasks >"$work/tasks"
restarted() { tasks | comm -13 "$work/tasks" - | sed "s/^${stack}_//; s/[. ].*//" | sort -u | tr '\n' ' '; }
ALERTS_YML_VERSION=changed deploy
wait_until 60 eval '[ "$(restarted)" = "prometheus " ]' || true
sleep 2
check "a changed alert restarts" "$(restarted)" test "$(restarted)" = "prometheus "

# -- only one door --------------------------------------------------------------------------------------
published=$(docker service inspect $(docker service ls -q) -f '{{.Spec.Name}}:{{range .Endpoint.Ports}}{{.PublishedPort}} {{end}}' | grep -E ':[0-9]' | sed "s/^${stack}_//" || true)
check "only the proxy publishes ports" "$published" test "$published" = "proxy:$TBG_HTTP_PORT $TBG_HTTPS_PORT "
hidden=
for path in /metrics /ready /metrics/ //metrics /%6detrics /./ready '/ready?x=1' /grafana/metrics; do hidden+="$(code --path-as-is "$https$path") "; done
check "/metrics and /ready are hidden, spellings too" "$hidden" test "$hidden" = "404 404 404 404 404 404 404 404 "
check "plain HTTP is sent to HTTPS" "$(code "$http/health")" test "$(code "$http/health")" = 301
moved=$(curl -sk -o /dev/null -w '%{redirect_url}' "$https/grafana")
check "/grafana is sent to /grafana/ on the same port" "$moved" test "$moved" = "$https/grafana/"
# Where Docker's own proxy listens, it lends all clients by IPv6 one address.
if grep -q '^0*1 ' /proc/net/if_inet6 2>/dev/null; then
    check "nobody comes in by IPv6 under Docker's own address" "$(code "https://[::1]:$TBG_HTTPS_PORT/health")" \
        test "$(code "https://[::1]:$TBG_HTTPS_PORT/health")" = 000
fi
# answer CURL-ARGUMENT…: status, how many of the seven security headers there are, and the code of an error.
answer() {
    curl -ski -m 10 --http1.1 "$@" | tr -d '\r' | awk -F '"' '
        NR == 1 { split($0, status, " ") }
        tolower($0) ~ /^(strict-transport-security|x-content-type-options|x-frame-options|x-xss-protection|referrer-policy|permissions-policy|content-security-policy):/ { n++ }
        /^{"detail":/ { code = " " $8 }
        END { print status[2] " " n + 0 code }'
}
check "seven security headers on an answer of the API" "$(answer "$https/health")" test "$(answer "$https/health")" = "200 7"
# own EXPECTED CURL-ARGUMENT…: what the proxy says itself has them too, and the shape of the API's errors.
own() { check "the proxy's own: ${*:2}" "$(answer "${@:2}")" test "$(answer "${@:2}")" = "$1"; }
own "404 7 NOT_FOUND" "$https/metrics"
own "404 7 NOT_FOUND" "$https/grafana/metrics"
own "405 7 METHOD_NOT_ALLOWED" -X TRACE "$https/health"
own "405 7 METHOD_NOT_ALLOWED" -X TRACE "$http/health"
own "501 7 NOT_IMPLEMENTED" -H "Transfer-Encoding: gzip" "$http/health"
own "301 7 MOVED" "$http/health"
own "301 7 MOVED" "http://127.0.0.1:$TBG_HTTPS_PORT/health"
check "a socket without a token is refused by the API" "$(code --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "$https/ws")" \
    test "$(code --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "$https/ws")" = 401

# -- secrets --------------------------------------------------------------------------------------------
ids=$(docker ps -aq --filter "label=com.docker.stack.namespace=$stack")
# shellcheck disable=SC2086
{
    docker inspect $ids
    docker service inspect $(docker service ls -q)
    docker secret inspect $(docker secret ls -q)
    docker config inspect $(docker config ls -q) -f '{{printf "%s" .Spec.Data}}'
} >"$work/inspect"
leaks=0 values=0
for file in "$work"/secrets/*; do
    # Of a key in lines, each line counts; the frame of PEM and the words of the ACL are no secrets.
    while IFS= read -r line; do
        [ ${#line} -ge 16 ] && [[ $line != -----* ]] || continue
        values=$((values + 1))
        ! grep -qF -- "$line" "$work/inspect" || { leaks=$((leaks + 1)); echo "  leaks: $(basename "$file")"; }
    done < <(tr ' ' '\n' <"$file"; echo)
done
check "no secret in docker inspect (containers, services, configs)" "$leaks of $values values found" test "$leaks" -eq 0

rights=$(docker inspect $(healthy api | head -n 1) -f '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}} {{.HostConfig.Memory}}')
check "API: read-only, no capability, 512 MB" "$rights" grep -q '^true \[ALL\] .* 536870912$' <<<"$rights"
running=$(docker ps -q --filter "label=com.docker.stack.namespace=$stack" | wc -l)
bound=$(for id in $(docker ps -q --filter "label=com.docker.stack.namespace=$stack"); do docker exec "$id" cat /proc/1/status; done | grep -c '^NoNewPrivs:[[:space:]]*1$' || true)
check "no new privileges (/etc/docker/daemon.json)" "$bound of $running containers" test "$bound" -eq "$running"

# -- what the parts say of each other ---------------------------------------------------------------------
in_db() { docker exec -u postgres "$(container db)" psql -XAtqU postgres -d tbg -c "$1"; }
archived() { [ "$(in_db "SELECT archived_count > 0 AND failed_count = 0 FROM pg_stat_archiver")" = t ]; }
in_db "SELECT pg_switch_wal()" >/dev/null || true
wait_until 30 archived || true
check "the write-ahead log is archived" "$(in_db "SELECT archived_count || ' archived, ' || failed_count || ' failed' FROM pg_stat_archiver")" archived
# By name: without one, it would wait for 03:00 on a Sunday.
# The path comes on standard output, words on standard error; Docker does not keep their order.
dump=$(docker exec "$(container backup)" /backup.sh dump 2>&1 | tail -n 2 || true)
check "the backup service makes its dump" "${dump//$'\n'/, }" grep -q '^/backups/.*\.dump$' <<<"$dump"
base=$(docker exec "$(container backup)" /backup.sh base 2>&1 | tail -n 2 || true)
check "and its base backup" "${base//$'\n'/, }" grep -q '^/backups/base-' <<<"$base"
powers=$(in_db "SELECT string_agg(DISTINCT usename, ' ') FROM pg_stat_activity WHERE application_name IS NOT NULL AND datname = 'tbg' AND usename LIKE 'tbg%'")
check "the program is no owner of its tables" "logins: $powers" eval '[[ " $powers " == *" tbg_service "* && $powers != *owner* ]]'
targets() { docker exec "$(container prometheus)" promtool query instant http://localhost:9090 "$1" 2>/dev/null | sed -nE 's/.*=> ([0-9]+) .*/\1/p' || true; }
all_up() { [ "$(targets 'count(up == 1)')" = 7 ] && [ -z "$(targets 'count(up == 0)')" ]; }
wait_until 60 all_up || true
check "Prometheus reaches 2 x api, ingest, jobs, exporters, itself" "$(targets 'count(up == 1)') of $(targets 'count(up)') targets" all_up

# -- a rolling update under load --------------------------------------------------------------------------
# Through the proxy, over TLS. /health counts in no limit; beside it a public route as often as the limit of one
# address allows.
"$binary" wallet new >"$work/wallet" 2>/dev/null
address=$(awk '/^address/ { print $2 }' "$work/wallet")
json=(-sk -m 10 -H 'Content-Type: application/json')
curl "${json[@]}" -d "{\"btc_address\":\"$address\"}" "$https/api/v1/auth/challenge" >"$work/challenge.json"
signature=$("$binary" wallet sign --key-file "$work/wallet" --challenge "$work/challenge.json" 2>/dev/null || true)
curl "${json[@]}" -d "{\"btc_address\":\"$address\",\"signature\":\"$signature\"}" "$https/api/v1/auth/connect" |
    sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' >"$work/token"
sockets "$work/token" >"$work/sockets" 2>&1 &
sockets_pid=$!

old=$(healthy api | sort | tr '\n' ' ')
wrk -t1 -c16 -d900s --timeout 10s "$https/health" >"$work/wrk" 2>&1 &
wrk_pid=$!
(while true; do code "$https/version"; echo; sleep 2.2; done) >"$work/public" 2>/dev/null &
public_pid=$!
load="$wrk_pid $public_pid $sockets_pid"
sleep 2
started=$(now)
docker service update --force --detach "${stack}_api" >"$work/update.log" 2>&1 || true
update_state() { docker service inspect "${stack}_api" -f '{{.UpdateStatus.State}}'; }
update_ended() { [ "$(update_state)" != updating ]; }
sleep 1
wait_until 300 update_ended || true
updated=$(since "$started") state=$(update_state)
# The last old replica may still be stopping.
sleep 5
# Before it is stopped, it must have had the time for all requests: at least 1,000 a second are expected.
sleep "$(awk -v wanted="$wanted" -v went="$(since "$started")" 'BEGIN { left = wanted / 2000 - went; print (left > 0 ? left : 0) }')"
kill -INT "$wrk_pid" && wait "$wrk_pid" || true
kill "$public_pid" "$sockets_pid" 2>/dev/null || true
wait "$sockets_pid" || true
load=
new=$(healthy api | sort | tr '\n' ' ')
both_new() { for id in $old; do [[ $new != *$id* ]] || return 1; done; [ "$(wc -w <<<"$new")" -eq 2 ]; }
check "rolling update ends with two new replicas" "$state after $updated s" eval '[ "$state" = completed ] && both_new'
requests=$(awk '/requests in/ { print $1 }' "$work/wrk")
refused=$(awk '/Non-2xx/ { print $NF }' "$work/wrk")
broken=$(sed -nE 's/.*Socket errors: connect ([0-9]+), read ([0-9]+), write ([0-9]+), timeout ([0-9]+).*/\1 \2 \3 \4/p' "$work/wrk" | awk '{ print $1 + $2 + $3 + $4 }')
failed=$((${refused:-0} + ${broken:-0}))
check "requests lost in the update" "$failed of $requests ($(awk '/Requests\/sec/ { print $2 }' "$work/wrk") a second)" \
    eval '[ "$failed" -eq 0 ] && [ "${requests:-0}" -ge "$wanted" ]'
public=$(grep -c . "$work/public" || true) public_bad=$(grep -vc '^200$' "$work/public" || true)
check "GET /version meanwhile, as often as its limit allows" "$public_bad failed of $public" eval '[ "$public_bad" -eq 0 ] && [ "$public" -gt 0 ]'
told=$(tail -n 1 "$work/sockets")
check "sockets are told to come back, and do" "$told" grep -qE '^closed( 1001)+; open again 2 of 2' <<<"$told"

# -- a replica dies ------------------------------------------------------------------------------------------
wrk -t1 -c4 -d25s --timeout 10s "$https/health" >"$work/wrk" 2>&1 &
load=$!
sleep 1
victim=$(healthy api | head -n 1)
started=$(now)
docker kill "$victim" >/dev/null
gone() { ! healthy api | grep -q "$victim"; }
wait_until 10 gone || true
if wait_until 60 replicas_healthy 2; then back=$(since "$started"); else back=60; fi
wait "$load" || true
load=
check "a killed replica is replaced and healthy in < 10 s" "$back s" at_most "$back" 9.99
row info "requests meanwhile (a kill may cost what was in flight)" \
    "$(awk '/Non-2xx/ { bad = $NF } /Socket errors/ { gsub(",", ""); bad += $4 + $6 + $8 + $10 } /requests in/ { n = $1 } END { printf "%d failed of %d", bad, n }' "$work/wrk")"

# -- the address of a client ------------------------------------------------------------------------------------
# Whatever it claims to be, it is one client: the limit of 30 a minute holds.
codes=
for n in $(seq 40); do codes+="$(code -H "X-Forwarded-For: 203.0.113.$n" -H "Forwarded: for=203.0.113.$n" "$https/version") "; done
check "made-up X-Forwarded-For does not help against the limit" "$(tr ' ' '\n' <<<"$codes" | grep . | sort | uniq -c | awk '{ printf "%s x %s  ", $1, $2 }')" \
    eval '[ "$(grep -o 429 <<<"$codes" | wc -l)" -ge 10 ]'

# -- no token in the log of the proxy -------------------------------------------------------------------------
# While the last replica stops, and when there is none: both are errors that nginx writes with the whole request.
secret=$(openssl rand -hex 16) known=$(openssl rand -hex 16)
docker service scale --detach "${stack}_api=0" >/dev/null
codes=
for _ in $(seq 60); do
    codes+="$(code "$https/ws?token=$secret") $(code "$https/health?$known") "
    sleep 0.2
done
own "503 7 SERVICE_UNAVAILABLE" "$https/health"
# The access log is written once a second.
sleep 2
docker logs "$(container proxy)" >"$work/proxy.log" 2>&1
tokens=$(grep -cF -e "$secret" -e "$(cat "$work/token")" "$work/proxy.log" || true)
errors=$(grep -c "\[error\].*$known" "$work/proxy.log" || true)
sockets_seen=$(grep -c '"path":"/ws","status":503' "$work/proxy.log" || true)
check "tokens of /ws in the proxy's log while the API is gone" "$tokens; other errors $errors, /ws with 503 $sockets_seen times" \
    eval '[ "$tokens" -eq 0 ] && [ -s "$work/token" ] && [ "$errors" -gt 0 ] && [ "$sockets_seen" -gt 0 ]'

# -- mail by another provider ------------------------------------------------------------------------------------
# Last: no mail leaves this machine, but the role that sends must start with these settings, and read these secrets.
export TBG_SES_REGION=eu-central-1
for name in resend_api_key ses_access_key ses_secret_key; do openssl rand -hex 16 >"$TBG_SECRETS_DIR/$name"; done
for provider in resend ses; do
    docker stack deploy --resolve-image never -c backend/docker-compose.prod.yml -c backend/deploy/standin.override.yml \
        -c "backend/deploy/mail-$provider.yml" "$stack" >"$work/deploy.log" 2>&1 || cat "$work/deploy.log" >&2
    sends_by() { healthy jobs | xargs -r docker inspect -f '{{json .Config.Env}}' | grep -q "TBG_EMAIL_PROVIDER=$provider"; }
    wait_until 90 sends_by || true
    check "the role that mails starts with mail-$provider.yml" "$(healthy jobs | wc -l) healthy" sends_by
done

{
    echo "Stack test of $(date -u +%FT%TZ), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "Docker $version, stand-in images of Debian packages, update delay $delay, health interval ${TBG_HEALTH_INTERVAL:-10s}"
    echo
    cat "$work/table"
    echo
    if [ "$bad" -eq 0 ]; then echo "PASSED"; else echo "FAILED"; fi
} >"$results"
echo
tail -n 1 "$results"
echo "written to $results"
exit "$bad"
