"""What observe.py is made of: the programs it starts, the load it makes, and the two APIs it asks."""

import base64
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MONITORING = REPOSITORY / "backend/monitoring"
# Debian's packages, each with a program of that name.
PACKAGES = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "prometheus-postgres-exporter")
# Production scrapes every 10 s; here somebody waits for the picture.
INTERVAL = "2s"
STOP_PATIENCE_SECONDS = 40


def get(url, timeout=5):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Stack:
    """A whole game and what watches it, each program in a session of its own: Ctrl-C reaches only us."""

    def __init__(self, tbg):
        self.tbg = Path(tbg).resolve()
        if not os.access(self.tbg, os.X_OK):
            sys.exit(f"observe: {tbg} is no program: make a release build first")
        missing = [package for package in PACKAGES if not shutil.which(package)]
        if missing:
            sys.exit(f"observe: install first: apt-get install {' '.join(missing)}")
        # The game has a folder of its own, which it opens to PostgreSQL's user when root runs it.
        self.game_dir = Path(tempfile.mkdtemp(prefix="tbg-observe-game-"))
        self.dir = Path(tempfile.mkdtemp(prefix="tbg-observe-"))
        names = ("tbg", "prometheus", "alertmanager", "node", "postgres")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.children = []

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self):
        started = time.monotonic()
        # Settings of the caller stay outside; each simulated client has an address behind a trusted proxy.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TBG_")}
        environment["TBG_TRUSTED_PROXIES"] = "127.0.0.1/32"
        environment["TBG_BACKUP_STATUS_DIR"] = str(self.dir / "backups/status")
        self.spawn("tbg", [self.tbg, "dev", "--port", self.ports["tbg"], "--dir", self.game_dir, "--miners", "20"],
                   environment)
        self.wait("the game", lambda: get(self.url("tbg") + "/health"), 120)
        told = (self.dir / "tbg.log").read_text()
        self.demo_address = re.search(r"ADDRESS=(\w+)", told).group(1)
        database_url = re.search(r"TBG_DATABASE_URL='([^']+)'", told).group(1)
        self.dump(database_url)
        database = urllib.parse.urlsplit(database_url)
        self.database_sockets = urllib.parse.parse_qs(database.query)["host"][0]
        redis = urllib.parse.urlsplit(re.search(r"TBG_REDIS_URL='([^']+)'", told).group(1))
        self.redis_socket = urllib.parse.unquote(redis.path)

        listen = {name: f"--web.listen-address=127.0.0.1:{port}" for name, port in self.ports.items()}
        source = (f"host={self.database_sockets} port={database.port} user={database.username}"
                  f" dbname={database.path[1:]} sslmode=disable")
        self.spawn("node", ["prometheus-node-exporter", listen["node"], "--no-collector.systemd"])
        self.spawn("postgres", ["prometheus-postgres-exporter", listen["postgres"]],
                   os.environ | {"DATA_SOURCE_NAME": source})
        config = self.write("alertmanager.yml", {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]})
        self.spawn("alertmanager", [
            "prometheus-alertmanager", listen["alertmanager"], "--cluster.listen-address=",
            f"--config.file={config}", f"--storage.path={self.dir / 'alertmanager'}"])
        config = self.write("prometheus.yml", self.prometheus_config())
        self.spawn("prometheus", [
            # An alert that came before Prometheus knew Alertmanager is told again soon, not in a minute.
            "prometheus", listen["prometheus"], "--log.level=warn", "--rules.alert.resend-delay=10s",
            f"--config.file={config}", f"--storage.tsdb.path={self.dir / 'prometheus'}"])
        for name in ("prometheus", "alertmanager"):
            self.wait(name, lambda name=name: get(self.url(name) + "/-/ready"), 30)
        return time.monotonic() - started

    def dump(self, database_url):
        """A real backup, so that its age is known."""
        (self.dir / "database_url").write_text(database_url)
        script = REPOSITORY / "scripts/backup.sh"
        done = subprocess.run([script, "dump", "--url-file", self.dir / "database_url", "--to", self.dir / "backups"],
                              capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"observe: the backup failed\n{done.stderr}")

    def wait(self, what, condition, seconds):
        """Asks until `condition` gives something true, and returns that and the seconds it took."""
        started = time.monotonic()
        while (took := time.monotonic() - started) < seconds:
            ended = [child.args[0] for child in self.children if child.poll() is not None]
            if ended:
                sys.exit(f"observe: {ended[0]} has ended")
            with suppress(OSError):
                if found := condition():
                    return found, time.monotonic() - started
            time.sleep(0.5)
        sys.exit(f"observe: waited {took:.0f} s in vain for {what}")

    def prometheus_config(self):
        """The jobs and alerts of production, asked more often. YAML readers take JSON."""
        jobs = re.findall(r"job_name: *(\S+)", (MONITORING / "prometheus/prometheus.yml").read_text())
        address = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        scrapes = []
        for job in jobs:
            scrape = {"job_name": job, "static_configs": [{"targets": [address[job if job in address else "tbg"]]}]}
            # One process has all roles here: its numbers count once, as the API's.
            if job in ("tbg-ingest", "tbg-jobs"):
                scrape["metric_relabel_configs"] = [{"action": "drop", "source_labels": ["__name__"], "regex": ".+"}]
            scrapes.append(scrape)
        return {
            "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": [str(MONITORING / "prometheus/alerts/*.yml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [address["alertmanager"]]}]}]},
            "scrape_configs": scrapes,
        }

    def write(self, name, config):
        (self.dir / name).write_text(json.dumps(config, indent=2))
        return self.dir / name

    def spawn(self, name, command, environment=None):
        with open(self.dir / f"{name}.log", "wb") as log:
            self.children.append(subprocess.Popen(
                [str(word) for word in command], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.dir, start_new_session=True))

    def stop(self, tell_logs):
        """Ends all that was started, however impatient the caller."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(self.children):
            child.terminate()
        deadline = time.monotonic() + STOP_PATIENCE_SECONDS
        for child in self.children:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if tell_logs:
            for log in sorted(self.dir.glob("*.log")):
                tail = log.read_text(errors="replace").splitlines()[-12:]
                print(f"--- the end of {log.name}", *tail, sep="\n", file=sys.stderr)
        for folder in (self.dir, self.game_dir):
            shutil.rmtree(folder, ignore_errors=True)

    def pids(self, server):
        """The processes of one of the game's private servers."""
        if server == "redis":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(self.redis_socket)
                connection.sendall(b"INFO server\r\n")
                return [int(re.search(rb"process_id:(\d+)", connection.recv(65536)).group(1))]
        [lock] = Path(self.database_sockets).glob(".s.PGSQL.*.lock")
        parent = lock.read_text().split()[0]
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(pid) for pid in [parent, *children]]

    @contextmanager
    def frozen(self, server):
        """Freezes a server: it is there, takes connections, and never answers."""
        pids = self.pids(server)
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def ask(self, target, seconds, step):
        """What a panel's query gives, as (labels, [(time, value)]); raises ValueError with what Prometheus says."""
        path, parameters, now = "query", {"query": target["expr"]}, time.time()
        if not target["instant"]:
            path, parameters = "query_range", parameters | {"start": now - seconds, "end": now, "step": step}
        try:
            answer = get(f"{self.url('prometheus')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", 30)
        except urllib.error.HTTPError as error:
            raise ValueError(json.loads(error.read())["error"]) from None
        return [(each["metric"], [(at, float(value)) for at, value in each.get("values") or [each["value"]]])
                for each in json.loads(answer)["data"]["result"]]

    def prometheus(self, path):
        return json.loads(get(f"{self.url('prometheus')}/api/v1/{path}"))["data"]

    def alerts(self):
        """Names and severities of what Alertmanager holds as firing."""
        found = json.loads(get(f"{self.url('alertmanager')}/api/v2/alerts"))
        return {each["labels"]["alertname"]: each["labels"]["severity"] for each in found}


class User:
    """Somebody who signs in with a throwaway wallet, from an address of its own."""

    def __init__(self, stack, number):
        self.stack, self.token = stack, None
        self.headers = {"X-Forwarded-For": f"10.1.0.{number}", "Content-Type": "application/json"}
        self.address, self.key_file = stack.demo_address, stack.game_dir / "demo_wallet"
        if number:
            self.key_file = stack.dir / f"wallet-{number}"
            self.key_file.write_bytes(self.wallet("new"))
            self.address = re.search(r"address +(\w+)", self.key_file.read_text()).group(1)

    def wallet(self, *words):
        return subprocess.run([self.stack.tbg, "wallet", *words], check=True, capture_output=True).stdout

    def post(self, path, **body):
        url = f"{self.stack.url('tbg')}/api/v1/{path}"
        return get(urllib.request.Request(url, json.dumps(body).encode(), self.headers))

    def sign_in(self):
        self.headers.pop("Authorization", None)
        challenge = self.stack.dir / f"{self.address}.json"
        challenge.write_bytes(self.post("auth/challenge", btc_address=self.address))
        signature = self.wallet("sign", "--key-file", self.key_file, "--challenge", challenge).decode().strip()
        answer = self.post("auth/connect", btc_address=self.address, signature=signature)
        self.token = json.loads(answer)["access_token"]
        self.headers["Authorization"] = f"Bearer {self.token}"


class Load:
    """Requests at a steady rate from a few users and many strangers, and some open sockets."""

    USERS, SOCKETS, THREADS, PER_SECOND = 20, 5, 3, 150
    # A stranger may ask 30 times a minute: with so many of them, a few are refused now and then.
    STRANGERS, STRANGERS_SHARE = 160, 0.7
    OPEN_ROUTES = ("levels", "badges", "lottery/results", "lottery/stats", "dashboard/ws-stats", "nowhere")
    USER_ROUTES = ("mining/stats", "mining/workers", "games/weekly-data", "gamification/state",
                   "gamification/badges", "dashboard/stats", "dashboard/feed", "users/me", "lottery/current")

    def __init__(self, stack):
        self.stack, self.stopped, self.answers = stack, threading.Event(), {}
        self.lock = threading.Lock()
        self.users = [User(stack, number) for number in range(self.USERS)]

    def start(self):
        for user in self.users:
            user.sign_in()
        for user in self.users[::2]:
            user.post("games/play", game_type="hammer")
        for number in range(self.THREADS):
            threading.Thread(target=self._requests, args=[random.Random(number)], daemon=True).start()
        for user in self.users[:self.SOCKETS]:
            threading.Thread(target=self._socket, args=[user], daemon=True).start()

    def _requests(self, dice):
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.ports["tbg"], timeout=5)
        while not self.stopped.wait(dice.expovariate(self.PER_SECOND / self.THREADS)):
            user = None if dice.random() < self.STRANGERS_SHARE else dice.choice(self.users)
            path = dice.choice(self.USER_ROUTES if user else self.OPEN_ROUTES)
            stranger = {"X-Forwarded-For": f"10.2.0.{dice.randrange(self.STRANGERS)}"}
            try:
                connection.request("GET", f"/api/v1/{path}", headers=user.headers if user else stranger)
                answer = connection.getresponse()
                answer.read()
                word = answer.status
                if user and word == 401:
                    with self.lock:
                        user.sign_in()
            except (OSError, http.client.HTTPException):
                connection.close()
                word = "none"
            with self.lock:
                self.answers[word] = self.answers.get(word, 0) + 1

    def _socket(self, user):
        while not self.stopped.wait(1):
            with suppress(OSError, ValueError):
                self._talk(user)

    def _talk(self, user):
        """One WebSocket (RFC 6455): subscribes, reads, answers pings, until it is closed."""
        with socket.create_connection(("127.0.0.1", self.stack.ports["tbg"]), timeout=60) as connection:
            key = base64.b64encode(os.urandom(16)).decode()
            connection.sendall(
                f"GET /ws?token={user.token} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
            stream = connection.makefile("rb")
            if b" 101 " not in stream.readline():
                raise ValueError("no socket")
            while stream.readline().strip():
                pass
            for channel in ("mining", "dashboard", "gamification"):
                send_frame(connection, 1, json.dumps({"action": "subscribe", "channel": channel}).encode())
            while head := stream.read(2):
                length = head[1] & 127
                if length > 125:
                    length = int.from_bytes(stream.read(2 if length == 126 else 8), "big")
                payload = stream.read(length)
                if head[0] & 15 == 8:
                    return
                if head[0] & 15 == 9:
                    send_frame(connection, 10, payload)


def send_frame(connection, opcode, payload):
    """A client's frame; the mask is all zeros, which leaves the payload as it is."""
    connection.sendall(struct.pack("!BBI", 128 | opcode, 128 | len(payload), 0) + payload)
