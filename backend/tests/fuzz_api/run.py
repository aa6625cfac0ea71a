"""Fuzzes every documented operation of a running server, as nobody, as an administrator and as a user.

Environment:
  GAME_BASE_URL     where the server listens, such as http://127.0.0.1:8000
  GAME_PEOPLE       a file with users without rights, one JSON object per line, of which `access` is the token:
                    the first is the user of the run, one more is needed for each operation of DESTRUCTIVE
                    (the first serves for the last of them, and is used up by it)
  GAME_ADMIN_TOKEN  access token of an administrator

Exit code: 0 clean, 1 failures, 2 the run could not be made.
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "negative_data_rejection",
        "unsupported_method",
        "allow_header_conformance",
        "security_headers",
        "error_shape",
        "no_echo",
    ]
)
# Operations whose success takes the token's user or session away: run last, each with its own token.
DESTRUCTIVE = ("POST /api/v1/auth/logout-all", "DELETE /api/v1/users/me")
# Not part of the API.
EXCLUDED_PATHS = ("/metrics",)
# Tells whose a token is, if the document has it.
ME = "/api/v1/users/me"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


class CannotRun(Exception):
    """The run cannot be made, with the reason."""


@dataclass
class Pass:
    """One run of schemathesis."""

    name: str
    token: str
    operations: list


def main():
    arguments = parse_arguments()
    try:
        base_url = setting("GAME_BASE_URL").rstrip("/")
        document = fetch_document(base_url)
        passes = plan(document, arguments.only)
        reports = [run_pass(one, base_url, document, arguments) for one in passes]
    except CannotRun as error:
        print(f"fuzz-api: {error}", file=sys.stderr)
        return 2
    return summarise(document, reports)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Fuzzes the API of a running server.")
    parser.add_argument("--max-examples", type=int, default=50, help="generated requests per operation and phase")
    parser.add_argument("--workers", type=int, default=2, help="requests at a time")
    parser.add_argument("--seed", type=int, help="repeats the run with this seed")
    parser.add_argument("--only", choices=["anonymous", "admin", "user", "destructive"], help="one kind of pass")
    parser.add_argument("--report-dir", type=Path, default=Path("fuzz-api-report"), help="where reports go")
    return parser.parse_args()


def setting(name):
    value = os.environ.get(name, "").strip()
    if not value:
        raise CannotRun(f"{name} is not set")
    return value


def tokens_of(people):
    """The tokens of a file of people, at least one."""
    try:
        tokens = [json.loads(line)["access"] for line in Path(people).read_text().splitlines()]
    except (OSError, ValueError, KeyError) as error:
        raise CannotRun(f"GAME_PEOPLE ({people}) cannot be read: {error}") from error
    if not tokens:
        raise CannotRun(f"GAME_PEOPLE ({people}) holds nobody")
    return tokens


def fetch_document(base_url):
    return fetch(f"{base_url}/openapi.json")[1]


def fetch(url, token=""):
    """Status and JSON of a GET."""
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=35) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        if not token:
            raise CannotRun(f"{url} answers {error.code}") from error
        return error.code, None
    except (OSError, ValueError) as error:
        raise CannotRun(f"{url} cannot be read: {error}") from error


def operations_of(document):
    """METHOD /path of everything documented, in the order of the document."""
    return [
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        if path not in EXCLUDED_PATHS
        for method in item
        if method in METHODS
    ]


def plan(document, only):
    """The passes, those that use tokens up last."""
    every = operations_of(document)
    lasting = [operation for operation in every if operation not in DESTRUCTIVE]
    user, *spare = tokens_of(setting("GAME_PEOPLE"))
    admin = setting("GAME_ADMIN_TOKEN")
    passes = [Pass("anonymous", "", every), Pass("admin", admin, lasting), Pass("user", user, lasting)]
    tokens = spare + [user]
    for number, operation in enumerate(operation for operation in DESTRUCTIVE if operation in every):
        if number < len(tokens):
            passes.append(Pass(f"destructive-{number + 1}", tokens[number], [operation]))
        else:
            print(f"fuzz-api: no token is left for {operation}; it is only tried as nobody")
    return [one for one in passes if only is None or one.name.split("-")[0] == only]


def run_pass(one, base_url, document, arguments):
    """Runs schemathesis once and gives back its report."""
    require_token(one, base_url, document, "before")
    directory = (arguments.report_dir / one.name).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    report = directory / "report.json"
    report.unlink(missing_ok=True)
    print(f"\n== {one.name}: {len(one.operations)} operations", flush=True)
    # The token goes by the environment, where other processes do not see it.
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": str(HERE / "checks.py"),
        "FUZZ_TOKEN": one.token,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    subprocess.run(command(one, base_url, arguments, directory), cwd=directory, env=environment, check=False)
    if one.name in ("admin", "user"):
        require_token(one, base_url, document, "after")
    try:
        return one.name, json.loads(report.read_text())
    except (OSError, ValueError) as error:
        raise CannotRun(f"the pass {one.name} left no report: {error}") from error


def command(one, base_url, arguments, directory):
    parts = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    parts += ["run", f"{base_url}/openapi.json", "--url", base_url]
    parts += ["--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--warnings", "off", "--no-color"]
    parts += ["--max-examples", str(arguments.max_examples), "--workers", str(arguments.workers)]
    parts += ["--report", "json,junit", "--report-json-path", str(directory / "report.json")]
    parts += ["--report-junit-path", str(directory / "junit.xml")]
    if one.token:
        # Else a generated credential would now and then take the place of the token.
        parts += ["--generation-with-security-parameters", "false"]
    if arguments.seed is not None:
        parts += ["--seed", str(arguments.seed)]
    for operation in one.operations:
        parts += ["--include-name", operation]
    return parts


def require_token(one, base_url, document, when):
    """A pass with a dead token would test nothing but 401."""
    if not one.token or ME not in document["paths"]:
        return
    status, me = fetch(f"{base_url}{ME}", one.token)
    if status == 429:
        raise CannotRun(f"the server limits rates: {ME} answers 429 {when} the pass {one.name}")
    if status != 200:
        raise CannotRun(f"the token is not good {when} the pass {one.name}: {ME} answers {status}")
    if one.name == "admin" and not me.get("is_admin"):
        raise CannotRun("GAME_ADMIN_TOKEN is not that of an administrator")


def summarise(document, reports):
    """Prints one line per pass and one for all; the exit code."""
    cases = failures = 0
    print()
    for name, report in reports:
        found = count_failures(report)
        generated = report["test_cases"]["generated"]
        tested = (report["operations"] or {}).get("tested", 0)
        print(f"{name}: {tested} operations, {generated} test cases, {found} failures (seed {report['seed']})")
        for group in report["failures"]:
            print(f"  {group['title']}: {', '.join(map(str, group['operations']))}")
        for group in report["errors"]:
            print(f"  {group['title']}: {group['count']}")
        cases, failures = cases + generated, failures + found
    operations = len(operations_of(document))
    print(f"fuzz-api: {operations} operations, {cases} test cases, {failures} failures")
    return 1 if failures else 0


def count_failures(report):
    """Failures and errors of a pass; a pass that stopped early or left operations out counts as one."""
    found = report["test_cases"]["unique_failures"] + sum(group["count"] for group in report["errors"])
    operations = report["operations"] or {}
    is_whole = report["complete"] and operations.get("tested") == operations.get("selected")
    return found or (0 if is_whole and report["exit_code"] == 0 else 1)


if __name__ == "__main__":
    sys.exit(main())
