"""Passes connections on, and cuts them at any byte."""
import socket
import threading


class Cutter:
    def __init__(self, target):
        self.target = target
        self.left = None
        self.admits = True
        self.lock = threading.Lock()
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count):
        """All connections are cut when so many bytes more have come from the target."""
        with self.lock:
            self.left = count

    def calm(self):
        with self.lock:
            self.left = None

    def close(self):
        self.listener.close()
        self._cut()

    def _cut(self):
        with self.lock:
            sockets, self.sockets, self.left = self.sockets, [], None
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
                server = socket.create_connection(self.target, timeout=10) if self.admits else None
            except OSError:
                server = None
            if server is None:
                client.close()
                continue
            server.settimeout(None)
            with self.lock:
                self.sockets += [client, server]
            for source, sink, is_counted in ((server, client, True), (client, server, False)):
                threading.Thread(target=self._pass, args=(source, sink, is_counted), daemon=True).start()

    def _pass(self, source, sink, is_counted):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                with self.lock:
                    is_cut = is_counted and self.left is not None and len(data) >= self.left
                    if is_cut:
                        data = data[:self.left]
                    elif is_counted and self.left is not None:
                        self.left -= len(data)
                sink.sendall(data)
                if is_cut:
                    self._cut()
                    return
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
