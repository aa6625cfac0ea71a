#!/usr/bin/env bash
# Runs a check and keeps what it prints in backend/results/NAME.txt: before it, what was checked where and when;
# after it, how it ended. `make audit-report` reads these files.
# Usage: scripts/keep.sh NAME 'SHELL COMMAND'
set -uo pipefail
[ $# -eq 2 ] || { echo "usage: keep.sh NAME 'SHELL COMMAND' (is there a single quote in ARGS?)" >&2; exit 2; }
cd "$(dirname "$0")/.."
name=$1 command=$2 file=backend/results/$1.txt
mkdir -p backend/results

commit=$(git log -1 --format=%h 2>/dev/null || echo unknown)
# What the checks themselves write is no change of what is checked.
changed=$(git status --porcelain --untracked-files=no -- . ':!backend/results' ':!backend/SECURITY_AUDIT.md' \
    ':!backend/docs/QUERY_PLANS.md' 2>/dev/null)
[ -z "$changed" ] || commit="$commit and changes"
model=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)
memory=$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
{
    echo "# commit: $commit"
    echo "# date: $(date -u +%Y-%m-%dT%H:%MZ)"
    # What make was given on its command line: a check that was made smaller proves less.
    for argument in ARGS FOR PEOPLE; do [ -z "${!argument:-}" ] || echo "# with: $argument=${!argument}"; done
    echo "# machine: $(nproc) x ${model:-unknown processor}, $memory, $(uname -s) $(uname -m)"
} >"$file"
started=$SECONDS
# tee ignores Ctrl-C, so that who is stopped can still say so.
bash -o pipefail -c "$command" 2>&1 | tee -ia "$file"
code=${PIPESTATUS[0]}
echo "# exit: $code after $((SECONDS - started)) s" >>"$file"
exit "$code"
