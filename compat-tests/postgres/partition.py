"""The case `partition` of `run`: a server in a network namespace of its own, whose only way to PostgreSQL is cut without
a word. Clients reach it by a Unix socket. Another server stays connected.

It needs root's rights, and `ip` of iproute2.
"""
import os
import random
import shutil
import subprocess
import time

from database import Database
from failures import Stage, available, locks_go_to_others
from harness.server import Program

# Of the two ends of the cable.
DATABASE_ADDRESS, SERVER_ADDRESS = "10.213.77.1", "10.213.77.2"


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, stderr=subprocess.PIPE).returncode


class Cable:
    """A namespace, and the cable that leads into it."""

    def __init__(self):
        self.namespace = f"runzeo-{os.getpid()}"
        self.ends = [f"rz{os.getpid()}a", f"rz{os.getpid()}b"]

    def lay(self):
        near, far = self.ends
        ip("netns", "add", self.namespace)
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.namespace)
        ip("address", "add", f"{DATABASE_ADDRESS}/30", "dev", near)
        ip("-n", self.namespace, "address", "add", f"{SERVER_ADDRESS}/30", "dev", far)
        ip("-n", self.namespace, "link", "set", far, "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        self.join()

    def cut(self):
        ip("link", "set", self.ends[0], "down")

    def join(self):
        ip("link", "set", self.ends[0], "up")

    def remove(self):
        ip("link", "delete", self.ends[0], check=False)
        ip("netns", "delete", self.namespace, check=False)

    def program(self):
        """The server, inside."""
        ours = Program.ours()
        return Program(["ip", "netns", "exec", self.namespace, *ours.command], False, ours.name)


def is_possible():
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    name = f"runzeo-{os.getpid()}-try"
    possible = ip("netns", "add", name, check=False) == 0
    if possible:
        ip("netns", "delete", name)
    return possible


def run(top, name, keep_history, rounds, make_section, failures):
    cable, database = Cable(), Database(top / "pg")
    rules = top / "pg_hba.conf"
    rules.write_text(f"local all all trust\nhost all all {SERVER_ADDRESS}/32 trust\n")
    try:
        cable.lay()
        database.start("--set", f"listen_addresses={DATABASE_ADDRESS}", "--hba", str(rules))
        inside = database.create(name)
        outside = f"host={DATABASE_ADDRESS} port=5432 user=postgres dbname={name} sslmode=disable"
        sections = [make_section(dsn, keep_history) for dsn in (outside, inside)]
        with Stage(top, database, name, keep_history, sections, [cable.program(), Program.ours()]) as stage:
            stage.begin()
            for number in range(rounds):
                for generation in available():
                    locks_go_to_others(stage, generation, "was cut off", cable.cut, cable.join)
                for seconds in (0.5, 5, 15, 45):
                    time.sleep(random.uniform(1, 4))
                    cable.cut()
                    time.sleep(seconds)
                    cable.join()
                    print(f"  round {number}: cut for {seconds} s", flush=True)
                time.sleep(random.uniform(1, 4))
            failures.extend(stage.finish())
    finally:
        cable.remove()
        database.stop()
