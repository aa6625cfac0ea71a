"""A hundred sockets for five minutes: do they stay open, and does every message come once and in order?

Twenty users have five sockets each, as many as the game allows a user. A pool sends a share per user and
second; its difficulty is its number, by which the frames of channel `mining` are known again.

Environment:
  GAME_BASE_URL     where the server listens, such as http://127.0.0.1:8000
  GAME_PEOPLE       a file with one JSON object per line and user: its `address`, `access` (the token) and
                    `from` (the client address)
  GAME_POOL_SOCKET  the datagram socket in which the game takes a pool's events

Exit code: 0 pass, 1 fail, 2 the run could not be made.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from websockets import ConnectionClosed, State, WebSocketException, connect

USERS, SOCKETS_EACH = 20, 5
LEAST_OPEN = 95
PING_SECONDS = 20
PROGRESS_SECONDS = 30
PATIENCE_SECONDS = 30
# The first share of each user is a record, so that no later one is, which would bring news of other kinds.
RECORD, FIRST = 2_000_000_000, 1_000_000


class CannotRun(Exception):
    """The run cannot be made, with the reason."""


@dataclass
class Person:
    """A user who mines."""

    address: str
    access: str
    client: str
    # Number of each share, in order, and when it was sent.
    sent: dict = field(default_factory=dict)
    # Why shares could not be sent.
    refused: list = field(default_factory=list)


@dataclass
class Socket:
    """One connection of a user, and what came by it."""

    person: Person
    link: object = None
    # How it ended, or why it never began.
    end: str = ""
    # Numbers of shares, in order, and when they came.
    frames: list = field(default_factory=list)
    complaints: list = field(default_factory=list)
    pings: int = 0
    pongs: int = 0

    def is_open(self):
        return self.link is not None and self.link.state is State.OPEN

    def take(self, text):
        message = json.loads(text)
        if message.get("type") == "pong":
            self.pongs += 1
        elif message.get("type") in ("error", "lagged"):
            self.complaints.append(text)
        elif message.get("channel") == "mining" and message["data"]["type"] == "share_submitted":
            self.frames.append((message["data"]["share_diff"], time.monotonic()))


def main():
    parser = argparse.ArgumentParser(description="Keeps a hundred sockets open and counts their messages.")
    parser.add_argument("--seconds", type=int, default=300, help="how long")
    seconds = parser.parse_args().seconds
    try:
        url = setting("GAME_BASE_URL").rstrip("/").replace("http", "ws", 1) + "/ws"
        people, pool = read_people(setting("GAME_PEOPLE")), open_pool(setting("GAME_POOL_SOCKET"))
        return asyncio.run(run(url, people, pool, seconds))
    except CannotRun as error:
        print(f"ws-stress: {error}", file=sys.stderr)
        return 2


def setting(name):
    value = os.environ.get(name, "").strip()
    if not value:
        raise CannotRun(f"{name} is not set")
    return value


def read_people(path):
    try:
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()[:USERS]]
        people = [Person(row["address"], row["access"], row["from"]) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise CannotRun(f"GAME_PEOPLE cannot be read: {error!r}") from error
    if len(people) < USERS:
        raise CannotRun(f"GAME_PEOPLE lists {len(people)} people: {USERS} are needed")
    return people


def open_pool(path):
    pool = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    pool.setblocking(False)
    try:
        pool.connect(path)
    except OSError as error:
        raise CannotRun(f"GAME_POOL_SOCKET cannot be opened: {error}; does the game take events?") from error
    return pool


async def run(url, people, pool, seconds):
    """Opens, mines, listens, counts; the exit code."""
    sockets = await asyncio.gather(*(open_socket(url, person) for person in people for _ in range(SOCKETS_EACH)))
    if not any(one.is_open() for one in sockets):
        raise CannotRun(f"no socket opens: {sockets[0].end}; is GAME_BASE_URL that of the game?")
    helpers = [asyncio.create_task(read(one)) for one in sockets if one.link]
    await asyncio.gather(*(send_share(pool, person, RECORD) for person in people))
    await until(lambda: all_came(sockets))
    if not any(one.frames for one in sockets):
        raise CannotRun("no share came back: is GAME_POOL_SOCKET that of the server of GAME_BASE_URL?")
    started = time.monotonic()
    helpers.append(asyncio.create_task(tell_progress(sockets, people, started)))
    await asyncio.gather(
        *(mine(pool, person, place, started, seconds) for place, person in enumerate(people)),
        *(ping_often(one, place * PING_SECONDS / len(sockets), started, seconds) for place, one in enumerate(sockets)),
    )
    await until(lambda: all_came(sockets))
    # A connection that is dead without knowing it gives no answer; and doubles have time to come.
    await asyncio.gather(*(ping(one) for one in sockets))
    await until(lambda: all(one.pongs >= one.pings for one in sockets if one.is_open()))
    await asyncio.sleep(1)
    code = judge(sockets, people)
    for task in helpers:
        task.cancel()
    await asyncio.gather(*(one.link.close() for one in sockets if one.link))
    return code


async def open_socket(url, person):
    one = Socket(person)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            # Only our own pings count, so the library sends none.
            link = await connect(f"{url}?token={person.access}", additional_headers={"X-Forwarded-For": person.client},
                                 compression=None, proxy=None, ping_interval=None)
            await link.send('{"action":"subscribe","channel":"mining"}')
            # Who has won something is told that first.
            while json.loads(await link.recv()).get("type") != "subscribed":
                pass
            one.link = link
    except (OSError, WebSocketException) as error:
        one.end = f"not opened: {error or type(error).__name__}"
    return one


async def read(one):
    with suppress(ConnectionClosed):
        async for text in one.link:
            one.take(text)
    one.end = f"closed with {one.link.close_code} {one.link.close_reason}".strip()


async def until(condition):
    """Waits until it is true, but not for ever."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


