"""Certificates made with the openssl command, and a wrapper such as stunnel for clients that know no TLS."""
import select
import shutil
import socket
import ssl
import subprocess
import threading

from .scenario import Skip


def certificate(directory, name):
    """A self-signed certificate and its key: two files. Signed by itself it is its own authority."""
    if not shutil.which("openssl"):
        raise Skip("there is no openssl command to make certificates")
    certificate, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", f"/O=Tests/CN={name}", "-days", "3650", "-keyout", str(key), "-out", str(certificate)],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return str(certificate), str(key)


def signed_certificate(directory, name, authority):
    """The same, signed by the owner of another one."""
    request = directory / "request.cnf"
    request.write_text("[req]\ndistinguished_name = name\n[name]\n")
    certificate, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
    subprocess.run(["openssl", "req", "-x509", "-config", str(request), "-CA", authority[0], "-CAkey", authority[1],
                    "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/O=Tests/CN={name}",
                    "-addext", "basicConstraints=critical,CA:FALSE", "-days", "3650",
                    "-keyout", str(key), "-out", str(certificate)],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return str(certificate), str(key)


class Tunnel:
    """Listens without TLS and connects to `address` with it, as `(certificate, key)`."""

    def __init__(self, address, identity, server_certificate):
        self.target = tuple(address)
        self.context = ssl.create_default_context(cafile=server_certificate)
        self.context.check_hostname = False
        self.context.load_cert_chain(*identity)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                plain = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain):
        try:
            with plain, self.context.wrap_socket(socket.create_connection(self.target)) as secure:
                self._pump(plain, secure)
        except OSError:
            pass

    @staticmethod
    def _pump(plain, secure):
        """One thread for both directions, for OpenSSL wants it so."""
        plain.setblocking(False)
        secure.setblocking(False)
        waiting = {plain: b"", secure: b""}
        other = {plain: secure, secure: plain}
        while True:
            readable = [end for end in other if not waiting[other[end]]]
            if not secure.pending():
                writable = [end for end in other if waiting[end]]
                select.select(readable, writable, [])
            for end in readable:
                try:
                    data = end.recv(65536)
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    continue
                if not data:
                    return
                waiting[other[end]] += data
            for end, data in waiting.items():
                if data:
                    try:
                        waiting[end] = data[end.send(data):]
                    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                        pass

    def close(self):
        self.listener.close()
