"""The scenarios of chaos.py: each starts a world, makes one thing fail in it, and says what must hold."""

import json
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from chaos_lib import REPOSITORY, SHARES_PER_SECOND, Cluster, NotRun, Program, World, ask, until

# How long an orchestrator waits before it replaces a process (docker-compose.prod.yml: 2 s).
RESTART_DELAY_SECONDS = 2


def api_killed(lab):
    """Cause: one of two API replicas is killed. Expected: the other serves, the killed one is back within 10 s."""
    with World(lab, "api-killed") as world:
        with world.fault():
            world.apis[0].kill()
        time.sleep(RESTART_DELAY_SECONDS)
        world.apis[0].start()
        world.recover()
        world.expect_answers({200}, 3, "api-2")
        return world


def database_stopped(lab):
    """Cause: PostgreSQL is stopped for 6 s. Expected: 503 with Retry-After of at most 5 s, no process exits."""
    with World(lab, "database-stopped") as world:
        with world.fault():
            world.database.stop()
            time.sleep(6)
            world.database.start()
        world.recover()
        world.expect_answers({200, 503}, 6)
        world.expect(world.statuses("read")[0][503], "no client saw 503")
        return world


def redis_stopped(lab):
    """Cause: Redis is stopped for 6 s. Expected: reads go on, 30 anonymous requests a minute and replica pass and no
    more, boards are stale but there, the spool takes the events."""
    with World(lab, "redis-stopped") as world:
        with world.fault():
            world.redis.end(signal.SIGTERM)
            time.sleep(2)
            for program in world.apis:
                answers = [ask(program.port, "/api/v1/levels") for _ in range(35)]
                counts = Counter(answer.status for answer in answers)
                world.expect(counts == {200: 30, 429: 5}, f"{program.name} let anonymous requests pass: {dict(counts)}")
                world.expect(all("X-RateLimit-Limit" in answer.headers for answer in answers), "limits without headers")
                board = ask(program.port, "/api/v1/lottery/current", world.token)
                world.expect(board.status == 200, f"a board answers {board.status}")
            spooled = sum(file.stat().st_size for file in world.spool.glob("*.ndjson"))
            world.expect(spooled, "the spool is empty")
            world.notes.append(f"30 of 35 anonymous requests passed per replica, {spooled // 1000} kB spooled")
            time.sleep(3)
            world.redis.start()
        world.recover()
        world.expect_answers({200, 503}, 6)
        world.expect(set(world.statuses("read")[0]) == {200}, "reads failed")
        return world


def packets_dropped(lab):
    """Cause: for 8 s, packets between the API and PostgreSQL vanish without a reset. Expected: 503 within 5 s, no
    client hangs; ingest, which has its own way, goes on."""
    with World(lab, "packets-dropped", wired="api-1 api-2") as world:
        with world.fault():
            world.wire.stall()
            time.sleep(8)
            world.sent_until = world.pool.next - 2 * SHARES_PER_SECOND
            world.expect(world.is_applied(), "ingest is more than 2 s late")
            world.wire.heal()
        world.recover()
        world.expect_answers({200, 503}, 5.5)
        world.expect(world.statuses("read")[0][503], "no client saw 503")
        return world


def disk_full(lab):
    """Cause: the disk of PostgreSQL's tables, of the spool and of the logs is full for 6 s. The write-ahead log has a
    disk of its own: without that, PostgreSQL shuts down, which is the scenario of the stopped database. Expected:
    log lines are lost, reads go on, writes answer 503, events wait."""
    with small_disk(lab) as disk, World(lab, "disk-full", folder=disk) as world:

        def play():
            return ask(world.apis[1].port, "/api/v1/games/play", world.token, {"game_type": "hammer"})

        with world.fault():
            fill(disk)
            time.sleep(1)
            written = play()
            world.expect(written.status == 503, f"a write answers {written.status}")
            time.sleep(5)
            (disk / "ballast").unlink()
        world.recover()
        world.expect(play().status == 200, "the write is still refused")
        world.expect_answers({200}, 5)
        world.notes.append(f"a write {written.status}")
        return world


