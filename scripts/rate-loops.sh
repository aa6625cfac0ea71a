#!/usr/bin/env bash
# The three loops of the specification (production.md §2.4), with the default limits, which are those of
# production. Run by `make rate-loops` with the release build, inside with-servers.
# One server serves all three: each loop is counted in a tier of its own, and the last one waits until its
# tier is fresh again. The first LIMIT requests must get the named status, and all later ones 429.
set -euo pipefail
tbg=$1
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT

export TBG_DATABASE_URL=$DATABASE_URL TBG_REDIS_URL=$TBG_TEST_REDIS_URL TBG_LOG_FILTER=error
export TBG_HTTP_LISTEN=127.0.0.1:18432 TBG_ENVIRONMENT=test
api=http://$TBG_HTTP_LISTEN
"$tbg" migrate >/dev/null
"$tbg" keys new >"$dir/key.pem"
export TBG_JWT_PRIVATE_KEY_FILE=$dir/key.pem
"$tbg" serve --role api &
server=$!
until "$tbg" healthcheck >/dev/null 2>&1; do
    # A server that has ended will never answer.
    kill -0 "$server" 2>/dev/null || { echo "rate-loops: the server ended before it answered" >&2; exit 1; }
    sleep 0.02
done

# loop NAME COUNT LIMIT STATUS CURL-ARGUMENTS…
loop() {
    local name=$1 count=$2 limit=$3 status=$4 codes n expected
    shift 4
    codes=$(for ((n = 1; n <= count; n++)); do curl -s -o /dev/null -w '%{http_code}\n' "$@" || true; done |
        uniq -c | awk '{ printf "%s%s x %s", sep, $1, $2; sep = ", " }')
    expected="$limit x $status, $((count - limit)) x 429"
    echo "$name: $codes"
    [ "$codes" = "$expected" ] || { echo "  expected: $expected"; exit 1; }
}

json=(-H 'Content-Type: application/json')
# The sign-in for loop 2 comes before all loops. It spends two requests from the tier of loop 3 (the routes
# under /api/v1/auth), which therefore waits for a fresh window; loops 1 and 2 count elsewhere.
"$tbg" wallet new >"$dir/wallet" 2>/dev/null
address=$(awk '/^address/ {print $2}' "$dir/wallet")
curl -sf "${json[@]}" -d "{\"btc_address\":\"$address\"}" $api/api/v1/auth/challenge >"$dir/challenge.json"
signature=$("$tbg" wallet sign --key-file "$dir/wallet" --challenge "$dir/challenge.json" 2>/dev/null)
token=$(curl -sf "${json[@]}" -d "{\"btc_address\":\"$address\",\"signature\":\"$signature\"}" $api/api/v1/auth/connect |
    sed 's/.*"access_token":"\([^"]*\)".*/\1/')
# 404 until there is education; then 200, as the specification says.
loop "35 x GET /api/v1/education/tracks, anonymous" 35 30 404 $api/api/v1/education/tracks
loop "125 x GET /api/v1/mining/stats, bearer" 125 120 200 -H "Authorization: Bearer $token" $api/api/v1/mining/stats
echo "waiting for a fresh window"
sleep 60
loop "8 x POST /api/v1/auth/connect" 8 5 401 "${json[@]}" -d '{"btc_address":"bc1qtest","signature":"test"}' $api/api/v1/auth/connect
