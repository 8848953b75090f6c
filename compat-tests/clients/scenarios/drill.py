"""A rehearsed disaster: clients of all generations write objects and blobs, with cache files; the server backs up within seconds;
its disk is lost; what was backed up is restored; the clients go on, and see what is there and nothing else. Again and again.
"""
import json
import shutil
import time

from harness import backups, generations
from harness.agents import ClientError
from harness.files import python_for
from harness.scenario import Skip, all_together, check, equal

from .basics import Z64

SECTIONS = """<filestorage 1>
  path Data.fs
  blob-dir blobs
</filestorage>
<backup>
  repository repository
  continuous 1s
</backup>"""
ROUNDS = 3


class Site:
    """The server, its clients, and what they were told."""

    def __init__(self, world):
        self.world = world
        self.server = world.server(sections=SECTIONS, start=False)
        self.here = self.server.directory
        # A repository must be there; it is made of an empty database.
        (self.here / "Data.fs").write_bytes(b"FS30")
        self.zeobackup("create", "-q", "-f", self.here / "Data.fs", "-b", self.here / "blobs")
        self.server.start()
        self.agents = {}
        for generation in generations.ALL:
            if not generation.msgpack and not generation.missing():
                directory = world.directory / f"client-{generation}"
                (directory / "blobs").mkdir(parents=True)
                self.agents[generation] = world.client(
                    generation, self.server, client="drill", var=str(directory), blob_dir=str(directory / "blobs"))
        if len(self.agents) < 2:
            raise Skip("needs at least two environments")
        # oid -> [(tid, value)], and of blobs [(tid, seed)]; oldest first, as far as they are not lost.
        self.told = {}
        self.blobs = {}
        self.own = {}
        self.value = 0
        for generation, agent in self.agents.items():
            self.own[generation] = agent.new_oids(h="a", count=2)

    def zeobackup(self, verb, *arguments):
        backups.run(backups.zeobackup_program(), verb, "-r", self.here / "repository", *arguments)

    def write(self):
        """Each client changes its object and its blob, and then all of them one that is common to all."""
        for generation, agent in self.agents.items():
            plain, blob = self.own[generation]
            self.value += 1
            self.put(agent, plain)
            seed = f"{generation} {self.value}"
            tid = agent.commit_blobs(h="a", blobs=[[blob, self.last(self.blobs, blob), 1000 + self.value, seed]])
            self.blobs.setdefault(blob, []).append((tid, (1000 + self.value, seed)))
        common = self.own[next(iter(self.agents))][0]
        for agent in self.agents.values():
            self.value += 1
            self.put(agent, common)

    def put(self, agent, oid):
        tid = agent.commit(h="a", changes=[[oid, self.last(self.told, oid), self.value, 0]])
        self.told.setdefault(oid, []).append((tid, self.value))

    @staticmethod
    def last(told, oid):
        return told[oid][-1][0] if told.get(oid) else Z64

    def backed_up(self):
        """The last transaction of the newest backup."""
        listed = backups.run(backups.zeobackup_program(), "list", "--json", "-r", self.here / "repository")
        return json.loads(listed.splitlines()[-1])["last_tid"]

    def newest(self):
        return max(tid for told in (self.told, self.blobs) for states in told.values() for tid, _ in states)

    def wait_backed_up(self, tid):
        deadline = time.time() + 60
        while True:
            try:
                if self.backed_up() >= tid:
                    return
            # While the server has the repository for itself.
            except RuntimeError as error:
                check("is in use by another run" in str(error), error)
            check(time.time() < deadline, "not backed up:", tid, self.server.log_text()[-2000:])
            time.sleep(0.1)

    def lose_disk(self):
        self.world.kill(self.server)
        for path in self.here.glob("Data.fs*"):
            path.unlink()
        shutil.rmtree(self.here / "blobs")
        for agent in self.agents.values():
            agent.wait_connected(h="a", wanted=False)

    def restore(self):
        """Returns the last transaction that is there again; forgets what is not."""
        backups.run(backups.zeobackup_program(), "restore", "-r", self.here / "repository", "-f", self.here / "Data.fs",
                    "-b", self.here / "blobs")
        newest = backups.run(backups.zeobackup_program().with_name("zeofs"), "tail", "-n", "1", "--json", self.here / "Data.fs")
        there = json.loads(newest)["tid"]
        for told in (self.told, self.blobs):
            for oid, states in told.items():
                told[oid] = [state for state in states if state[0] <= there]
        return there

    def wrong(self, agent):
        """What a client sees and should not."""
        found = []
        for oid, states in self.told.items():
            try:
                loaded = agent.load(h="a", oid=oid)
                seen = (loaded["tid"], loaded["value"])
            except ClientError as error:
                seen = error.name
            wanted = states[-1] if states else "POSKeyError"
            if seen != wanted:
                found.append(f"{oid}: {seen}, not {wanted}")
        return found

    def check(self):
        for generation, agent in self.agents.items():
            deadline = time.time() + 60
            # Old clients read from their cache before they have verified it.
            while self.wrong(agent) and time.time() < deadline:
                time.sleep(0.05)
            equal(self.wrong(agent), [], f"what {generation} sees")
            for oid, states in self.blobs.items():
                for tid, (size, seed) in states[-2:]:
                    equal(agent.load_blob(h="a", oid=oid, serial=tid), agent.blob_sum(size=size, seed=seed), f"{generation} {oid}")


READ = """import sys
from binascii import hexlify, unhexlify
from ZODB.FileStorage import FileStorage
storage = FileStorage(sys.argv[1], read_only=True)
for oid in sys.argv[2:]:
    print(oid + ' ' + hexlify(storage.load(unhexlify(oid), '')[1]).decode())
"""


def current_tids(path, oids):
    """As Python's FileStorage has them."""
    python = generations.VENVS / python_for(path) / "bin" / "python"
    lines = backups.run(python, "-c", READ, path, *oids).splitlines()
    return dict(line.split() for line in lines if len(line.split()) == 2)


@all_together
def lost_disks_cost_seconds(world):
    site = Site(world)
    for _ in range(ROUNDS):
        site.write()
        kept = site.newest()
        site.wait_backed_up(kept)
        # The next ones may be lost, or not.
        site.write()
        site.write()
        site.lose_disk()
        there = site.restore()
        check(there >= kept, "lost, although it was backed up:", kept, there)
        site.server.start()
        for agent in site.agents.values():
            agent.wait_connected(h="a")
        site.check()
    site.write()
    site.check()
    for agent in site.agents.values():
        agent.close(h="a")
    equal(site.server.stop(), 0)
    site.zeobackup("verify")
    wanted = {oid: states[-1][0] for told in (site.told, site.blobs) for oid, states in told.items()}
    equal(current_tids(site.here / "Data.fs", wanted), wanted, "what Python reads")
