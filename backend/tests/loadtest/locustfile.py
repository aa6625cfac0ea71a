"""A thousand users who play, as the specification has it (production.md §16).

  locust -f locustfile.py --headless -u 1000 -r 50 -t 30m --csv DIR/locust --html DIR/locust.html

Environment:
  GAME_BASE_URL  where the server listens, such as http://127.0.0.1:8000
  GAME_PEOPLE    optional: a file with one JSON object per line and user, of which `access` is the token and
                 `from` the client address; without it users sign in as the load-test build lets them

Exit code: 0 pass, 1 fail, 2 the run could not be made.
"""

import json
import os
import random
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from locust import FastHttpUser, between, events, task
from locust.exception import StopUser
from locust.runners import LocalRunner

API = "/api/v1"
P95_MS = 200
# The load-test build knows bc1qtest0000 to bc1qtest9999.
TEST_IDENTITIES = 10_000


class CannotRun(Exception):
    """The run cannot be made, with the reason."""


@dataclass(frozen=True)
class Entry:
    """A kind of request, and how often it is made among the others."""

    weight: int
    method: str
    targets: tuple


MIX = (
    Entry(10, "GET", (f"{API}/mining/stats",)),
    Entry(5, "GET", (f"{API}/games/weekly-data",)),
    Entry(3, "GET", tuple(f"{API}/leaderboard/{period}" for period in ("weekly", "monthly", "alltime"))),
    Entry(2, "GET", (f"{API}/notifications?limit=20",)),
    Entry(2, "GET", (f"{API}/education/tracks",)),
    Entry(1, "POST", tuple(f"{API}/education/lessons/{n}/complete" for n in ("1-1", "1-2", "1-3", "2-1", "2-2"))),
    Entry(1, "GET", (f"{API}/gamification/badges",)),
)


class Player(FastHttpUser):
    """One person at the game."""

    wait_time = between(0.5, 2)
    # Filled in before the run; each person serves for one user.
    people, mix, weights = None, [], []
    started = 0

    def on_start(self):
        person = next(Player.people)
        self.headers = {"Authorization": f"Bearer {person.get('access') or self.sign_in(person['address'])}"}
        if "from" in person:
            self.headers["X-Forwarded-For"] = person["from"]
        Player.started += 1

    def sign_in(self, address):
        """The access token. Who gets none cannot play, and the request counts as a failure."""
        answer = self.client.post(f"{API}/auth/connect", json={"btc_address": address, "signature": "test_sig"})
        if answer.status_code != 200:
            raise StopUser
        return answer.json()["access_token"]

    @task
    def play(self):
        [entry] = random.choices(self.mix, self.weights)
        self.client.request(entry.method, random.choice(entry.targets), headers=self.headers)


@events.init.add_listener
def prepare(environment, **_):
    """Finds out what there is to ask for, and who asks."""
    try:
        if not isinstance(environment.runner, LocalRunner):
            raise CannotRun("several processes would share people: run one, without --master, --worker, --processes")
        Player.host = os.environ.get("GAME_BASE_URL", "").strip().rstrip("/")
        if not Player.host:
            raise CannotRun("GAME_BASE_URL is not set: say where the server listens, such as http://127.0.0.1:8000")
        Player.mix = mix_of(fetch_document(Player.host))
        Player.weights = [entry.weight for entry in Player.mix]
        people = read_people(os.environ.get("GAME_PEOPLE", "").strip())
        if len(people) < environment.parsed_options.num_users:
            raise CannotRun(f"there are {len(people)} people for {environment.parsed_options.num_users} users: "
                            "ask for fewer (-u), or list more in GAME_PEOPLE")
        Player.people = iter(people)
    except CannotRun as error:
        print(f"locust: {error}", file=sys.stderr)
        sys.exit(2)


def fetch_document(base_url):
    try:
        with urllib.request.urlopen(f"{base_url}/openapi.json", timeout=35) as response:
            return json.load(response)
    except (OSError, ValueError) as error:
        raise CannotRun(f"{base_url}/openapi.json cannot be read: {error}; is the server running?") from error


def mix_of(document):
    """The entries that the server documents; tells of the others."""
    mix = [entry for entry in MIX if all(is_documented(document, entry.method, target) for target in entry.targets)]
    missing = [f"{entry.method} {' '.join(entry.targets)}" for entry in MIX if entry not in mix]
    if not mix:
        raise CannotRun("the server documents nothing of the mix: is GAME_BASE_URL that of the game?")
    if missing:
        print("left out, for the server does not document it:", *missing, sep="\n  ", flush=True)
    return mix


def is_documented(document, method, target):
    """Whether a path of the document, which may have parameters, leads to the target."""
    words = target.partition("?")[0].split("/")
    for path, item in document["paths"].items():
        template = path.split("/")
        fits = len(template) == len(words) and all(a == b or a.startswith("{") for a, b in zip(template, words))
        if fits and method.lower() in item:
            return True
    return False


def read_people(path):
    """Those of the file, else those whom the load-test build knows."""
    if not path:
        return [{"address": f"bc1qtest{number:04}"} for number in range(TEST_IDENTITIES)]
    try:
        return [json.loads(line) for line in Path(path).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise CannotRun(f"GAME_PEOPLE cannot be read: {error}") from error


@events.quitting.add_listener
def judge(environment, **_):
    """The exit code, and a line with the figures after all that locust prints."""
    total, options = environment.stats.total, environment.parsed_options
    p50, p95, p99 = (total.get_response_time_percentile(part) for part in (0.5, 0.95, 0.99))
    asked = {(method, name) for name, method in environment.stats.entries}
    seconds = time.time() - environment.stats.start_time
    reasons = [f"no request to {entry.method} {' '.join(entry.targets)}" for entry in Player.mix
               if not any((entry.method, target) in asked for target in entry.targets)]
    if total.num_failures:
        reasons.append(f"{total.num_failures} requests failed")
    if environment.runner.exceptions:
        reasons.append(f"{len(environment.runner.exceptions)} errors in this script")
    if p95 >= P95_MS:
        reasons.append(f"p95 is not below {P95_MS} ms")
    if Player.started < options.num_users:
        reasons.append(f"only {Player.started} of {options.num_users} users have played")
    if options.run_time and round(seconds) < options.run_time:
        reasons.append(f"ended before {options.run_time} s were over")
    figures = (f"{Player.started} users, {seconds:.0f} s, {total.num_requests} requests, {total.total_rps:.1f} "
               f"requests/s, p50 {p50} ms, p95 {p95} ms, p99 {p99} ms, {total.num_failures} failures")
    line = f"FAIL: {figures} ({'; '.join(reasons)})" if reasons else f"PASS: {figures}"
    environment.process_exit_code = 1 if reasons else 0
    environment.events.quit.add_listener(lambda exit_code: print(line, flush=True))
