"""All on one machine's own address: each way from a server to another is a proxy, which passes connections on, and cuts,
holds or delays them. Threads and nothing else.
"""
import random
import socket
import threading
import time

from harness.server import free_port


class Proxies:
    """The network of a cluster of these servers. Clients connect to them directly."""

    faults = ["cut", "cut", "hold", "delay"]
    # How long faults last, in seconds.
    lasting = [0.1, 0.5, 1.5, 3, 6]

    def __init__(self, names):
        self.ports = {name: (free_port(), free_port()) for name in names}
        self.lines = {(name, other): Line(("127.0.0.1", self.ports[other][1]))
                      for name in names for other in names if name != other}

    # Where servers and clients are

    def inside(self, name=None):
        """What a command begins with that runs there."""
        return []

    def address(self, name):
        """For clients. The port names the server."""
        return "127.0.0.1", self.ports[name][0]

    def listen(self, name):
        return f"127.0.0.1:{self.ports[name][1]}"

    def peer(self, name, other):
        """Where a server reaches another one."""
        return f"127.0.0.1:{self.lines[name, other].port}"

    # Faults

    def some(self, dice):
        """Lines at random, and their name: of a server to all others, between two, or one way."""
        one, other = dice.sample(list(self.ports), 2)
        text, pairs = dice.choice([
            (f"{one} and all", [pair for pair in self.lines if one in pair]),
            (f"from {one} to {other}", [(one, other)]),
            (f"{one} and {other}", [(one, other), (other, one)]),
        ])
        return text, [self.lines[pair] for pair in pairs]

    def heal(self):
        for line in self.lines.values():
            line.heal()

    def check(self):
        """It has not failed by itself."""

    def close(self):
        for line in self.lines.values():
            line.close()


class Line:
    """Listens at `port`, and connects to `target`. What it does is set by its methods, at any time."""

    def __init__(self, target):
        self.target = target
        self.lock = threading.Lock()
        self.passing = threading.Event()
        self.passing.set()
        self.is_cut = False
        self.latency = 0.0
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Connections end, also in the middle of a message, and no new ones are made."""
        self.is_cut = True
        self._end()
        self.passing.set()

    def hold(self):
        """Connections stay, new ones are made, and nothing passes."""
        self.passing.clear()

    def delay(self):
        """What passes comes later."""
        self.latency = 0.1

    def heal(self):
        """Everything passes, also what was held."""
        self.is_cut, self.latency = False, 0.0
        self.passing.set()

    def close(self):
        self.is_cut = True
        self.listener.close()
        self._end()

    def _end(self):
        with self.lock:
            sockets, self.sockets = self.sockets, []
        for one in sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = None if self.is_cut else socket.create_connection(self.target, timeout=10)
            except OSError:
                server = None
            if server is None:
                client.close()
                continue
            server.settimeout(None)
            with self.lock:
                self.sockets += [client, server]
            both = [threading.Thread(target=self._pass, args=ends, daemon=True)
                    for ends in ((client, server), (server, client))]
            threading.Thread(target=self._close, args=(both, (client, server)), daemon=True).start()
            if self.is_cut:
                self._end()

    def _close(self, both, ends):
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        with self.lock:
            self.sockets = [one for one in self.sockets if one not in ends]
        for end in ends:
            end.close()

    def _pass(self, source, sink):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if self.latency:
                    time.sleep(random.uniform(0, self.latency))
                self.passing.wait()
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
