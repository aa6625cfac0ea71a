"""What chaos.py is made of: private servers, the processes of the game, a wire that breaks, load and probes."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, namedtuple
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SHARES_PER_SECOND = 300
# A client that waits longer than this has been left hanging.
HANG_SECONDS = 12
PATIENCE_SECONDS = 45

Answer = namedtuple("Answer", "status headers body seconds")
Probe = namedtuple("Probe", "at program kind status seconds retry_after")


class NotRun(Exception):
    """This machine does not permit the scenario."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until(condition, seconds=PATIENCE_SECONDS, step=0.05):
    """Asks until the answer is true; gives the last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(step)
    return answer


def ask(port, path, token=None, body=None, timeout=HANG_SECONDS):
    """One request. Without an answer the status is the word `none`."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"], body = "application/json", json.dumps(body)
    connection, started = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout), time.monotonic()
    try:
        connection.request("POST" if body else "GET", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        return Answer(answer.status, answer.headers, content, time.monotonic() - started)
    except (OSError, http.client.HTTPException):
        return Answer("none", {}, b"", time.monotonic() - started)
    finally:
        connection.close()


class Server:
    """A process of ours, apart from our terminal: Ctrl-C reaches only the script."""

    child, options = None, {}

    def spawn(self, command, log, env):
        with open(log, "ab") as sink:
            self.child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=sink,
                                          stderr=sink, env=env, cwd="/", start_new_session=True, **self.options)

    def is_running(self):
        return self.child is not None and self.child.poll() is None

    def end(self, number):
        if self.is_running():
            self.child.send_signal(number)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Cluster(Server):
    """A PostgreSQL server on a copy of a prepared folder, or on the folder that `fill` makes."""

    def __init__(self, lab, name, source=None, folder=None, fill=None):
        self.lab, self.options, self.port = lab, lab.pg_user, free_port()
        self.data, self.log = (folder or lab.pg_dir) / name, lab.pg_dir / f"{name}.log"
        if fill:
            fill(self.data)
        else:
            lab.copy(source, self.data)

    def __enter__(self):
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write(f"port = {self.port}\n")
        self.start()
        return self

    def __exit__(self, *_):
        self.end(signal.SIGQUIT)
        shutil.rmtree(self.data, ignore_errors=True)

    def start(self):
        self.log.touch()
        self.spawn([self.lab.pg_bin / "postgres", "-D", self.data], self.log, self.lab.environment())
        ready = [self.lab.pg_bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-d", "postgres"]
        if not until(lambda: subprocess.run(ready).returncode == 0):
            raise RuntimeError(f"PostgreSQL does not start: {self.log.read_text()[-500:]}")

    def stop(self):
        """What `docker stop` does: connections end, the server shuts down in order."""
        self.end(signal.SIGINT)

    def pids(self):
        parent = self.child.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def signal_all(self, number):
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def url(self, role="tbg_app", port=None):
        return f"postgres://{role}@127.0.0.1:{port or self.port}/tbg"

    def psql(self, database="tbg"):
        return [self.lab.pg_bin / "psql", "-XAtqw", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
                "-U", "postgres", "-d", database]

    def sql(self, text, database="tbg", **values):
        """Statements, in which :'name' is a value and :name a number."""
        given = [f"--set={name}={value}" for name, value in values.items()]
        done = subprocess.run(self.psql(database) + given, input=text, capture_output=True, text=True,
                              env=self.lab.environment())
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr}")
        return done.stdout.strip()