def all_came(sockets):
    return all(len(one.frames) >= len(one.person.sent) for one in sockets if one.is_open())


async def mine(pool, person, place, started, seconds):
    """A share per second, at a moment of its own within it; no number is another user's too."""
    for second in range(seconds):
        await asyncio.sleep(started + second + place / USERS - time.monotonic())
        await send_share(pool, person, FIRST + second * USERS + place)


async def send_share(pool, person, number):
    data = {"user": person.address, "worker": f"{person.address}.rig", "diff": 512.0, "sdiff": float(number),
            "accepted": True}
    event = {"region": "", "event": "share_submitted", "ts": round(time.time(), 6), "source": "hosted", "data": data}
    at = time.monotonic()
    while True:
        try:
            pool.send(json.dumps(event).encode())
            person.sent[number] = at
            return
        except OSError as error:
            # The queue may be full for a moment.
            if not isinstance(error, BlockingIOError) or time.monotonic() > at + PATIENCE_SECONDS:
                person.refused.append(str(error))
                return
        await asyncio.sleep(0.001)


async def ping_often(one, after, started, seconds):
    while after < seconds:
        await asyncio.sleep(started + after - time.monotonic())
        await ping(one)
        after += PING_SECONDS


async def ping(one):
    if one.is_open():
        with suppress(ConnectionClosed):
            await one.link.send('{"action":"ping"}')
            one.pings += 1


async def tell_progress(sockets, people, started):
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        print(f"{time.monotonic() - started:.0f} s: {sum(one.is_open() for one in sockets)} sockets open, "
              f"{sum(len(person.sent) for person in people)} messages sent, "
              f"{sum(len(one.frames) for one in sockets)} frames received, "
              f"{sum(one.pings for one in sockets)} pings, {sum(one.pongs for one in sockets)} pongs", flush=True)


def judge(sockets, people):
    """Counts, prints the line with the figures; the exit code."""
    lasting = [one for one in sockets if one.is_open()]
    expected = sum(len(one.person.sent) for one in lasting)
    received = twice = disordered = foreign = 0
    delays = []
    for one in sockets:
        order = {number: place for place, number in enumerate(one.person.sent)}
        # In the order of first arrivals.
        came = Counter(number for number, _ in one.frames if number in order)
        places = [order[number] for number in came]
        received += len(came) if one.is_open() else 0
        twice += came.total() - len(came)
        disordered += sum(later < earlier for earlier, later in zip(places, places[1:]))
        foreign += len(one.frames) - came.total()
        delays += [(at - one.person.sent[number]) * 1000 for number, at in one.frames if number in order]
    complaints = [text for one in sockets for text in one.complaints]
    refused = [text for person in people for text in person.refused]
    reasons = [words for failed, words in (
        (len(lasting) < LEAST_OPEN, f"fewer than {LEAST_OPEN} sockets were open throughout"),
        (received < expected or twice or disordered or foreign, "not each message came once, in order, to its user"),
        (any(one.pings != one.pongs for one in lasting), "not each ping got its answer"),
        (complaints, f"{len(complaints)} complaints of the server, such as {complaints[:1]}"),
        (refused, f"{len(refused)} shares not taken by the pool's socket, such as {refused[:1]}"),
    ) if failed]
    for end, count in Counter(one.end for one in sockets if one.end).items():
        print(f"{count} sockets {end}")
    figures = (f"{sum(one.link is not None for one in sockets)} sockets opened, {len(lasting)} open throughout, "
               f"{sum(len(person.sent) for person in people)} messages sent, {expected} frames expected, "
               f"{received} received, {expected - received} lost, {twice} twice, {disordered} out of order, "
               f"{foreign} of other users, {sum(one.pings for one in lasting)} pings, "
               f"{sum(one.pongs for one in lasting)} pongs, share to frame "
               f"p50 {percentile(delays, 50):.1f} ms, p95 {percentile(delays, 95):.1f} ms")
    print(f"FAIL: {figures} ({'; '.join(reasons)})" if reasons else f"PASS: {figures}", flush=True)
    return 1 if reasons else 0


def percentile(values, part):
    return sorted(values)[min(len(values) * part // 100, len(values) - 1)]


if __name__ == "__main__":
    sys.exit(main())
