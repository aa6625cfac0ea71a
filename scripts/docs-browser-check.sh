#!/usr/bin/env bash
# Opens the API page in a real browser and fails on any violation of its Content-Security-Policy.
# Usage: scripts/docs-browser-check.sh http://127.0.0.1:8000
# `make docs-check` starts a server of its own and runs this script on it (docs-check.sh).
# Needs chromium (apt-get install chromium; another path: CHROMIUM=...) and a server with the page enabled.
#
# All tags are unfolded. The first operation of each tag and method, and `GET /health`, are opened with their
# "Try it out" forms and their models; only `GET /health` is executed. Then up to ten more models and the
# Authorize dialog are opened. Violations are counted by the page's own events; a
# deliberate one at the end proves that they are seen. The page, its parts and its document are counted like
# requests of any anonymous caller, who has 30 a minute: leave a minute between two runs.
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
    const all = (selector, root = document) => [...root.querySelectorAll(selector)];
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const until = async (ready) => { for (let i = 0; i < 100 && !ready(); i++) await pause(100); };
    const click = async (nodes) => { for (const node of nodes) { node.click(); await pause(20); } };
    const accordion = '.model-box-control[aria-expanded=false], .json-schema-2020-12-accordion';
    await until(() => all('.opblock').length > 0);
    await pause(500);
    await click(all('.opblock-tag-section:not(.is-open) .opblock-tag'));
    const kinds = new Map();
    for (const it of all('.opblock')) {
        const path = all('.opblock-summary-path', it)[0].dataset.path;
        const tag = all('.opblock-tag', it.closest('.opblock-tag-section'))[0].dataset.tag;
        const method = all('.opblock-summary-method', it)[0].textContent;
        const kind = path === '/health' ? path : tag + ' ' + method;
        if (!kinds.has(kind)) kinds.set(kind, it);
    }
    let forms = 0;
    let executed = 0;
    for (const [kind, it] of kinds) {
        await click(all('.opblock-summary-control', it));
        await until(() => all('.try-out__btn', it).length > 0);
        await click(all('.try-out__btn', it));
        await click(all(accordion, it));
        await click(all('.model-example .tablinks', it));
        if (kind === '/health') {
            await click(all('.execute', it));
            await until(() => all('.live-responses-table', it).length > 0);
            executed += all('.live-responses-table', it).length;
        }
        forms += all('.try-out__btn.cancel', it).length;
        await click(all('.opblock-summary-control', it));
    }
    await click(all('.models ' + accordion).slice(0, 10));
    await click(all('.btn.authorize'));
    await pause(1000);
    const found = [...window.violations];
    new Image().src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw=';
    await until(() => window.violations.length > found.length);
    return 'operations=' + all('.opblock').length + ' opened=' + kinds.size + ' forms=' + forms +
        ' executed=' + executed + ' dialog=' + all('.dialog-ux').length +
        ' watched=' + (window.violations.length > found.length) +
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
        answer=
        # A read that runs out of time leaves what it has got: the message goes on in the next one.
        until IFS= read -r -d '' -t 1 part <&8; do
            answer+=$part
            kill -0 "$browser" 2>/dev/null || fail "the browser ended: $(tail -n 3 "$dir/log")"
            ((SECONDS < seconds)) || fail "no answer to $1: $(tail -n 3 "$dir/log")"
        done
        answer+=$part
        [[ $answer != "{\"id\":$id,"* ]] || break
        ((SECONDS < seconds)) || fail "no answer to $1: $(tail -n 3 "$dir/log")"
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
[ "$(number forms)" = "$(number opened)" ] || fail "not every form could be opened"
[ "$(number executed)" = 1 ] || fail "GET /health could not be executed"
[[ $result == *" watched=true "* ]] || fail "the deliberate violation was not seen"
[[ $result == *" violations=0; " ]] || fail "the page breaks its policy"
