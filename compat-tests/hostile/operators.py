"""What hostile programs do at the HTTP port and at the admin socket, in the manner of attacks.py.

Each raises if it gets what it must not, or an answer that is none.
"""
import contextlib
import json
import os
import random
import socket
import subprocess
import time

from attacks import HOLD, context_of

# Of what a request may be answered with; nothing at all is an answer, too.
REFUSED = {400, 404, 405, 408, 413, 414, 431, 503, 505}
NOBODY = 65534


def http(target):
    return socket.create_connection(("127.0.0.1", target.http_port), timeout=10)


def admin(target):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(target.admin))
    return connection


def answer(connection):
    data = b""
    with contextlib.suppress(OSError):
        while part := connection.recv(65536):
            data += part
    return data


def status(data):
    """Of the answer; None if there is none."""
    return int(data.split(b" ", 2)[1]) if data else None


def must_be_refused(data, sent):
    if data and status(data) not in REFUSED:
        raise AssertionError(f"{data[:60]!r} for {sent[:60]!r}")


def http_says_nothing(target):
    with http(target):
        time.sleep(HOLD)


def http_slow_head(target):
    """A byte now and then."""
    with http(target) as connection:
        end = time.monotonic() + HOLD
        for byte in b"GET /status.json HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
            if time.monotonic() > end:
                return


def http_flood(target):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(http(target))
            connection.sendall(b"GET /status.json HTTP/1.1\r\n")


def http_asks_all_the_time(target):
    for path in (b"/", b"/metrics", b"/status.json", b"/ready"):
        with http(target) as connection:
            connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            data = answer(connection)
            if data and status(data) not in (200, 503):
                raise AssertionError(f"{data[:80]!r} for {path!r}")


def http_never_reads(target):
    with http(target) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(HOLD)


def http_bad_requests(target):
    sent = random.choice([
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /status.json HTTP/1.1\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /status.json HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"POST /status.json HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n",
        b"DELETE / HTTP/1.1\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /status.json HTTP/3.0\r\n\r\n",
        b"GET  /status.json\x00 HTTP/1.1\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\n\r\n",
        b"GET /%2e%2e/Data.fs HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(100) + b"\r\n\r\n",
        os.urandom(random.randint(1, 3000)) + b"\r\n\r\n",
    ])
    with http(target) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        must_be_refused(answer(connection), sent)


def https(target, identity):
    """Over TLS, as the client with this certificate, or without one."""
    return context_of(target, identity).wrap_socket(http(target), server_hostname="localhost")


def https_as(which):
    """A client with this certificate, which must get no answer."""
    def attack(target):
        with contextlib.suppress(OSError), https(target, target.refused_certificates[which]) as connection:
            connection.sendall(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if data := connection.recv(65536):
                raise AssertionError(f"{data[:60]!r} for a client whose certificate is {which}")
    attack.__name__ = f"https_{which}"
    return attack


def https_plain(target):
    with http(target) as connection:
        connection.sendall(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if (data := answer(connection)).startswith(b"HTTP"):
            raise AssertionError(f"{data[:60]!r} without TLS")


def https_slow_handshake(target):
    with http(target) as connection:
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01":
            connection.sendall(bytes([byte]))
            time.sleep(HOLD / 8)


def https_slow_record(target):
    """After the handshake the beginning of a record, and then a byte now and then."""
    with https(target, target.identity) as connection:
        raw = socket.socket(fileno=os.dup(connection.fileno()))
        with raw:
            for byte in b"\x17\x03\x03\x40\x00" + b"x" * 40:
                raw.sendall(bytes([byte]))
                time.sleep(HOLD / 40)


def https_flood(target):
    """Handshakes that are begun and left alone."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(http(target)).sendall(b"\x16\x03\x01\x02\x00\x01")


def https_never_reads(target):
    with https(target, target.identity) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(HOLD)


def admin_garbage(target):
    sent = random.choice([
        os.urandom(random.randint(1, 3000)) + b"\n",
        b"{" * 60_000 + b"\n",
        b"[" * 60_000 + b"\n",
        b'{"command": "' + b"x" * 200_000 + b'"}\n',
        b'{"command": "kill", "client": 1e400}\n',
        b'{"command": "kill", "client": -1}\n',
        b'{"command": "pack", "time": "now", "storage": 1}\n',
        b'{"command": null}\n',
        b'{"command": "log-level", "level": "\\u0000\\n2026 CRITICAL forged"}\n',
    ])
    with admin(target) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        data = answer(connection)
        if data and "error" not in json.loads(data.splitlines()[-1]):
            raise AssertionError(f"{data[:80]!r} for {sent[:60]!r}")


def admin_slow(target):
    with admin(target) as connection:
        connection.sendall(b'{"command": ')
        time.sleep(HOLD)


def admin_flood(target):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(admin(target)).sendall(b'{"command": "status"}')


def admin_as_another_user(target):
    """The socket lets everybody in; the server refuses whom the kernel names."""
    if os.getuid() != 0:
        return
    # Others may not be able to read where the programs are.
    asked = subprocess.run([target.zeoadmin, "status", "-s", target.admin], user=NOBODY, group=NOBODY, extra_groups=[],
                           capture_output=True, text=True, timeout=60)
    if asked.returncode != 1:
        raise AssertionError(f"another user has learned {asked.stdout[:80]!r} {asked.stderr[:200]!r}")
    target.refused_users += "may steer this server" in asked.stderr


ALL = [http_says_nothing, http_slow_head, http_flood, http_asks_all_the_time, http_never_reads, http_bad_requests,
       admin_garbage, admin_slow, admin_flood, admin_as_another_user]
TLS = [https_plain, https_slow_handshake, https_slow_record, https_flood, https_never_reads,
       https_as("unknown"), https_as("expired"), https_as("none")]
