"""A runzeo to test against: ours by default, or Python's, each started from a configuration file."""
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from . import generations


def our_binary():
    return os.environ.get("RUNZEO_BINARY") or str(generations.ROOT / "target" / "release" / "runzeo")


def free_port(family=socket.AF_INET, host="127.0.0.1"):
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def clean_environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ZEO_", "INSTANCE_HOME"))}
    env.update(more)
    return env


class Program:
    """The command of a server: one binary or script, and whether it is Python's."""

    def __init__(self, command, is_python, name):
        self.command = command
        self.is_python = is_python
        self.name = name

    @classmethod
    def ours(cls):
        return cls([our_binary()], False, "runzeo")

    @classmethod
    def python(cls, environment):
        directory = generations.VENVS / environment / "bin"
        return cls([str(directory / "python"), str(directory / "runzeo")], True, f"Python runzeo of {environment}")


class Server:
    """One server with its directory. `address` is what a client is given: (host, port) or a socket's path."""

    def __init__(self, program, directory, address=None, zeo="", storages=None, listen=None, eventlog=True,
                 sections=None):
        self.program = program
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.address = address or ("127.0.0.1", free_port())
        self.listen = listen
        self.zeo = zeo
        # name -> (path, more keys)
        self.storages = storages or {"1": ("Data.fs", "")}
        # Storages as they stand in the configuration, instead of files.
        self.sections = sections
        self.eventlog = eventlog
        self.process = None

    @property
    def data_path(self):
        return self.directory / next(iter(self.storages.values()))[0]

    @property
    def log_path(self):
        return self.directory / "zeo.log"

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def write_config(self):
        listen = self.listen
        if listen is None:
            listen = self.address if isinstance(self.address, str) else "%s:%s" % tuple(self.address)
        imports = [line for line in (self.sections or "").splitlines() if line.startswith("%import")]
        lines = imports + ["<zeo>", f"  address {listen}"]
        lines += ["  " + line for line in self.zeo.splitlines()]
        lines += ["</zeo>"]
        if self.sections is not None:
            lines += [line for line in self.sections.splitlines() if line not in imports]
        for name, (path, keys) in self.storages.items() if self.sections is None else ():
            lines += [f"<filestorage {name}>", f"  path {path}"]
            lines += ["  " + line for line in keys.splitlines()]
            lines += ["</filestorage>"]
        if self.eventlog:
            lines += ["<eventlog>", "  level info", "  <logfile>", f"    path {self.log_path}", "  </logfile>",
                      "</eventlog>"]
        config = self.directory / "zeo.conf"
        config.write_text("\n".join(lines) + "\n")
        return config

    def start(self, wait=True, environment=()):
        config = self.write_config()
        self.output = open(self.directory / "output.log", "ab")
        self.process = subprocess.Popen(self.program.command + ["-C", str(config)], cwd=self.directory,
                                        stdout=self.output, stderr=self.output,
                                        env=clean_environment(**dict(environment)))
        if wait:
            self.wait_listening()
        return self

    def connect(self):
        if isinstance(self.address, str):
            probe = socket.socket(socket.AF_UNIX)
            probe.settimeout(60)
            probe.connect(self.address)
            return probe
        return socket.create_connection(tuple(self.address), timeout=60)

    def wait_listening(self, timeout=60):
        deadline = time.time() + timeout
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.program.name} ended with {self.process.returncode}:\n{self.talk()}")
            try:
                with self.connect() as probe:
                    if "<ssl>" in self.zeo:
                        # What is not TLS is answered too: with an alert, or the end.
                        probe.sendall(b"hello")
                        probe.recv(1)
                        return
                    if probe.recv(1):  # it greets, so it serves
                        return
            except OSError:
                pass
            if time.time() > deadline:
                raise RuntimeError(f"{self.program.name} does not listen on {self.address}:\n{self.talk()}")
            time.sleep(0.01)

    def talk(self):
        output = self.directory / "output.log"
        text = output.read_text(errors="replace")[-1500:] if output.exists() else ""
        return text + self.log_text()[-1500:]

    def running(self):
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout=60):
        """Sends the signal and returns the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
            if self.program.is_python and number == signal.SIGTERM:
                # Python's servers under uvloop lose about one SIGTERM of a hundred.
                try:
                    self.process.wait(2)
                except subprocess.TimeoutExpired:
                    self.process.send_signal(number)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"{self.program.name} did not end {timeout} s after signal {number}") from None
        self.output.close()
        if self.program.is_python and self.process.returncode == -signal.SIGTERM:
            return 0  # the second one met it when its handler was gone already
        return self.process.returncode

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait()

    def rss(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))
