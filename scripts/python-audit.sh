#!/usr/bin/env bash
# Known vulnerabilities in the Python packages that tests and tools pin. Run by `make python-audit`. The database comes
# from the internet: where there is none, this says NOT RUN and does not fail.
set -euo pipefail
cd "$(dirname "$0")/../backend"
venv=target/python-audit/venv
[ -x $venv/bin/pip ] || python3 -m venv --clear $venv
# A release that is known to be vulnerable, for which pip-audit fails: where it is not found, silence would mean nothing.
if $venv/bin/pip install -q pip-audit==2.10.1; then
    found=$($venv/bin/pip-audit --disable-pip --no-deps --requirement <(echo requests==2.19.0) 2>&1 || true)
fi
if ! grep -qE 'GHSA|PYSEC' <<<"${found:-}"; then
    echo "NOT RUN: pip-audit. The database of vulnerabilities at pypi.org cannot be asked from here; run this where it can."
    exit 0
fi
for file in tests/loadtest/requirements.txt tests/fuzz_api/requirements.txt monitoring/requirements.txt; do
    echo "$file"
    $venv/bin/pip-audit --strict --disable-pip --no-deps --requirement "$file"
done
