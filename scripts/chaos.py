#!/usr/bin/env python3
"""Breaks the game in every way that its contract names, and shows that nothing is lost and nothing counted twice.

  scripts/chaos.py PATH/TO/tbg [--only NAME,…] [--list] [--results FILE]

Each scenario starts a whole game on free ports, pours numbered shares into the pool's socket, asks over HTTP twice
a second, makes one thing fail for some seconds, ends that, and measures what came of it. Prints a table, writes it
to backend/results/chaos.md as well, and exits with 1 when one scenario failed.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, namedtuple
from datetime import datetime, timezone
from pathlib import Path

from chaos_lib import REPOSITORY, Cluster, NotRun, Server, free_port, until
from chaos_scenarios import SCENARIOS

MINERS = 20
Row = namedtuple("Row", "name expected observed recovery lost doubled verdict")


class Lab:
    """A folder with what all scenarios share: a migrated cluster to copy, a signing key, wallets."""

    def __init__(self, tbg):
        self.tbg = Path(tbg).resolve()
        newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self.pg_bin = newest[-1] if newest else Path(shutil.which("initdb") or "missing").parent
        if not (self.pg_bin / "initdb").exists() or not shutil.which("redis-server"):
            sys.exit("chaos: PostgreSQL or Redis is missing: scripts/setup.sh")
        # PostgreSQL refuses to run as root: there it gets a user and a folder of its own.
        self.pg_user = {}
        if os.getuid() == 0:
            user = "postgres" if subprocess.run(["id", "postgres"], capture_output=True).returncode == 0 else "nobody"
            self.pg_user = {"user": user, "group": subprocess.check_output(["id", "-gn", user], text=True).strip(),
                            "extra_groups": []}
        self.dir = Path(tempfile.mkdtemp(prefix="tbg-chaos-"))
        self.dir.chmod(0o711)
        self.pg_dir = self.dir / "pg"
        self.pg_dir.mkdir()
        self.give(self.pg_dir)

    def prepare(self):
        self.key = self.dir / "key.pem"
        self.key.write_bytes(subprocess.check_output([self.tbg, "keys", "new"]))
        self.key.chmod(0o600)
        wallets = [subprocess.run([self.tbg, "wallet", "new"], check=True, capture_output=True, text=True).stdout
                   for _ in range(MINERS)]
        self.addresses = [re.search(r"address +(\w+)", wallet).group(1) for wallet in wallets]
        self.wallet = self.dir / "wallet"
        self.wallet.write_text(wallets[0])
        self.blank = self.pg_dir / "blank"
        self.pg("initdb", "-D", self.blank, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        # Nothing here outlives the machine, so that nothing needs to reach the disk before it ends.
        with open(self.blank / "postgresql.conf", "a") as conf:
            conf.write("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
                       "shared_buffers = 64MB\nmax_wal_size = 128MB\n")
        with Cluster(self, "first", self.blank) as cluster:
            cluster.sql("CREATE DATABASE tbg TEMPLATE template0", "postgres")
            cluster.stop()
            self.copy(cluster.data, self.pg_dir / "empty")
            cluster.start()
            # As in a deployment: the owner migrates, the program has fewer rights.
            cluster.sql("CREATE ROLE tbg_owner LOGIN; CREATE ROLE tbg_app LOGIN IN ROLE pg_read_all_stats;"
                        "ALTER DATABASE tbg OWNER TO tbg_owner")
            subprocess.run([self.tbg, "migrate"], check=True, capture_output=True,
                           env=self.environment() | {"TBG_DATABASE_URL": cluster.url("tbg_owner")})
            cluster.sql("INSERT INTO users (btc_address) SELECT unnest(string_to_array(:'addresses', ','))",
                        addresses=",".join(self.addresses))
            self.make_partitions(cluster)
            cluster.stop()
            self.copy(cluster.data, self.pg_dir / "migrated")

    def make_partitions(self, cluster):
        """The first run of the jobs makes today's partitions, as in a deployment that has been there for a while."""
        jobs = Server()
        jobs.spawn([self.tbg, "serve", "--role", "jobs"], self.dir / "first.log", self.environment() | {
            "TBG_ENVIRONMENT": "test", "TBG_DATABASE_URL": cluster.url(),
            "TBG_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", "TBG_HTTP_LISTEN": f"127.0.0.1:{free_port()}"})
        made = until(lambda: cluster.sql("SELECT count(*) FROM job_runs WHERE finished_at IS NOT NULL "
                                         "AND job IN ('partitions_retention', 'audit_partitions')") == "2")
        jobs.end(signal.SIGKILL)
        if not made:
            raise RuntimeError((self.dir / "first.log").read_text())
        cluster.sql("DELETE FROM job_runs")

    def environment(self):
        """Without the settings of whoever calls."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("TBG_", "PG"))}

    def give(self, path):
        if self.pg_user:
            subprocess.run(["chown", "-R", f"{self.pg_user['user']}:{self.pg_user['group']}", path], check=True)

    def copy(self, source, target):
        subprocess.run(["cp", "-a", source, target], check=True)

    def pg(self, tool, *words):
        """Runs a tool of PostgreSQL as the server's user."""
        done = subprocess.run([self.pg_bin / tool, *words], capture_output=True, text=True, cwd=self.pg_dir,
                              env=self.environment(), **self.pg_user)
        if done.returncode:
            raise RuntimeError(f"{tool}: {done.stderr}")

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def run(lab, name):
    """One scenario, as a row of the table."""
    expected, scenario = SCENARIOS[name]
    try:
        world = scenario(lab)
    except NotRun as reason:
        return Row(name, expected, f"not run: {reason}", "–", "–", "–", "NOT RUN")
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return Row(name, expected, f"broke off: {error}".replace("\n", " ")[:300], "–", "–", "–", "FAILED")
    observed = "; ".join([*world.notes, *(f"PROBLEM: {problem}" for problem in world.problems)])
    recovery = "never" if world.recovery is None else f"{world.recovery:.1f}"
    return Row(name, expected, observed, recovery, world.lost, world.doubled, "FAILED" if world.problems else "ok")


