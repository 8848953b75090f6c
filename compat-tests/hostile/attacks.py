"""What hostile clients do, each as a function that does it once, against one kind of server.

An attack is over in a few seconds at most, gives back what it opened, and never raises for what the server may do to
it: refuse, hang up, stop reading. Whether the server survives is the business of `run`.
"""
import base64
import contextlib
import hashlib
import hmac
import io
import os
import pickle
import random
import socket
import ssl
import struct
import subprocess
import time

HOLD = 3.0  # seconds that the slow ones stay
MAX_TID = b"\x7f" + b"\xff" * 7
FORGED = "2026-11-26T00:00:00 CRITICAL ZEO.StorageServer forged"
USER, PASSWORD, REALM = "foo", "bar", "r"


def frame(payload):
    return struct.pack(">I", len(payload)) + payload


def message(number, method, *args, is_async=False):
    return pickle.dumps((number, is_async, method, args), 3)


class Loader(pickle.Unpickler):
    """Exceptions of the server are instances of classes that are nowhere here."""

    def find_class(self, module, name):
        return type(name, (Exception,), {"__setstate__": lambda self, state: None})


class Peer:
    """A connection that counts its own requests, and signs them once it has a key."""

    def __init__(self, address, context=None):
        self.socket = socket.create_connection(tuple(address), timeout=10)
        if context is not None:
            self.socket = context.wrap_socket(self.socket)
        self.number = 0
        self.key = self.sent = self.received = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, payload):
        if self.key is None:
            self.socket.sendall(frame(payload))
        else:
            self.socket.sendall(self.signed(payload))

    def signed(self, payload):
        self.sent.update(payload)
        return struct.pack(">I", len(payload) | 1 << 31) + self.sent.copy().digest() + payload

    def take(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the server hung up")
            data += part
        return data

    def receive(self):
        """The next payload."""
        prefix, = struct.unpack(">I", self.take(4))
        if prefix >> 31:
            self.take(20)
        return self.take(prefix & 0x7fffffff)

    def greet(self, protocol=b"Z5"):
        self.receive()
        self.send(protocol)
        return self

    def call(self, method, *args):
        self.number += 1
        self.send(message(self.number, method, *args))
        while True:
            number, _, name, value = Loader(io.BytesIO(self.receive())).load()
            if (number, name) == (self.number, ".reply"):
                return value

    def tell(self, method, *args):
        self.send(message(0, method, *args, is_async=True))

    def register(self, protocol=b"Z5"):
        self.greet(protocol)
        self.call("register", "1", False)
        return self

    def authenticate(self, password=PASSWORD):
        """As ZEO 4 does it; whether the server let us in."""
        self.greet(b"Z4")
        realm, challenge, nonce = self.call("auth_get_challenge")
        secret = digest(f"{USER}:{REALM}:{password}")
        passed = self.call("auth_response", (USER, challenge, digest(f"{secret}:{challenge}")))
        if passed:
            self.key = hashlib.sha1(f"{secret}:{nonce}".encode()).digest() + secret.encode()
            self.sent = hmac.new(self.key, digestmod="sha1")
        return passed

    def wait_for_end(self, seconds=HOLD):
        """Reads until the server hangs up, or not."""
        self.socket.settimeout(seconds)
        with contextlib.suppress(OSError):
            while self.socket.recv(65536):
                pass


def digest(text):
    return hashlib.sha1(text.encode()).hexdigest()


# -- before the handshake, and in it

def says_nothing(target):
    with Peer(target.address) as peer:
        peer.wait_for_end()


def slow_handshake(target):
    with Peer(target.address) as peer:
        peer.receive()
        for byte in frame(b"Z5"):
            peer.socket.sendall(bytes([byte]))
            time.sleep(HOLD / 8)


def garbage_for_a_handshake(target):
    with Peer(target.address) as peer:
        peer.socket.sendall(random.randbytes(random.randint(1, 2000)))
        peer.wait_for_end(0.2)


def wrong_handshake(target):
    with Peer(target.address) as peer:
        peer.greet(random.choice([b"", b"Z9", b"z5", b"HTTP/1.1", b"Z" * 90_000, b"M9"]))
        peer.wait_for_end(1)


def flood_of_connections(target):
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(Peer(target.address))


def half_open(target):
    with Peer(target.address) as peer:
        peer.greet()
        peer.socket.shutdown(socket.SHUT_WR)
        peer.wait_for_end(1)
    with Peer(target.address) as peer:
        peer.greet()
        # The end of this one is a reset.
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# -- before register

def unregistered_calls(target):
    with Peer(target.address) as peer:
        peer.greet(random.choice([b"Z5", b"Z4", b"Z308"]))
        method = random.choice(["loadEx", "vote", "tpc_begin", "new_oids", "pack", "undoInfo", "get_info", "_auth"])
        peer.tell(method, b"\0" * 8)
        peer.wait_for_end(1)


def unregistered_announces_long_message(target):
    with Peer(target.address) as peer:
        peer.greet()
        peer.socket.sendall(struct.pack(">I", random.choice([0x7fffffff, 0x10000000, 1 << 20])) + b"x" * 1000)
        peer.wait_for_end(1)


# -- after register, without a password

def slow_message(target):
    with Peer(target.address) as peer:
        peer.register()
        whole = frame(message(9, "lastTransaction"))
        for byte in whole[:8]:
            peer.socket.sendall(bytes([byte]))
            time.sleep(HOLD / 8)


def garbage_after_register(target):
    with Peer(target.address) as peer:
        peer.register()
        peer.send(random.randbytes(random.randint(1, 5000)))
        peer.wait_for_end(1)


def exploding_pickles(target):
    lists = b"]q\0" + b"".join(b"](" + bytes([b"h"[0], n]) * 10 + b"eq" + bytes([n + 1]) for n in range(60))
    bombs = [
        b"\x80\x03" + b"](" * 50_000 + b"e" * 50_000 + b".",
        b"\x80\x03N" + b"\x85" * 100_000 + b".",
        b"\x80\x03)" + b"2\x86" * 50_000 + b".",
        b"\x80\x03" + lists + b".",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\x03\x8b\xff\xff\xff\x7f" + b"\xff" * 1000 + b".",
        b"\x80\x03cos\nsystem\nX\x04\0\0\0true\x85R.",
    ]
    with Peer(target.address) as peer:
        peer.register()
        peer.send(random.choice(bombs))
        peer.wait_for_end(1)


def exploding_extension(target):
    """A transaction whose extension holds itself in many ways."""
    lists, wide = 300, 3000
    body = b"".join(b"]r" + struct.pack("<I", n) for n in range(lists))
    body += b"(" + b"".join(b"j" + struct.pack("<I", n) for n in range(lists)) + b"N" * wide + b"t"
    body += b"r" + struct.pack("<I", lists)
    body += b"".join(b"j" + struct.pack("<I", n) + b"j" + struct.pack("<I", lists) + b"a0" for n in range(lists))
    begin = b"\x80\x03(K\x01\x88X\x09\0\0\0tpc_begin(K\x05X\x01\0\0\0uX\x01\0\0\0d}X\x01\0\0\0k" + b"("
    begin += body + b"t" + b"sNX\x01\0\0\0 tt."
    with Peer(target.address) as peer:
        peer.register()
        peer.send(begin)
        peer.send(message(2, "tpc_abort", 5))
        peer.wait_for_end(0.5)


def wrong_arguments(target):
    odd = [(), (None,), (-1,), ("text", "text"), (b"short", None), ({"a": [None] * 100},) * 3, (None,) * 40]
    with Peer(target.address) as peer:
        peer.register()
        for method in ["loadBefore", "storea", "vote", "tpc_finish", "history", "iterator_next", "sendBlob",
                       "storeBlobShared", "undoa", "getInvalidations"]:
            peer.number += 1
            peer.send(message(peer.number, method, *random.choice(odd)))
        peer.wait_for_end(0.3)


def calls_out_of_order(target):
    with Peer(target.address) as peer:
        peer.register()
        for _ in range(20):
            peer.number += 1
            peer.send(message(peer.number, random.choice(["vote", "tpc_finish", "tpc_abort"]), random.randint(1, 3)))
        peer.wait_for_end(0.3)


def never_reads(target):
    """Asks for 40 MB in small pieces, and takes nothing."""
    with Peer(target.address) as peer:
        peer.register()
        peer.socket.settimeout(1)
        ask = b"".join(frame(message(n, "loadBefore", target.large, MAX_TID)) for n in range(400))
        with contextlib.suppress(OSError):
            peer.socket.sendall(ask)
        time.sleep(HOLD / 3)


def stores_and_goes(target):
    """A transaction that is begun, gets a megabyte, and is never voted for."""
    with Peer(target.address) as peer:
        peer.register()
        peer.tell("tpc_begin", 1, b"", b"", {}, None, " ")
        for n in range(16):
            peer.tell("storea", struct.pack(">Q", 1 << 40 | n), b"\0" * 8, b"N.}" + b"x" * 65536, 1)
        peer.call("lastTransaction")


def votes_and_goes(target):
    """Holds the lock of an object of its own, for a moment."""
    with Peer(target.address) as peer:
        peer.register()
        peer.tell("tpc_begin", 1, b"", b"", {}, None, " ")
        oid = struct.pack(">Q", 1 << 41 | random.randrange(1 << 20))
        peer.tell("storea", oid, b"\0" * 8, b"cpersistent.mapping\nPersistentMapping\n.}.", 1)
        peer.call("vote", 1)
        time.sleep(0.2)


def escaping_blob(target):
    with Peer(target.address) as peer:
        peer.register()
        peer.tell("tpc_begin", 1, b"", b"", {}, None, " ")
        name = random.choice(["../../../../../../../../../zeo.conf", "/etc/passwd.tmp", "..tmp", "x.tmp\0", "a/b.tmp"])
        peer.tell("storeBlobShared", b"\0" * 8, b"\0" * 8, b"cZODB.blob\nBlob\n.N.", name, 1)
        peer.number += 1
        peer.send(message(peer.number, "vote", 1))
        peer.wait_for_end(0.3)


# -- against memory, processor and descriptors

def wants_blobs(target):
    """Many downloads of a blob, on a few connections that read nothing."""
    with Peer(target.address) as peer:
        peer.register()
        oid = peer.call("new_oids")[0]
        peer.tell("tpc_begin", 1, b"", b"", {}, None, " ")
        peer.tell("storeBlobStart")
        for _ in range(40):
            peer.tell("storeBlobChunk", b"b" * 59000)
        peer.tell("storeBlobEnd", oid, b"\0" * 8, b"cZODB.blob\nBlob\n.N.", 1)
        peer.call("vote", 1)
        tid = peer.call("tpc_finish", 1)
        peers = []
        try:
            for _ in range(6):
                peers.append(Peer(target.address))
                peers[-1].register()
                for n in range(8):
                    peers[-1].send(message(1000 + n, "sendBlob", oid, tid))
            time.sleep(HOLD / 3)
        finally:
            for other in peers:
                other.socket.close()


def wants_undo_logs(target):
    """As many as it may have at a time, and reads none."""
    with Peer(target.address) as peer:
        peer.register()
        for n in range(50):
            peer.send(message(1000 + n, "undoLog", 0, -10000))
        time.sleep(HOLD / 3)


def undoes_the_same(target):
    """One transaction, a thousand times in one."""
    with Peer(target.address) as peer:
        peer.register()
        oid = peer.call("new_oids")[0]
        peer.tell("tpc_begin", 1, b"", b"", {}, None, " ")
        peer.tell("storea", oid, b"\0" * 8, b"cpersistent.mapping\nPersistentMapping\n.}.", 1)
        peer.call("vote", 1)
        undone = base64.encodebytes(peer.call("tpc_finish", 1)).rstrip()
        peer.tell("tpc_begin", 2, b"", b"", {}, None, " ")
        for _ in range(1000):
            peer.tell("undoa", undone, 2)
        peer.number += 1
        peer.send(message(peer.number, "vote", 2))
        peer.wait_for_end(0.3)


# -- against the log

def flood(peer, count, method, *args):
    """Calls of which nobody awaits the answers."""
    peer.socket.sendall(b"".join(frame(message(n + 1, method, *args)) for n in range(count)))
    # It may send as much as is asked for.
    peer.wait_for_end(0.2)


def fills_the_log(target):
    with Peer(target.address) as peer:
        peer.greet()
        peer.call("register", "1", True)
        method, args = random.choice([
            ("register", ("1", True)), ("iterator_next", (7,)), ("history", (b"\0" * 8, "x" * 200)),
            ("loadSerial", ("x" * 200, "y")), ("storea", (1,)), ("undoLog", ("x",)), ("tpc_finish", (random.randbytes(300),)),
        ])
        flood(peer, 2000, method, *args)


def packs_and_packs(target):
    with Peer(target.address) as peer:
        peer.greet()
        peer.call("register", "1", True)
        flood(peer, 30, "pack", 0.0, False)


def reconnects(target):
    for _ in range(30):
        with Peer(target.address) as peer:
            peer.register()
            peer.call("getInvalidations", b"\0" * 7 + b"\1")


def forges_lines(target):
    """By its label, by methods and ids, and by the name of the class of an object on which there is a conflict."""
    forged = "x\n------\n" + FORGED + "\r\x1b[2J"
    name = forged.encode()
    text = b"X" + struct.pack("<I", len(name)) + name
    record = b"\x80\x04X\x03\0\0\0mod" + text + b"\x93.\x80\x04}."
    oid = struct.pack(">Q", 1 << 42 | random.randrange(1 << 30))
    with Peer(target.address) as peer:
        peer.register()
        peer.call("set_client_label", forged)
        serial = b"\0" * 8
        # The third one conflicts: it has read what the first one wrote.
        for id in range(3):
            peer.tell("tpc_begin", id, b"", b"", {}, None, " ")
            peer.tell("storea", oid, serial, record, id)
            peer.call("vote", id)
            finished = peer.call("tpc_finish", id)
            serial = finished if id == 0 else serial
        peer.call("vote", name)
        peer.call("register", forged, True)
        peer.call(forged)


# -- where a password is demanded

def guesses_passwords(target):
    with Peer(target.address) as peer:
        peer.authenticate(random.choice(["", "admin", "bar ", "x" * 1000]))
        peer.wait_for_end(0.2)


def unauthenticated_register(target):
    with Peer(target.address) as peer:
        peer.greet(b"Z4")
        peer.call("register", "1", False)
        peer.wait_for_end(0.2)


def registers_and_registers(target):
    with Peer(target.address) as peer:
        peer.greet(b"Z4")
        flood(peer, 2000, "register", "1", False)
    for _ in range(20):
        with contextlib.suppress(OSError), Peer(target.address) as peer:
            peer.greet()
            peer.call("register", "1", False)


def replayed_response(target):
    with Peer(target.address) as first, Peer(target.address) as second:
        first.greet(b"Z4")
        _, challenge, _ = first.call("auth_get_challenge")
        secret = digest(f"{USER}:{REALM}:{PASSWORD}")
        response = (USER, challenge, digest(f"{secret}:{challenge}"))
        first.call("auth_response", response)
        second.greet(b"Z4")
        second.call("auth_get_challenge")
        second.call("auth_response", response)
        second.wait_for_end(0.2)


def after_authentication(change):
    """An attack that changes the bytes of a signed message."""
    def attack(target):
        with Peer(target.address) as peer:
            if not peer.authenticate():
                raise AssertionError("the right password is refused")
            peer.socket.sendall(change(peer))
            peer.wait_for_end(0.5)
    attack.__name__ = change.__name__
    return attack


@after_authentication
def wrong_code(peer):
    data = bytearray(peer.signed(message(9, "register", "1", False)))
    data[4 + random.randrange(20)] ^= 1 << random.randrange(8)
    return bytes(data)


@after_authentication
def truncated_code(peer):
    payload = message(9, "register", "1", False)
    return peer.signed(payload)[:-len(payload) - random.randint(1, 19)] + payload


@after_authentication
def no_code(peer):
    return frame(message(9, "register", "1", False))


@after_authentication
def replayed_message(peer):
    return peer.signed(message(9, "register", "1", False)) * 2


@after_authentication
def random_bytes_after_authentication(peer):
    return random.randbytes(random.randint(1, 3000))


@after_authentication
def signed_garbage(peer):
    return peer.signed(random.randbytes(random.randint(1, 3000)))


# -- where TLS is demanded

def context_of(target, identity):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(target.server_certificate)
    if identity:
        context.load_cert_chain(*identity)
    return context


def tls_as(which):
    """A client with this certificate, which must not get in."""
    def attack(target):
        with contextlib.suppress(OSError), Peer(target.address, context_of(target, target.refused_certificates[which])) as peer:
            peer.socket.settimeout(5)
            peer.greet()
            peer.call("register", "1", False)
            raise AssertionError(f"TLS lets in a client whose certificate is {which}")
    attack.__name__ = f"tls_{which}"
    return attack


def plain_to_tls(target):
    with Peer(target.address) as peer:
        peer.socket.sendall(frame(b"Z5"))
        peer.wait_for_end(1)


def slow_tls(target):
    with Peer(target.address) as peer:
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01":
            peer.socket.sendall(bytes([byte]))
            time.sleep(HOLD / 8)


def garbage_records(target):
    with Peer(target.address) as peer:
        kind = random.choice([20, 21, 22, 23, 24, 99])
        body = random.randbytes(random.randint(0, 3000))
        peer.socket.sendall(bytes([kind, 3, 3]) + struct.pack(">H", len(body)) + body)
        peer.wait_for_end(1)


def garbage_under_tls(target):
    """A whole handshake with the right certificate, and then records that nobody encrypted."""
    plain = socket.create_connection(tuple(target.address), timeout=10)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context_of(target, target.identity).wrap_bio(incoming, outgoing)
    with plain:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        plain.sendall(outgoing.read())
        plain.sendall(random.choice([
            b"\x17\x03\x03\x00\x20" + os.urandom(32),
            b"\x16\x03\x03\x00\x04\x01\x00\x00\x00",
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"\x17\x03\x03\xff\xff" + os.urandom(100),
            os.urandom(500),
        ]))
        plain.settimeout(1)
        with contextlib.suppress(OSError):
            while plain.recv(65536):
                pass


def renegotiation(target):
    """OpenSSL's client asks for a second handshake on the same connection, which TLS 1.2 had."""
    command = ["openssl", "s_client", "-tls1_2", "-connect", "%s:%s" % tuple(target.address), "-cert",
               target.identity[0], "-key", target.identity[1]]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        client.communicate(b"R\n", timeout=HOLD)
    except subprocess.TimeoutExpired:
        pass
    finally:
        client.kill()
        client.wait()


def garbage_in_tls(target):
    with Peer(target.address, context_of(target, target.identity)) as peer:
        peer.register()
        peer.send(random.randbytes(random.randint(1, 3000)))
        peer.wait_for_end(1)


ANYWHERE = [says_nothing, slow_handshake, garbage_for_a_handshake, wrong_handshake, flood_of_connections, half_open,
            unregistered_calls, unregistered_announces_long_message]
PLAIN = ANYWHERE + [slow_message, garbage_after_register, exploding_pickles, exploding_extension, wrong_arguments,
                    calls_out_of_order, never_reads, stores_and_goes, votes_and_goes, escaping_blob, fills_the_log,
                    packs_and_packs, reconnects, forges_lines, wants_blobs, wants_undo_logs, undoes_the_same]
PASSWORDS = ANYWHERE + [guesses_passwords, unauthenticated_register, registers_and_registers, replayed_response, wrong_code, truncated_code,
                        no_code, replayed_message, random_bytes_after_authentication, signed_garbage]
TLS = [plain_to_tls, slow_tls, garbage_records, garbage_under_tls, garbage_in_tls, renegotiation, flood_of_connections,
       tls_as("unknown"), tls_as("expired"), tls_as("none")]