class Redis(Server):
    """A Redis with the rules of the deployment."""

    def __init__(self, folder):
        self.dir, self.port = folder / "redis", free_port()
        self.dir.mkdir()
        rules = [line for line in (REPOSITORY / "backend/redis.conf").read_text().splitlines()
                 if line.startswith(("save", "append", "maxmemory", "zset-max"))]
        self.conf = folder / "redis.conf"
        self.conf.write_text("\n".join([*rules, f"port {self.port}", "bind 127.0.0.1", f"dir {self.dir}", ""]))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end(signal.SIGKILL)

    def start(self):
        self.spawn(["redis-server", self.conf], self.dir.parent / "redis.log", None)
        until(lambda: self.is_running() and self.answers())

    def answers(self):
        with suppress(OSError, RuntimeError):
            return self.commands(["PING"]) == ["PONG"]

    def commands(self, *commands):
        """Sends commands, reads their answers of one line."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            for words in commands:
                parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
                body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
                connection.sendall(b"*%d\r\n%s" % (len(parts), body))
            stream, answers = connection.makefile("rb"), []
            for _ in commands:
                line = stream.readline().decode().strip()
                if line.startswith("-"):
                    raise RuntimeError(f"Redis: {line}")
                answers.append(stream.readline().decode().strip() if line.startswith("$") else line[1:])
            return answers


class Wire:
    """A connection to a server that can stall (packets vanish, nobody is told), break (resets), and heal."""

    def __init__(self, target):
        self.target, self.transports = target, set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *_):
        self.cut()
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _open(self):
        self.flows = asyncio.Event()
        self.flows.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def stall(self):
        """What was under way arrives after the healing, as with TCP."""
        self.loop.call_soon_threadsafe(self.flows.clear)

    def heal(self):
        self.loop.call_soon_threadsafe(self.flows.set)

    def cut(self):
        self._do(self._cut())

    async def _cut(self):
        for transport in list(self.transports):
            transport.abort()

    async def _serve(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            # As a load balancer whose server is gone: the client is let in and sent away.
            writer.transport.abort()
            return
        transports = {writer.transport, far_writer.transport}
        self.transports |= transports
        pumps = [asyncio.create_task(self._pump(*pair)) for pair in ((reader, far_writer), (far_reader, writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for transport in transports:
            transport.abort()
        self.transports -= transports

    async def _pump(self, reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                await self.flows.wait()
                writer.write(data)
                await writer.drain()


class Program(Server):
    """One `tbg serve`."""

    def __init__(self, world, name):
        self.world, self.name, self.role = world, name, name.split("-")[0]
        self.port, self.log, self.may_be_down = free_port(), world.logs / f"{name}.log", False

    def start(self):
        env = self.world.settings(self.name) | {"TBG_HTTP_LISTEN": f"127.0.0.1:{self.port}"}
        self.spawn([self.world.lab.tbg, "serve", "--role", self.role], self.log, env)
        self.may_be_down = False

    def kill(self):
        self.may_be_down = True
        self.end(signal.SIGKILL)

    def is_healthy(self):
        return ask(self.port, "/health").status == 200


class Pool:
    """The mining pool. Each share has a number, which is its difficulty: so each can be found again."""

    FIRST = 1001

    def __init__(self, path, addresses):
        self.path, self.addresses, self.sent, self.next = str(path), addresses, [], self.FIRST
        # Changed by scenarios: the pool's clock, which datagrams it loses, another way to deliver.
        self.clock_offset, self.loses, self.deliver = 0, lambda number: False, self.datagram
        self.may_send, self.rests = True, False
        self.stopped, self.thread = threading.Event(), threading.Thread(target=self.run, daemon=True)

    def share(self, number):
        user = self.addresses[number % len(self.addresses)]
        data = {"user": user, "worker": f"{user}.rig", "diff": 512.0, "sdiff": float(number), "accepted": True}
        return {"region": "eu-west", "event": "share_submitted", "ts": round(time.time() + self.clock_offset, 6),
                "source": "hosted", "data": data}

    def run(self):
        self.socket = None
        started = time.monotonic()
        while not self.stopped.wait(0.01):
            self.rests = not self.may_send
            if self.rests:
                started = time.monotonic() - (self.next - self.FIRST) / SHARES_PER_SECOND
            while self.may_send and self.next - self.FIRST < (time.monotonic() - started) * SHARES_PER_SECOND:
                if not self.loses(self.next) and self.deliver(self.share(self.next)):
                    self.sent.append(self.next)
                self.next += 1

    def datagram(self, share):
        """Waits where the pool would drop: what never reached the program is not the program's to lose."""
        line = json.dumps(share).encode()
        while not self.stopped.is_set():
            try:
                if not self.socket:
                    self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self.socket.settimeout(1)
                    self.socket.connect(self.path)
                self.socket.send(line)
                return True
            except OSError:
                self.socket.close()
                self.socket = None
                self.stopped.wait(0.02)
        return False

    def pause(self):
        self.may_send = False
        until(lambda: self.rests)

    def stop(self):
        self.stopped.set()
        self.thread.join()