@contextmanager
def small_disk(lab):
    """A file system of its own, with the tables on it and the write-ahead log elsewhere."""
    disk, log = lab.dir / "small", lab.pg_dir / "wal"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m,mode=711", "tmpfs", disk], capture_output=True)
    if done.returncode:
        raise NotRun("this user may not mount a file system")
    template = lab.pg_dir / "migrated"
    try:
        lab.give(disk)
        (template / "pg_wal").rename(log)
        (template / "pg_wal").symlink_to(log)
        yield disk
    finally:
        if log.exists():
            (template / "pg_wal").unlink()
            log.rename(template / "pg_wal")
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk):
    """Takes the last byte."""
    with open(disk / "ballast", "wb", buffering=0) as ballast:
        for size in (1 << 20, 4096):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError:
                continue


def clock_moved(lab):
    """Cause: the clocks of the program and the pool go 1 h ahead, then to 1 h behind, then right again. Expected: a
    token ends when its time is over by that clock, and one from the future is no reason to refuse; each job runs once
    per scheduled time, and goes on after each step."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if not library:
        raise NotRun("needs libfaketime: apt-get install faketime")
    hand = lab.dir / "hand"
    hand.write_text("+0")
    # Tokens of half an hour, so that an hour ahead leaves no doubt. An expired one makes its owner a stranger, and all
    # of our clients one and the same.
    fake = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(hand), "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1", "TBG_JWT_ACCESS_TTL_SECONDS": "1800", "TBG_RATE_LIMIT_UNAUTH_PER_MIN": "6000"}
    with World(lab, "clock", settings=fake) as world:

        def ask_me():
            return [ask(program.port, "/api/v1/users/me", world.token).status for program in world.apis]

        with world.fault():
            move_clock(world, hand, 3600)
            seen = ask_me()
            world.expect(seen == [401, 401], f"an hour ahead, an old token gives {seen}")
            move_clock(world, hand, -3600)
            seen = ask_me()
            world.expect(seen == [200, 200], f"an hour behind, a token of the future gives {seen}")
            move_clock(world, hand, 0)
        world.recover()
        again = world.database.sql("""SELECT string_agg(format('%s of %s, attempt %s, %s', job, scheduled_at::TIME,
            attempt, coalesce(error, 'no error')), '; ') FROM job_runs WHERE attempt <> 1 OR error IS NOT NULL""")
        world.expect(not again, f"jobs ran again or failed: {again}")
        world.expect_answers({200, 401}, 5)
        return world


def move_clock(world, hand, offset):
    """Steps the clock, and waits for the next run of a job that is due every 15 s. The processes see the hand move
    within a second, each at its own moment: the pool rests meanwhile, because it shares the clock of the program."""
    world.pool.pause()
    time.sleep(1)
    hand.write_text(f"{offset:+d}")
    time.sleep(2)
    world.pool.clock_offset, world.pool.may_send = offset, True
    now = time.time() + offset
    ran = until(lambda: world.database.sql(
        "SELECT 1 FROM job_runs WHERE job = 'gauges' AND finished_at IS NOT NULL "
        "AND scheduled_at BETWEEN to_timestamp(:now) AND to_timestamp(:now + 30)", now=now), 20, 0.5)
    world.expect(ran, f"no job ran in the 20 s after the clock went to {offset:+d} s")


def redis_memory(lab):
    """Cause: Redis may use 1 MB only, for 6 s. Expected: no 500; the limiter counts by itself, the spool takes the
    events."""
    with World(lab, "redis-memory") as world:
        with world.fault():
            world.redis.commands(["CONFIG", "SET", "maxmemory", "1mb"])
            time.sleep(6)
            spooled = sum(file.stat().st_size for file in world.spool.glob("*.ndjson"))
            fallback = [b"tbg_rate_limit_fallback_active 1" in ask(program.port, "/metrics").body
                        for program in world.apis]
            world.redis.commands(["CONFIG", "SET", "maxmemory", "1gb"])
        world.recover()
        world.expect(spooled, "the spool is empty")
        world.expect(all(fallback), "the limiter did not count by itself")
        world.notes.append(f"{spooled // 1000} kB spooled, limiter counted in {sum(fallback)} of 2 replicas")
        world.expect_answers({200, 503}, 6)
        return world


def restore(lab):
    """Cause: the database is gone for good. Expected: the latest dump comes back into a fresh cluster, the program
    starts on it and goes on, the audit log verifies. The pool rests from the dump to the loss: what came between is
    in no dump."""
    with World(lab, "restore", "api-1 api-2 ingest") as world:
        # Older than a minute, so that the first run of the jobs seals them.
        world.database.sql("""INSERT INTO audit_log (timestamp, action, resource_type, resource_id)
            SELECT now() - INTERVAL '20 minutes' + n * INTERVAL '1 second', 'auth.login', 'user', n::TEXT
            FROM generate_series(1, 200) AS n""")
        world.programs["jobs-1"] = Program(world, "jobs-1")
        world.programs["jobs-1"].start()
        sealed = until(lambda: world.database.sql("SELECT count(*) FROM audit_seals") != "0", 75, 0.5)
        world.expect(sealed, "the audit log was not sealed")
        world.pool.pause()
        world.sent_until = world.pool.next
        until(world.is_applied)
        source, scripts = world.dir / "source_url", REPOSITORY / "scripts"
        source.write_text(world.database.url("postgres"))
        subprocess.run([scripts / "backup.sh", "dump", "--url-file", source, "--to", world.dir / "backups"],
                       check=True, capture_output=True)
        [dump] = (world.dir / "backups").glob("*.dump")
        with Cluster(lab, "restored", lab.pg_dir / "empty") as fresh:
            with world.fault(settle=0):
                world.database.signal_all(signal.SIGKILL)
                world.database.child.wait()
                world.end_programs()
                started, target = time.monotonic(), world.dir / "target_url"
                target.write_text(fresh.url("postgres"))
                restored = subprocess.run([scripts / "restore.sh", "dump", dump, "--target-url-file", target],
                                          capture_output=True, text=True)
                world.expect(restored.returncode == 0, f"restore.sh: {restored.stderr[-300:]}")
                fresh.sql("ALTER ROLE tbg_app LOGIN")
                world.notes.append(f"restored in {time.monotonic() - started:.1f} s")
                original, world.database = world.database, fresh
            world.pool.may_send = True
            for program in world.programs.values():
                program.start()
            world.recover()
            verified = world.tbg("audit", "verify")
            world.expect(verified.returncode == 0, f"tbg audit verify: {verified.stdout}{verified.stderr}")
            world.notes.append("tbg audit verify exits with " + str(verified.returncode))
            world.database = original
        return world


def datagrams_lost(lab):
    """Cause: half of the datagrams are lost on their way for 5 s; these count as not sent. Expected: those that
    arrive are counted once, as if nothing had been."""
    with World(lab, "datagrams-lost") as world:
        dice, dropped = random.Random(1), []
        with world.fault():
            world.pool.loses = lambda number: dice.random() < 0.5 and not dropped.append(number)
            time.sleep(5)
            world.pool.loses = lambda number: False
        world.recover()
        world.notes.append(f"{len(dropped)} of {len(world.pool.sent) + len(dropped)} datagrams lost")
        world.expect_answers({200}, 3)
        return world


def entries_doubled(lab):
    """Cause: for 5 s each share is in the stream twice, and all of these once more at the end. Expected: each counts
    once."""
    with World(lab, "entries-doubled") as world:
        entries = []

        def deliver(share):
            words = ["XADD", "mining:share_submitted", "*", "event", share["event"], "ts", repr(share["ts"]), "source",
                     share["source"], "data", json.dumps(share["data"]), "region", share["region"]]
            entries.append(words)
            return world.redis.commands(words, words)

        with world.fault():
            world.pool.deliver = deliver
            time.sleep(5)
            world.pool.deliver = world.pool.datagram
            time.sleep(0.2)
            world.redis.commands(*entries)
        world.recover()
        world.notes.append(f"{len(entries)} shares were in the stream three times")
        world.expect_answers({200}, 3)
        return world


def failover(lab):
    """Cause: the primary is killed, its standby is promoted and gets the traffic. The standby is synchronous, so that
    what was acknowledged is on it. Expected: 503 until then, nothing that was committed is lost."""
    with World(lab, "failover", wired="api-1 api-2 ingest jobs-1") as world:
        primary = world.database

        def replicate(data):
            lab.pg("pg_basebackup", "-D", data, "-c", "fast",
                   "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
            (data / "standby.signal").touch()
            with open(data / "postgresql.conf", "a") as conf:
                conf.write(f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres "
                           "application_name=standby'\n")

        with Cluster(lab, "standby", fill=replicate) as standby:
            primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            primary.sql("SELECT pg_reload_conf()")
            state = "SELECT sync_state FROM pg_stat_replication"
            world.expect(until(lambda: primary.sql(state) == "sync"), "the standby is not synchronous")
            with world.fault():
                primary.signal_all(signal.SIGKILL)
                primary.child.wait()
                time.sleep(3)
                standby.sql("SELECT pg_promote()")
                world.wire.target, world.database = standby.port, standby
                world.wire.cut()
            world.recover()
            world.expect_answers({200, 503}, 6)
            world.database = primary
        return world


def draw_killed(lab):
    """Cause: the process that draws the week's lottery is killed in the middle of the draw. Expected: another process
    draws, once: one result per entry, experience once, and the public file verifies."""
    due = {"TBG_LOTTERY_FREEZE_GRACE_SECONDS": "1", "TBG_LOTTERY_REVEAL_DELAY_SECONDS": "1"}
    with World(lab, "draw-killed", "api-1 api-2 ingest", settings=due) as world:
        week = world.database.sql("""
            WITH players AS (INSERT INTO users (btc_address) SELECT 'bc1qdraw' || n FROM generate_series(1, 5000) AS n
                             RETURNING id, btc_address),
                 week AS (SELECT date_trunc('week', now() AT TIME ZONE 'UTC')::DATE - 7 AS monday),
                 bests AS (INSERT INTO weekly_best_diff
                               (user_id, btc_address, week_start, best_difficulty, best_share_time, total_shares)
                           SELECT id, btc_address, monday, 1e6 + id, monday + INTERVAL '1 day', 10 FROM players, week)
            SELECT to_char(monday, 'IYYY"-W"IW') FROM week""")
        # A share of this week shows that all of the last one have been seen: the week is frozen. The draw is left.
        until(lambda: world.database.sql("SELECT 1 FROM lottery_watermark"))
        frozen = world.tbg("lottery", "run-due")
        world.expect("processing" in frozen.stdout, f"the week is not frozen: {frozen.stdout}{frozen.stderr}")
        time.sleep(1)
        # Whoever draws waits for this lock, in the middle of its transaction.
        lock = subprocess.Popen(world.database.psql(), stdin=subprocess.PIPE, text=True, env=lab.environment())
        lock.stdin.write("BEGIN; LOCK TABLE lottery_results IN SHARE MODE;\n")
        lock.stdin.flush()
        time.sleep(0.5)
        with world.fault():
            for name in ("jobs-1", "jobs-2"):
                world.programs[name] = Program(world, name)
                world.programs[name].start()
            waits = "SELECT 1 FROM pg_locks WHERE relation = 'lottery_results'::REGCLASS AND NOT granted"
            world.expect(until(lambda: world.database.sql(waits)), "nobody draws")
            leader = world.database.sql("SELECT leased_by FROM job_runs "
                                        "WHERE job = 'lottery_cycle' AND finished_at IS NULL").rpartition("-")[2]
            for program in world.programs.values():
                if str(program.child.pid) == leader:
                    program.kill()
            lock.communicate("COMMIT;\n")
        world.recover()
        is_drawn = "SELECT 1 FROM lottery_draws WHERE week_iso = :'week' AND status = 'completed'"
        drawn = until(lambda: world.database.sql(is_drawn, week=week), 75, 0.5)
        world.notes.append(f"drawn by another process {time.monotonic() - world.ended:.0f} s later")
        world.expect(drawn, "the week is not drawn")
        paid = ("SELECT (SELECT count(*) FROM lottery_results WHERE xp_awarded > 0), "
                "(SELECT count(*) FROM xp_ledger WHERE source = 'competition')")
        until(lambda: len(set(world.database.sql(paid).split("|"))) == 1, 20)
        entries, results, to_pay, was_paid = world.database.sql("""
            SELECT total_participants, (SELECT count(*) FROM lottery_results WHERE draw_id = d.id),
                   (SELECT sum(xp_awarded) FROM lottery_results WHERE draw_id = d.id),
                   (SELECT sum(amount) FROM xp_ledger WHERE source = 'competition')
            FROM lottery_draws d WHERE week_iso = :'week'""", week=week).split("|")
        world.expect(entries == results == "5000", f"{entries} entries, {results} results")
        world.expect(to_pay == was_paid, f"{to_pay} XP awarded, {was_paid} XP in the ledger")
        world.expect(world.database.sql(world.XP) == "0", "experience differs from its ledger")
        file = world.dir / "draw.json"
        file.write_bytes(ask(world.apis[0].port, f"/api/v1/lottery/proofs/{week}/file").body)
        verified = world.tbg("lottery", "verify", file)
        world.expect(verified.returncode == 0, f"tbg lottery verify: {verified.stdout}{verified.stderr}")
        world.notes.append(f"{results} results of {entries} entries, {was_paid} XP, the file verifies")
        world.expect_answers({200}, 3)
        return world


def slow_disk(lab):
    """Cause: for 10 s, PostgreSQL stands still for half of the time, as with a disk that does not keep up. Expected:
    slow, but nothing fails and nothing is lost."""
    with World(lab, "slow-disk") as world:
        with world.fault():
            for _ in range(25):
                world.database.signal_all(signal.SIGSTOP)
                time.sleep(0.2)
                world.database.signal_all(signal.SIGCONT)
                time.sleep(0.2)
        world.recover()
        world.expect_answers({200}, 5)
        return world


# Name, what is expected in one line, what it does.
SCENARIOS = {
    "api-killed": ("replaced, healthy < 10 s; the other replica serves", api_killed),
    "database-stopped": ("503, Retry-After ≤ 5 s, no process exits", database_stopped),
    "redis-stopped": ("limits per replica, boards stale, spool takes events", redis_stopped),
    "packets-dropped": ("API → database: 503 within 5 s, no hang", packets_dropped),
    "disk-full": ("reads go on, writes 503, events wait", disk_full),
    "clock": ("+1 h, −1 h: tokens by rule, jobs neither twice nor skipped", clock_moved),
    "redis-memory": ("1 MB: no 500, limiter falls back, spool takes events", redis_memory),
    "restore": ("latest dump: all data, normal start, chain verifies", restore),
    "datagrams-lost": ("half of the datagrams: the others count once", datagrams_lost),
    "entries-doubled": ("stream entries three times: count once", entries_doubled),
    "failover": ("standby promoted: nothing committed is lost", failover),
    "draw-killed": ("leader killed in a draw: one draw, XP once", draw_killed),
    "slow-disk": ("database stands still half of the time: slow, no loss", slow_disk),
}
