#!/usr/bin/env python3
"""SECURITY_AUDIT.md from the results of the checks (contract production.md §17).

    audit_report.py report           takes what is new in backend/results into digest.json there, and writes
                                     backend/SECURITY_AUDIT.md from it
    audit_report.py report --check   fails when the report is not what the committed digest gives, or when it names
                                     a test that does not exist
    audit_report.py tests            runs the tests that backend/tests/standards.toml names (inside with-servers)

A check whose result is missing reads NOT RUN, and then the verdict is no go. Results are kept by scripts/keep.sh.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

BACKEND = Path(__file__).resolve().parent.parent / "backend"
RESULTS = BACKEND / "results"
DIGEST = RESULTS / "digest.json"
REPORT = BACKEND / "SECURITY_AUDIT.md"
TEMPLATE = Path(__file__).with_name("audit_report.template.md")
STANDARDS = BACKEND / "tests/standards.toml"
DOCUMENT = BACKEND / "tests/tests/suite/snapshots/suite__openapi__the_document_is_as_it_was_reviewed.snap"

# Make target, what it proves, and which of its lines the report shows.
CHECKS = [
    ("pentest", "Penetration checklist", r"^\d+ |^NOT RUN|FAILED|^PASS|^FAIL"),
    ("standards", "Tests of the security standards", r"^PASS|^FAIL"),
    ("sql-audit", "SQL scan", r"^PASS|^FAIL"),
    ("deny", "Dependencies of the program", r" ok$| ok,|^NOT RUN"),
    ("python-audit", "Dependencies of tests and tools", r"^No known|^NOT RUN|^Found"),
    ("sbom", "List of what is linked", r"^PASS|^FAIL"),
    ("rate-loops", "Rate limits, the three loops", r" x "),
    ("races", "Races of refresh, lockout and limits", r"^\|"),
    ("query-plans", "Query plans", r"^PASS|^FAIL"),
    ("load", "Load, open loop", r"^\||^PASS|^FAIL|^not there"),
    ("locust", "Load, 1,000 waiting players", r"^PASS|^FAIL"),
    ("ws-stress", "Sockets", r"^PASS|^FAIL"),
    ("chaos", "Chaos", r"^\|"),
    ("backup-test", "Backup and restore", r"^RPO|^RTO|Result:"),
    ("stack-test", "The stack in containers", r"^PASSED|^FAILED|lost|docker inspect|healthy"),
    ("upgrade-test", "Upgrade", r" (ok|FAILED)$"),
    ("alerts-check", "Alerts", r"^PASS|^FAIL"),
    ("panels", "Dashboards", r"^PASS|^FAIL|panels|expressions"),
]
# Tiers of auth-users.md §1.3, requests in 60 seconds.
TIERS = {
    "none": "30 per address",
    "optional": "30 per address, 120 per user, 600 per API key",
    "user": "120 per user, 600 per API key",
    "session": "120 per user",
    "admin": "120 per user",
}
UNCOUNTED = ("/health", "/ready", "/metrics", "/ws")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="write the report")
    report.add_argument("--check", action="store_true", help="only compare")
    commands.add_parser("tests", help="run the tests of the standards")
    given = parser.parse_args()
    standards = tomllib.loads(STANDARDS.read_text())
    if given.command == "tests":
        return run_tests(standards)
    faults = unknown_tests(standards)
    digest = json.loads(DIGEST.read_text()) if DIGEST.exists() else {}
    if not given.check:
        collect(digest)
        DIGEST.write_text(json.dumps(digest, indent=1, ensure_ascii=False) + "\n")
    text = render(digest, standards)
    if given.check and text != REPORT.read_text():
        faults.append(f"{REPORT.name} is not what its sources give: run make audit-report, read it, commit it")
    if not given.check:
        REPORT.write_text(text)
        print(f"written to {REPORT.relative_to(BACKEND.parent)}: {verdict(digest, standards)[0]}")
    for fault in faults:
        print(f"audit-report: {fault}", file=sys.stderr)
    return 1 if faults else 0


# --- results ----------------------------------------------------------------------------------------------


def collect(digest):
    """Takes every result that is there into the digest."""
    for name, _, shown in CHECKS:
        path = RESULTS / f"{name}.txt"
        if not path.exists():
            continue
        lines = path.read_text(errors="replace").splitlines()
        about = dict(line[2:].split(": ", 1) for line in lines if re.match(r"# (commit|date|machine|exit): ", line))
        if not {"commit", "date", "machine"} <= about.keys():
            sys.exit(f"audit-report: {path} is not of scripts/keep.sh: remove it, and run make {name} again")
        about.setdefault("exit", "did not end")
        about["with"] = [line.removeprefix("# with: ") for line in lines if line.startswith("# with: ")]
        body = [line.rstrip() for line in lines if not line.startswith("# ")]
        about["lines"] = [line for line in body if re.search(shown, line)]
        about["not_run"] = [line for line in body if line.startswith("NOT RUN")]
        if name == "standards":
            about["passed"] = sorted({match[1] for line in body if (match := re.match(r"test (\S+) \.\.\. ok", line))})
        digest[name] = about


def outcome(digest, name):
    """PASS, PARTLY, FAIL or NOT RUN."""
    result = digest.get(name)
    if result is None:
        return "NOT RUN"
    if not result["exit"].startswith("0 "):
        return "FAIL"
    return "PARTLY" if result["not_run"] or result["with"] or "changes" in result["commit"] else "PASS"


# --- tests ------------------------------------------------------------------------------------------------


def rows(standards):
    return [row for table in ("owasp", "asvs", "api") for row in standards[table]]


def unknown_tests(standards):
    """Rows without a proof, and proofs that do not exist."""
    faults = []
    sources = {}
    for row in rows(standards):
        if "test" not in row:
            if not row.keys() & {"result", "accepted"}:
                faults.append(f"{row['id']} has no proof")
            continue
        package = row["package"]
        if package not in sources:
            folder = BACKEND / ("tests" if package == "tbg-tests" else f"crates/{package}")
            sources[package] = "\n".join(path.read_text() for path in sorted(folder.rglob("*.rs")))
        name = row["test"].rsplit("::", 1)[-1]
        if not re.search(rf"fn {name}\b", sources[package]):
            faults.append(f"{row['id']}: {package} has no test {row['test']}")
    return faults


def run_tests(standards):
    """Runs each once, and says which passed."""
    wanted = {}
    for row in rows(standards):
        if "test" in row:
            wanted.setdefault(row["package"], set()).add(row["test"])
    passed = 0
    for package, names in sorted(wanted.items()):
        command = ["cargo", "test", "--locked", "--package", package, "--", "--exact", *sorted(names)]
        output = subprocess.run(command, cwd=BACKEND, stdout=subprocess.PIPE, text=True).stdout
        print(output, end="", flush=True)
        ok = set(re.findall(r"^test (\S+) \.\.\. ok", output, re.MULTILINE))
        for name in sorted(names - ok):
            print(f"FAILED or not found: {package} {name}")
        passed += len(names & ok)
    count = sum(map(len, wanted.values()))
    print(f"{'PASS' if passed == count else 'FAIL'}: {passed} of {count} tests")
    return 0 if passed == count else 1


# --- the report -------------------------------------------------------------------------------------------


def verdict(digest, standards):
    """GO, or NO GO with the reasons."""
    reasons = [f"{title} (`make {name}`): {outcome(digest, name)}" + "".join(f". {line}" for line in remarks(digest.get(name, {})))
               for name, title, _ in CHECKS if outcome(digest, name) != "PASS"]
    reasons += [f"{row['id']}: {proof(row, digest)}" for row in rows(standards) if proof(row, digest).startswith(("FAIL", "NOT RUN"))]
    reasons += standards["open"]["items"]
    return ("GO", []) if not reasons else ("NO GO", reasons)


def remarks(result):
    """Why a result is no full proof."""
    smaller = [f"made with {argument}" for argument in result.get("with", [])]
    dirty = ["made of a commit and changes to it"] if "changes" in result.get("commit", "") else []
    return result.get("not_run", []) + smaller + dirty


def proof(row, digest):
    """How a row of the standards is proven."""
    if "accepted" in row:
        return f"accepted: {row['accepted']}"
    if "result" in row:
        return f"{outcome(digest, row['result'])}: `make {row['result']}`"
    passed = digest.get("standards", {}).get("passed")
    state = "NOT RUN" if passed is None else "PASS" if row["test"] in passed else "FAIL"
    return f"{state}: `{row['package']}` `{row['test']}`"


def render(digest, standards):
    state, reasons = verdict(digest, standards)
    parts = {
        "verdict": f"**{state}.**" + ("" if not reasons else " What forbids it:\n\n" + "\n".join(f"- {reason}" for reason in reasons)),
        "checks": table(
            ("Check", "Outcome", "Commit", "Date", "Machine"),
            [(f"{title}, `make {name}`", outcome(digest, name), *(digest.get(name, {}).get(key, "") for key in ("commit", "date", "machine")))
             for name, title, _ in CHECKS],
        ),
        "owasp": table(("", "Risk", "Finding", "Evidence", "Proof"),
                       [(row["id"], row["name"], row["finding"], row["evidence"], proof(row, digest)) for row in standards["owasp"]]),
        "endpoints": table(("Method", "Path", "Auth class", "Limit in 60 s"), endpoints()),
        "asvs": table(("ASVS 5.0.0", "Check", "Proof"), [(row["id"], row["check"], proof(row, digest)) for row in standards["asvs"]]),
        "api": table(("API 2023", "Check", "Proof"), [(row["id"], row["check"], proof(row, digest)) for row in standards["api"]]),
    }
    for name, _, _ in CHECKS:
        lines = digest.get(name, {}).get("lines") or ["NOT RUN"]
        as_table = all(line.startswith("|") for line in lines)
        parts[name] = "\n".join(lines) if as_table else "```\n" + "\n".join(lines) + "\n```"
    text = TEMPLATE.read_text()
    for name in re.findall(r"\{\{([a-z-]+)\}\}", text):
        text = text.replace("{{" + name + "}}", parts[name])
    return text


def table(head, lines):
    cells = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def endpoints():
    """Every route of the reviewed document, and the two that are not in it."""
    document = json.loads(DOCUMENT.read_text().split("---", 2)[2])
    found = [("GET", "/metrics", "none", "not counted; the proxy hides it"), ("GET", "/ws", "access token", "limits of its own (realtime.md §1)")]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            kind = operation["x-auth-class"]
            limit = "not counted" if path in UNCOUNTED else "5 per address" if path.startswith("/api/v1/auth/") else TIERS[kind]
            found.append((method.upper(), path, kind, limit))
    return sorted(found, key=lambda route: (route[1], route[0]))


if __name__ == "__main__":
    sys.exit(main())