class World:
    """A whole game on free ports, with a pool that sends and clients that ask, and what is measured about it."""

    # Sums over the tables that a share passes through; each must be the number of shares that were sent.
    TOTALS = """SELECT jsonb_build_object(
        'shares', (SELECT count(*) FROM shares), 'distinct shares', (SELECT count(DISTINCT share_diff) FROM shares),
        'ledger', (SELECT count(*) FROM ingest_ledger), 'events', (SELECT count(*) FROM mining_events),
        'hourly_shares', (SELECT coalesce(sum(total), 0) FROM hourly_shares),
        'user_daily_stats', (SELECT coalesce(sum(total_shares), 0) FROM user_daily_stats),
        'user_gamification', (SELECT coalesce(sum(total_shares), 0) FROM user_gamification))"""
    XP = """SELECT count(*) FROM (SELECT user_id, sum(amount) AS xp FROM xp_ledger GROUP BY user_id) AS ledger
        FULL JOIN user_gamification USING (user_id) WHERE coalesce(xp, 0) <> coalesce(total_xp, 0)"""

    def __init__(self, lab, name, programs="api-1 api-2 ingest jobs-1", wired="", settings=None, folder=None):
        self.lab, self.name, self.dir, self.extra = lab, name, lab.dir / name, settings or {}
        self.dir.mkdir(mode=0o755)
        self.redis, self.logs = Redis(self.dir), folder or self.dir
        self.spool = self.logs / "spool"
        self.database = Cluster(lab, name, lab.pg_dir / "migrated", folder)
        # The processes in `wired` reach the database by a wire that the scenario can break.
        self.wire, self.wired = Wire(self.database.port), wired.split()
        self.pool = Pool(self.dir / "events.sock", lab.addresses)
        self.programs = {program: Program(self, program) for program in programs.split()}
        self.apis = [program for program in self.programs.values() if program.role == "api"]
        self.problems, self.notes, self.probes, self.clients = [], [], [], []
        self.stopped = threading.Event()
        self.lost = self.doubled = self.recovery = None

    def settings(self, program=""):
        port = self.wire.port if program in self.wired else None
        return self.lab.environment() | {
            "TBG_ENVIRONMENT": "test", "TBG_DATABASE_URL": self.database.url(port=port),
            "TBG_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0", "TBG_JWT_PRIVATE_KEY_FILE": str(self.lab.key),
            "TBG_EVENT_SOCKET_PATH": self.pool.path, "TBG_SPOOL_DIR": str(self.spool),
            "TBG_LOTTERY_SALT_KEY": "5a" * 32, "TBG_RATE_LIMIT_USER_PER_MIN": "6000"} | self.extra

    def __enter__(self):
        with ExitStack() as stack:
            stack.push(self.tell_logs)
            for server in (self.database, self.redis, self.wire):
                stack.enter_context(server)
            stack.callback(self.end_programs)
            for program in self.programs.values():
                program.start()
            if not until(self.is_healthy):
                raise RuntimeError("the game does not start")
            self.token = self.sign_in()
            self.pool.thread.start()
            for program in self.apis:
                for kind, path in (("health", "/health"), ("read", "/api/v1/users/me")):
                    self.clients.append(threading.Thread(target=self.probe, args=(program, kind, path), daemon=True))
                    self.clients[-1].start()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self.stopped.set()
        self.pool.stopped.set()
        self.stack.__exit__(*error)

    def tell_logs(self, error, *_):
        if error or self.problems:
            for program in self.programs.values():
                lines = [line[:300] for line in program.log.read_text(errors="replace").splitlines()
                         if " INFO http_request" not in line]
                print(f"--- the end of {program.log.name}", *lines[-5:], sep="\n", file=sys.stderr)

    def end_programs(self):
        for program in self.programs.values():
            program.kill()

    def tbg(self, *words):
        return subprocess.run([self.lab.tbg, *words], capture_output=True, text=True, env=self.settings())

    def sign_in(self):
        port, address, file = self.apis[0].port, self.lab.addresses[0], self.dir / "challenge.json"
        file.write_bytes(ask(port, "/api/v1/auth/challenge", body={"btc_address": address}).body)
        signed = self.tbg("wallet", "sign", "--key-file", self.lab.wallet, "--challenge", file).stdout.strip()
        answer = ask(port, "/api/v1/auth/connect", body={"btc_address": address, "signature": signed})
        return json.loads(answer.body)["access_token"]

    def probe(self, program, kind, path):
        """One client that asks twice a second, or as soon as it has been answered."""
        while not self.stopped.is_set():
            at = time.monotonic()
            answer = ask(program.port, path, self.token if kind == "read" else None)
            self.probes.append(Probe(at, program.name, kind, answer.status, answer.seconds,
                                     answer.headers.get("Retry-After")))
            self.stopped.wait(max(0.0, 0.5 - answer.seconds))

    def is_healthy(self):
        return all(program.is_healthy() for program in self.programs.values() if not program.may_be_down)

    def expect(self, is_so, problem):
        if not is_so:
            self.problems.append(problem)

    @contextmanager
    def fault(self, settle=1.5):
        """The cause, after a while of ordinary life. What was sent until its end must be there when it is over."""
        time.sleep(settle)
        self.began = time.monotonic()
        yield
        self.ended, self.sent_until = time.monotonic(), self.pool.next

    def is_applied(self):
        """Whether all shares that were sent until the cause ended are in the database."""
        due = sum(number < self.sent_until for number in list(self.pool.sent))
        return due <= int(self.database.sql("SELECT count(DISTINCT share_diff) FROM shares WHERE share_diff < :next",
                                            next=self.sent_until))

    def recover(self):
        """Waits until all is well, measures how long that took, ends the load and counts."""
        if until(lambda: self.is_healthy() and self.is_applied()):
            self.recovery = time.monotonic() - self.ended
        self.expect(self.recovery is not None, "did not recover")
        self.expect((self.recovery or 0) < 10, "recovery takes 10 s or more")
        time.sleep(1)
        self.pool.stop()
        self.stopped.set()
        for client in self.clients:
            client.join(HANG_SECONDS)
        self.count()
        dead = [name for name, program in self.programs.items() if not program.may_be_down and not program.is_running()]
        self.expect(not dead, f"ended by itself: {', '.join(dead)}")

    def count(self):
        sent = len(self.pool.sent)
        totals = until(lambda: (found := self.totals())["distinct shares"] >= sent and found, 15) or self.totals()
        self.lost = max(0, *(sent - total for total in totals.values()))
        self.doubled = max(0, *(total - sent for total in totals.values()))
        self.expect(self.lost == self.doubled == 0, f"{sent} sent, found {totals}")
        self.expect(self.database.sql(self.XP) == "0", "experience differs from its ledger")

    def totals(self):
        return json.loads(self.database.sql(self.TOTALS))

    def statuses(self, kind, programs=""):
        """What clients saw from the beginning of the cause until the recovery."""
        until_then = self.ended + (self.recovery or PATIENCE_SECONDS)
        seen = [probe for probe in list(self.probes) if probe.kind == kind and self.began <= probe.at <= until_then
                and probe.program in (programs.split() or self.programs)]
        return Counter(probe.status for probe in seen), max((probe.seconds for probe in seen), default=0), seen

    def expect_answers(self, allowed, longest, programs=""):
        """Clients saw only these statuses, none waited longer, and a 503 said when to come back."""
        for kind in ("health", "read"):
            counts, slowest, seen = self.statuses(kind, programs)
            words = " ".join(f"{status}×{n}" for status, n in sorted(counts.items(), key=str))
            self.notes.append(f"{kind} {words}, longest {slowest:.1f} s")
            self.expect(set(counts) <= allowed, f"{kind}: a status other than {sorted(allowed, key=str)}")
            self.expect(slowest <= longest, f"{kind}: an answer took {slowest:.1f} s, more than {longest} s")
        late = [probe for probe in seen if probe.status == 503 and not 1 <= int(probe.retry_after or 0) <= 5]
        self.expect(not late, f"{len(late)} times 503 without Retry-After of 1 to 5 s")
