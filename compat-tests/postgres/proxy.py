"""A proxy between a server and PostgreSQL that holds, delays, forgets and cuts connections. Threads and nothing else."""
import random
import socket
import struct
import threading
import time


class Proxy:
    """Listens at `port`. What it does is set by its methods, at any time, for the connections that are or will be made."""

    def __init__(self, target):
        self.target = target
        self.lock = threading.Lock()
        self.passing = threading.Event()
        self.passing.set()
        self.links = []
        self.messages_max = None
        self.latency = 0.0
        self.made = self.cuts = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = self.target()
            except OSError:
                client.close()
                continue
            with self.lock:
                self.made += 1
                self.links = [link for link in self.links if not link.is_over]
                self.links.append(Link(self, client, server))

    def calm(self):
        """Everything passes."""
        self.messages_max, self.latency = None, 0.0
        self.passing.set()

    def hold(self):
        """Nothing passes until `calm`, and nothing is lost."""
        self.passing.clear()

    def forget(self):
        """The connections of now stay open, and what goes into them is lost."""
        with self.lock:
            for link in self.links:
                link.is_forgotten = True

    def cut_by_messages(self, most):
        """Each connection is cut behind or before one of its next messages, of which there are `most` at most."""
        self.messages_max = most
        with self.lock:
            for link in self.links:
                link.left = random.randint(1, most)

    def delay(self, longest):
        self.latency = longest

    def close(self):
        self.listener.close()
        with self.lock:
            for link in self.links:
                link.cut()


class Link:
    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.ends = (client, server)
        self.is_over = self.is_forgotten = False
        self.lock = threading.Lock()
        self.left = random.randint(1, proxy.messages_max) if proxy.messages_max else 0
        for source, target, has_start in ((client, server, True), (server, client, False)):
            if source.family != socket.AF_UNIX:
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pass, args=(source, target, has_start), daemon=True).start()

    def cut(self):
        self.is_over = True
        for end in self.ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _is_last(self):
        """Counts one message. Whether the connection ends with it."""
        if not self.proxy.messages_max:
            return False
        with self.lock:
            self.left -= 1
            return self.left == 0

    def _pass(self, source, target, has_start):
        messages = Messages(has_start)
        try:
            while True:
                data = source.recv(1 << 16)
                if not data:
                    break
                self.proxy.passing.wait()
                if self.proxy.latency:
                    time.sleep(random.uniform(0, self.proxy.latency))
                for piece, is_whole in messages.split(data):
                    if self.is_forgotten:
                        continue
                    is_last = is_whole and self._is_last()
                    # The end comes behind the message, or in the middle of it.
                    target.sendall(piece if not is_last or random.random() < 0.5 else piece[:len(piece) // 2])
                    if is_last:
                        self.proxy.cuts += 1
                        self.cut()
                        return
        except OSError:
            pass
        if not self.is_forgotten:
            self.cut()
            for end in self.ends:
                end.close()


class Messages:
    """Finds the ends of the protocol's messages in one direction, on a connection without TLS."""

    def __init__(self, has_start):
        # A client's first message has no type.
        self.header = 4 if has_start else 5
        self.rest = 0
        self.begun = b""

    def split(self, data):
        """Yields (bytes, whether a message ends with them)."""
        while data:
            if self.rest:
                piece, data = data[:self.rest], data[self.rest:]
                self.rest -= len(piece)
                yield piece, not self.rest
                continue
            wanted = self.header - len(self.begun)
            self.begun += data[:wanted]
            piece, data = data[:wanted], data[wanted:]
            if len(self.begun) == self.header:
                self.rest = struct.unpack("!I", self.begun[-4:])[0] - 4
                self.begun, self.header = b"", 5
            yield piece, len(piece) == wanted and not self.rest