def report(lab, rows, seconds):
    """The table as Markdown."""
    version = subprocess.check_output([lab.tbg, "--version"], text=True).strip()
    postgres = subprocess.check_output([lab.pg_bin / "postgres", "-V"], text=True).split()[2]
    counts = Counter(row.verdict for row in rows)
    head = ("Scenario", "Expected", "Observed by clients, from the cause to the recovery", "Recovery s", "Lost",
            "Doubled", "Verdict")
    return "\n".join([
        "# Chaos", "",
        f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%MZ}, {version}, PostgreSQL {postgres}, {os.cpu_count()} cores, "
        f"{seconds:.0f} s. {counts['ok']} of {len(rows)} ok, {counts['FAILED']} failed, {counts['NOT RUN']} not run.",
        "Recovery: from the end of the cause until every process is healthy and all that was sent before is applied.",
        "", *("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
              for row in (head, ["---"] * len(head), *rows)), ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tbg", nargs="?", help="the program")
    parser.add_argument("--only", metavar="NAME,…", help="only these scenarios")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "backend/results/chaos.md")
    given = parser.parse_args()
    if given.list:
        for name, (_, scenario) in SCENARIOS.items():
            print(f"{name:18}{' '.join(scenario.__doc__.split())}")
        return
    names = given.only.split(",") if given.only else list(SCENARIOS)
    unknown = set(names) - set(SCENARIOS)
    if unknown or not given.tbg or not os.access(given.tbg, os.X_OK):
        parser.error(f"no such scenario: {', '.join(unknown)}" if unknown else "name the program: PATH/TO/tbg")
    # SIGTERM as Ctrl-C: everything that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    lab, started, rows = Lab(given.tbg), time.monotonic(), []
    try:
        lab.prepare()
        for number, name in enumerate(names, 1):
            print(f"scenario {number} of {len(names)}, {time.monotonic() - started:.0f} s: {name}", file=sys.stderr)
            rows.append(run(lab, name))
            print(f"    {rows[-1].verdict}, recovery {rows[-1].recovery} s; {rows[-1].observed}", file=sys.stderr)
        table = report(lab, rows, time.monotonic() - started)
    finally:
        lab.remove()
    print(table)
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(table)
    sys.exit(any(row.verdict == "FAILED" for row in rows))


if __name__ == "__main__":
    main()
