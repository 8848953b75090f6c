"""The way from one server to another: passes connections on, and cuts, holds or delays them. Threads and nothing else."""
import random
import socket
import threading
import time


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

    def delay(self, longest):
        """What passes comes later."""
        self.latency = longest

    def heal(self):
        """Everything passes, also what was held."""
        self.is_cut, self.latency = False, 0.0
        self.passing.set()

    def is_whole(self):
        return self.passing.is_set() and not self.is_cut

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
