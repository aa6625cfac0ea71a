#!/usr/bin/env bash
# Checks what watches the game: the configurations of Prometheus and Alertmanager, the alerts, their rule tests;
# and that every alert has a severity, a summary, a description, a runbook that exists, and a test by name that
# shows it firing and one that shows it quiet. Needs promtool and amtool: `make alerts-check` installs them.
# Usage: scripts/alerts-check.sh
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in promtool amtool; do
    command -v "$tool" >/dev/null || { echo "alerts-check: $tool is missing: scripts/setup.sh alerts" >&2; exit 1; }
done

dir=backend/monitoring/prometheus
shopt -s nullglob
rules=("$dir"/alerts/*.yml)
tests=("$dir"/tests/*.yml)
if [ ${#rules[@]} -eq 0 ] || [ ${#tests[@]} -eq 0 ]; then
    echo "no rules or no tests under $dir" >&2
    exit 1
fi

promtool check config "$dir/prometheus.yml"
promtool check rules "${rules[@]}"
amtool check-config "$dir/alertmanager.yml"

# Who is told: each severity reaches its own receiver, and Watchdog the dead man's switch.
for route in 'Watchdog none watchdog' 'DatabaseDown critical critical' 'DiskSpaceLow warning warning'; do
    read -r alert severity receiver <<<"$route"
    amtool config routes test --config.file="$dir/alertmanager.yml" --verify.receivers="$receiver" \
        "alertname=$alert" "severity=$severity" >/dev/null 2>&1 || {
        echo "FAIL: $alert does not reach the receiver $receiver" >&2
        exit 1
    }
done

# Alert by alert: the lines from `- alert:` to the next one.
faults=0
fault() {
    echo "FAIL: $*" >&2
    faults=$((faults + 1))
}
# Names of alerts that have a case which fires (exp_labels) or is quiet (`exp_alerts: []`).
cases() {
    awk -v want="$1" '
        $2 == "alertname:" { name = $3 }
        want == "quiet" && $1 == "exp_alerts:" && $2 == "[]" { print name }
        want == "fires" && $2 == "exp_labels:" { print name }
    ' "${tests[@]}" | sort -u
}
fires=$(cases fires)
quiet=$(cases quiet)

alerts=$(awk '$1 == "-" && $2 == "alert:" { print $3 }' "${rules[@]}")
for alert in $alerts; do
    body=$(awk -v alert="$alert" '$1 == "-" && $2 == "alert:" { inside = ($3 == alert) } inside' "${rules[@]}")
    grep -Eq '^ +severity: (critical|warning|none)$' <<<"$body" || fault "$alert has no severity"
    grep -Eq "^ +summary: '.+'$" <<<"$body" || fault "$alert has no summary"
    grep -Eq '^ +description: .*\$value' <<<"$body" || fault "$alert has no description with its value"
    page=backend/docs/runbooks/$alert.md
    grep -Eq "^ +runbook_url: $page\$" <<<"$body" || fault "$alert does not name $page"
    [ -s "$page" ] || fault "$page does not exist"
    grep -qx "$alert" <<<"$fires" || fault "$alert: no rule test shows it firing"
    # What always fires cannot be quiet.
    [ "$alert" = Watchdog ] || grep -qx "$alert" <<<"$quiet" || fault "$alert: no rule test shows it quiet"
done
repeated=$(sort <<<"$alerts" | uniq -d)
[ -z "$repeated" ] || fault "defined twice: $repeated"
for tested in $(sort -u <<<"$fires"$'\n'"$quiet"); do
    grep -qx "$tested" <<<"$alerts" || fault "a rule test names $tested, which is no alert"
done

promtool test rules "${tests[@]}" || fault "rule tests"

if [ "$faults" -gt 0 ]; then
    echo "FAIL: $faults" >&2
    exit 1
fi
checks=$(cat "${tests[@]}" | grep -c 'alertname:')
cases=$(cat "${tests[@]}" | grep -c '^  - name:')
echo "PASS: $(wc -w <<<"$alerts") alerts, $checks checks in $cases cases"
