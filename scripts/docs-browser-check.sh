#!/usr/bin/env bash
# Opens the API page in a real browser and fails on any violation of its Content-Security-Policy.
# Usage: scripts/docs-browser-check.sh http://127.0.0.1:8000   (make docs-check BASE_URL=...)
# Needs chromium (apt-get install chromium; another path: CHROMIUM=...) and a server with the page enabled.
#
# Every operation is opened and put into its "Try it out" form, every model and the Authorize dialog are
# opened, and `GET /health` is executed. Violations are counted by the page's own events. One deliberate
# violation at the end proves that they are seen. About 20 requests: the limit of anonymous callers allows it.
set -euo pipefail
base=${1:?usage: $0 BASE_URL}
base=${base%/}
policy="default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'"
seconds=180

dir=$(mktemp -d)
browser=
trap '[ -z "$browser" ] || { kill "$browser" && wait "$browser"; } 2>/dev/null || true; remove' EXIT
# The browser's children may still write for a moment.
remove() { rm -rf "$dir" 2>/dev/null || { sleep 1; rm -rf "$dir"; } || true; }
fail() { echo "docs-browser-check: $*" >&2; exit 1; }

# The page without its policy would have no violations either.
curl -fsSL -D "$dir/headers" -o /dev/null "$base/docs" || fail "$base/docs does not answer"
sent=$(tr -d '\r' <"$dir/headers" | sed -n 's/^content-security-policy: //Ip' | tail -n 1)
[ "$sent" = "$policy" ] || fail "the policy of /docs is '$sent'"

# The scripts below travel inside JSON strings: no double quotes, no backslashes, no line comments.
watch=$(tr '\n' ' ' <<'JS'
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) =>
    window.violations.push(event.violatedDirective + ' ' + (event.blockedURI || 'inline').slice(0, 80)));
JS
)
visit=$(tr '\n' ' ' <<'JS'
(async () => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const until = async (ready) => { for (let i = 0; i < 300 && !ready(); i++) await pause(100); };
    const click = async (selector) => { for (const it of all(selector)) { it.click(); await pause(20); } };
    await until(() => all('.opblock').length > 0);
    await pause(500);
    await click('.opblock-tag-section:not(.is-open) .opblock-tag');
    await click('.opblock:not(.is-open) .opblock-summary-control');
    await until(() => all('.opblock .try-out__btn').length >= all('.opblock').length);
    await click('.try-out__btn:not(.cancel)');
    await click('.model-box-control[aria-expanded=false], .json-schema-2020-12-accordion');
    await click('.model-example .tablinks');
    const health = all('.opblock-summary-path').find((it) => it.dataset.path === '/health')?.closest('.opblock');
    health?.querySelector('.execute')?.click();
    if (health) await until(() => health.querySelector('.live-responses-table'));
    document.querySelector('.btn.authorize')?.click();
    await pause(1500);
    const found = [...window.violations];
    new Image().src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw=';
    await until(() => window.violations.length > found.length);
    return 'operations=' + all('.opblock').length + ' opened=' + all('.opblock-body').length +
        ' forms=' + all('.try-out__btn.cancel').length + ' executed=' + all('.live-responses-table').length +
        ' dialog=' + all('.dialog-ux').length + ' watched=' + (window.violations.length > found.length) +
        ' violations=' + found.length + '; ' + [...new Set(found)].join('; ');
})()
JS
)

# The DevTools protocol over two pipes: messages are JSON, each ends with a NUL.
mkfifo "$dir/to" "$dir/from"
"${CHROMIUM:-chromium}" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
    --user-data-dir="$dir/profile" --remote-debugging-pipe 3<"$dir/to" 4>"$dir/from" >"$dir/log" 2>&1 &
browser=$!
exec 7<>"$dir/to" 8<>"$dir/from"
id=0
session=
# call METHOD PARAMS: the answer is in $answer.
call() {
    id=$((id + 1))
    printf '{"id":%d,%s"method":"%s","params":%s}\0' "$id" "${session:+\"sessionId\":\"$session\",}" "$1" "$2" >&7
    while :; do
        IFS= read -r -d '' -t "$seconds" answer <&8 || fail "no answer to $1: $(tail -n 3 "$dir/log")"
        [[ $answer != "{\"id\":$id,"* ]] || break
    done
    [[ $answer != "{\"id\":$id,\"error\""* ]] || fail "$1: $answer"
}
field() { sed -E "s/.*\"$1\":\"([^\"]*)\".*/\1/" <<<"$answer"; }

call Target.createTarget '{"url":"about:blank"}'
call Target.attachToTarget "{\"targetId\":\"$(field targetId)\",\"flatten\":true}"
session=$(field sessionId)
call Page.enable '{}'
call Page.addScriptToEvaluateOnNewDocument "{\"source\":\"$watch\"}"
call Page.navigate "{\"url\":\"$base/docs\"}"
call Runtime.evaluate "{\"expression\":\"$visit\",\"awaitPromise\":true,\"returnByValue\":true}"
result=$(field value)
[[ $result == operations=* ]] || fail "the page did not answer: $answer"
echo "$result"
[[ $result != operations=0* ]] || fail "no operation is shown"
number() { sed -E "s/.*\\b$1=([0-9]+).*/\1/" <<<"$result"; }
[ "$(number forms)" = "$(number operations)" ] || fail "not every operation could be opened"
[ "$(number executed)" = 1 ] || fail "GET /health could not be executed"
[[ $result == *" watched=true "* ]] || fail "the deliberate violation was not seen"
[[ $result == *" violations=0; " ]] || fail "the page breaks its policy"
