"""What hostile programs do to the key socket: `python attackers.py ATTACK SOCKET COUNT`, with no library of ours.

Prints one line of JSON at its height; holds on until its standard input ends; then prints another with what it saw.
"""

import errno
import json
import os
import random
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator

HEAD = b"POST /GetKey HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
GET_KEY = HEAD % 12 + b'{"path":"a"}'
HUGE = 100 << 20  # bytes
ALLOWED = 10 << 20
GOOD = (
    b"POST /GetKey HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    b'Content-Length: 58\r\n\r\n{"path":"test","purpose":"signing","algorithm":"secp256k1"}'
)
NONSENSE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /\r\n\r\n",  # HTTP/0.9
    b"POST /GetKey HTTP/1.0\r\n\r\n",
    b"POST http://x/GetKey HTTP/1.1\r\n\r\n",
    b"POST /GetKey HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"POST /GetKey HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    b"POST /GetKey HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /GetKey HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n",
    b"POST /GetKey HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /GetKey HTTP/1.1\r\n Folded: x\r\n\r\n",
    b"POST /GetKey HTTP/1.1\nContent-Length: 0\n\n",
    b"POST /GetKey HTTP/1.1\r\nA\0B: x\r\n\r\n",
    b"POST /GetKey HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"POST /GetKey HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    b"POST /GetKey HTTP/1.1\r\nContent-Length: 9\r\n\r\n" + b"[" * 9,
    b"POST /GetKey HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
    b'POST /GetKey HTTP/1.1\r\nContent-Length: 13\r\n\r\n{"path":"\xff\xfe"}',
    b'POST /GetKey HTTP/1.1\r\nContent-Length: 17\r\n\r\n{"path":"\\ud800"}',
    bytes(9000),
)


def connected(path: str, patience: float = 60.0) -> socket.socket:
    """A connection, however long the queue at the door is."""
    deadline = time.monotonic() + patience
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(patience)
        try:
            client.connect(path)
        except OSError as error:
            client.close()
            if error.errno not in (errno.EAGAIN, errno.ECONNREFUSED) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return client


def everything(client: socket.socket, patience: float = 60.0) -> bytes:
    """What comes until the other side closes, or says nothing for so long."""
    client.settimeout(patience)
    data = b""
    try:
        while piece := client.recv(1 << 20):
            data += piece
    except (ConnectionResetError, TimeoutError):
        pass
    return data


def status_of(answer: bytes) -> str:
    """The first line's status, "none" for no byte; "broken" for what is no answer as promised to every client."""
    if not answer:
        return "none"
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = int(headers.get("content-length", "-1"))
    try:
        is_object = isinstance(json.loads(body[:length]), dict)
    except ValueError:
        is_object = False
    good = first.startswith("HTTP/1.1 ") and headers.get("content-type") == "application/json" and is_object
    return first.split(" ")[1] if good else "broken"


def crowd(path: str, count: int) -> Iterator[object]:
    """Connections that are made and left alone."""
    held = [connected(path) for _ in range(count)]
    yield {"connections": len(held)}
    yield {"turned away": dict(Counter(_state(client) for client in held))}


def _state(client: socket.socket) -> str:
    client.settimeout(0)
    try:
        return status_of(client.recv(65536))
    except BlockingIOError:
        return "open"
    except ConnectionResetError:
        return "none"


def drip(path: str, count: int) -> Iterator[object]:
    """Heads and bodies of which a byte comes now and then, until each is cut off."""
    clients = [connected(path) for _ in range(count)]
    for n, client in enumerate(clients):
        client.sendall(GOOD[:20] if n % 2 else HEAD % 1000)
        client.setblocking(False)
    yield {"connections": len(clients)}
    seen: Counter[str] = Counter()
    while clients:
        time.sleep(0.1)
        for client in list(clients):
            try:
                client.send(b"x")
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                seen[status_of(everything(client))] += 1
                clients.remove(client)
    yield {"cut": dict(seen)}


def pour(path: str, count: int) -> Iterator[object]:
    """Bodies of 100 MB, sent to the last byte whatever is said meanwhile, or until the door is shut."""
    seen: Counter[str] = Counter()
    yield {}
    for _ in range(count):
        client = connected(path)
        try:
            client.sendall(HEAD % HUGE)
            for _ in range(HUGE >> 20):
                client.sendall(bytes(1 << 20))
        except (BrokenPipeError, ConnectionResetError):
            pass
        seen[status_of(everything(client))] += 1
    yield {"answers": dict(seen)}


