"""The servers of a cluster, and what an operator does with them. The network is that of `proxies.py` or `namespaces.py`."""
import json
import os
import socket
import subprocess
import time
from pathlib import Path

from harness.server import Program, Server, clean_environment, our_binary
from proxies import Proxies

NAMES = ["a", "b", "c"]


class Unanswered(Exception):
    """The server is down, or frozen."""


class Member:
    """One server."""

    def __init__(self, name, top, role, network, keys, file_keys):
        self.name = name
        peers = "".join(f"  peer {network.peer(name, other)}\n" for other in NAMES if other != name)
        keys = "".join(f"  {key}\n" for key in keys)
        file_keys = "".join(f"  {key}\n" for key in file_keys)
        sections = (f"<filestorage 1>\n  path Data.fs\n  pack-gc false\n{file_keys}</filestorage>\n"
                    f"<replication>\n  name {name}\n  role {role}\n  listen {network.listen(name)}\n{peers}{keys}"
                    "</replication>")
        ours = Program.ours()
        program = Program([*network.inside(name), *ours.command], False, ours.name)
        self.server = Server(program, top / name, network.address(name), zeo="admin-socket admin", sections=sections)
        self.is_frozen = False

    @property
    def address(self):
        return list(self.server.address)

    @property
    def directory(self):
        return self.server.directory

    def is_up(self):
        return self.server.running() and not self.is_frozen

    def start(self, timeout=60):
        """Until it answers programs here: the network may be cut."""
        self.is_frozen = False
        self.server.start(wait=False)
        deadline = time.time() + timeout
        while True:
            try:
                self.role()
                return
            except Unanswered as error:
                if not self.server.running() or time.time() > deadline:
                    raise AssertionError(f"{self.name} does not start: {error}\n{self.server.talk()}") from None
            time.sleep(0.02)

    def admin(self, *arguments, timeout=60):
        """Exit status and output of zeoadmin."""
        program = Path(our_binary()).resolve().with_name("zeoadmin")
        try:
            done = subprocess.run([str(program), *arguments, "-C", str(self.directory / "zeo.conf")], timeout=timeout,
                                  cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  env=clean_environment())
        except subprocess.TimeoutExpired:
            raise Unanswered(f"{self.name}: no answer to {' '.join(arguments)} in {timeout} s") from None
        return done.returncode, done.stdout

    def ask(self, command, timeout=10, **arguments):
        """The result of a command, by the socket for programs."""
        try:
            with socket.socket(socket.AF_UNIX) as stream:
                stream.settimeout(timeout)
                until = time.time() + timeout
                # Relative, because the length of such a path is limited.
                stream.connect(os.path.relpath(self.directory / "admin"))
                stream.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
                answer = {}
                for line in stream.makefile():
                    answer = json.loads(line)
                    # Progress comes for as long as it takes.
                    if "progress" not in answer or time.time() > until:
                        break
            if "error" in answer:
                raise Unanswered(f"{self.name}: {command}: {answer['error']}")
            return answer["result"]
        except (OSError, ValueError, KeyError) as error:
            raise Unanswered(f"{self.name}: {command}: {type(error).__name__}: {error}") from None

    def role(self):
        return self.ask("role")

    def place(self):
        """How far its history goes: of two servers the one with the greater place has what was answered."""
        role = self.role()
        return role["promotions"], role["storages"][0]["last"]

    def timelines(self):
        """Those of the state file, as (number, id, server)."""
        lines = (self.directory / "Data.fs.replication").read_text().splitlines()
        found = [line.split(" ", 4) for line in lines if line.startswith("timeline ")]
        return [(int(number), name, by) for _, name, number, _, by in found]


class Cluster:
    """`keys`: of all `<replication>` sections, `file_keys`: of all files. The first server is the primary at first."""

    def __init__(self, top, keys, network=Proxies, file_keys=()):
        self.network = network(NAMES)
        self.members = {name: Member(name, top, "replica" if number else "primary", self.network, keys, file_keys)
                        for number, name in enumerate(NAMES)}

    def __iter__(self):
        return iter(self.members.values())

    def __getitem__(self, name):
        return self.members[name]

    @property
    def addresses(self):
        return [member.address for member in self]

    def start(self):
        for member in self:
            member.start()
        self.wait_whole()

    def primaries(self):
        found = []
        for member in self:
            try:
                found += [member] if member.is_up() and member.role()["role"] == "primary" else []
            except Unanswered:
                pass
        return found

    def wait_whole(self, timeout=90):
        """Until there is one primary, which all others follow and have everything of. Returns it."""
        deadline = time.time() + timeout
        while True:
            try:
                roles = {member.name: member.role() for member in self}
                leading = [name for name, role in roles.items() if role["role"] == "primary"]
                lasts = {role["storages"][0]["last"] for role in roles.values()}
                followed = {role["primary"] for role in roles.values() if role["role"] != "primary"}
                if len(leading) == 1 and len(lasts) == 1 and followed <= set(leading):
                    return self[leading[0]]
                why = f"primaries {leading}, followed {followed}, last transactions {lasts}"
            except Unanswered as error:
                why = str(error)
            if time.time() > deadline:
                logs = "\n".join(f"{member.name}:\n{member.server.log_text()[-1500:]}" for member in self)
                raise AssertionError(f"the cluster is not whole after {timeout} s: {why}\n{logs}")
            time.sleep(0.1)

    def stop(self):
        """All together; each must end by itself."""
        for member in self:
            code = member.server.stop()
            if code:
                raise AssertionError(f"{member.name} ended with {code}:\n{member.server.talk()}")

    def kill(self):
        for member in self:
            member.server.kill()
        self.network.close()