def swell(path: str, count: int) -> Iterator[object]:
    """Bodies of exactly as much as is allowed, all at once, none of them ever whole."""
    clients = [connected(path) for _ in range(count)]
    for client in clients:
        client.setblocking(False)
    whole = HEAD.replace(b"GetKey", b"Sign") % ALLOWED + bytes(ALLOWED - 1)
    waiting = dict.fromkeys(clients, whole)
    deadline = time.monotonic() + 3
    while waiting and time.monotonic() < deadline:
        for client in select.select([], list(waiting), [], 0.1)[1]:
            try:
                waiting[client] = waiting[client][client.send(waiting[client]) :]
            except (BrokenPipeError, ConnectionResetError):
                del waiting[client]
    yield {"connections": len(clients)}
    yield {"answers": dict(Counter(status_of(everything(client)) for client in clients))}


def chew(path: str, count: int) -> Iterator[object]:
    """Whole bodies of as much as is allowed, one after the other on each connection, all of it to be read as JSON."""
    clients, answers = [connected(path) for _ in range(count)], 0
    body = b'{"algorithm":"ed25519","data":"%s"}' % (b"0" * (ALLOWED - 100))
    yield {"connections": len(clients)}
    for _ in range(4):
        for client in clients:
            client.sendall(HEAD.replace(b"GetKey", b"Sign") % len(body) + body)
            answers += bool(client.recv(65536))
    yield {"answers": answers}


def deaf(path: str, count: int) -> Iterator[object]:
    """Requests without end on connections whose answers nobody reads."""
    clients, sent = [connected(path) for _ in range(count)], 0
    for client in clients:
        client.setblocking(False)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        for client in select.select([], clients, [], 0.1)[1]:
            try:
                sent += client.send(GET_KEY * 100)
            except (BrokenPipeError, ConnectionResetError):
                clients.remove(client)
    yield {"sent": sent}
    watch = select.poll()
    for client in clients:
        watch.register(client, 0)  # for nothing but its end
    left, deadline = len(clients), time.monotonic() + 60
    while left and time.monotonic() < deadline:
        for fd, _ in watch.poll(1000):
            watch.unregister(fd)
            left -= 1
    yield {"still there": left}


def grind(path: str, count: int) -> Iterator[object]:
    """Keys that nobody has asked for, in one breath on many connections, each of them work for the other side."""
    own, serial, answers = f"uid-{os.getuid()}", 0, 0
    clients = [connected(path) for _ in range(count)]
    for client in clients:
        client.setblocking(False)
    yield {"connections": len(clients)}
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        readable, writable, _ = select.select(clients, clients, [], 0.1)
        for client in readable:
            answers += client.recv(1 << 20).count(b'{"key"')
        for client in writable:
            bodies = [b'{"path":"%s/%d"}' % (own.encode(), serial + n) for n in range(500)]
            try:
                client.send(b"".join(HEAD % len(body) + body for body in bodies))
            except BlockingIOError:
                continue
            serial += 500
    yield {"answers": answers}


def nonsense(path: str, count: int) -> Iterator[object]:
    """What is no HTTP, then what nearly is: a good request with some bytes changed, cut out or doubled."""
    chance, seen = random.Random(count), Counter[str]()
    yield {}
    for n in range(count):
        raw = NONSENSE[n] if n < len(NONSENSE) else _spoilt(chance)
        client = connected(path)
        try:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        seen[status_of(everything(client))] += 1
        client.close()
    yield {"answers": dict(seen)}


def _spoilt(chance: random.Random) -> bytes:
    raw = bytearray(GOOD)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw))
        match chance.randrange(4):
            case 0:
                raw[at] = chance.randrange(256)
            case 1:
                del raw[at : at + chance.randint(1, 8)]
            case 2:
                raw[at:at] = chance.randbytes(chance.randint(1, 8))
            case _:
                raw[at:at] = raw[at : at + 20]
    return bytes(raw)


def vanish(path: str, count: int) -> Iterator[object]:
    """Programs that connect, ask and are gone, some before a word."""
    yield {}
    for n in range(count):
        if (child := os.fork()) == 0:
            client = connected(path)
            client.sendall(GET_KEY * (n % 3))
            os._exit(0)
        os.waitpid(child, 0)
    yield {"gone": count}


ATTACKS = {
    attack.__name__: attack for attack in (crowd, drip, pour, swell, chew, deaf, grind, nonsense, vanish)
}


def main(attack: str, path: str, count: str) -> None:
    steps = ATTACKS[attack](path, int(count))
    print(json.dumps(next(steps)), flush=True)
    sys.stdin.read()
    print(json.dumps(next(steps)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
