"""A backup is put in the place of Data.fs. Clients with cache files know transactions, objects and ids that are lost with the
file of before: they must go on with what is there, without anybody's help, and no object id may be given out twice.
"""
import shutil
import time

from harness import backups, generations
from harness.agents import ClientError
from harness.scenario import Skip, all_together, check, equal, per_generation, raises
from harness.server import Program

from .basics import Z64
from .caches import open_cached, verified
from .switch_back import need

RESTORED = "is not as it was left"
TOUCHED = "was copied, moved or touched since it was left"
UNKNOWN = "was last written by another program, or comes from elsewhere"
MARKER = "runzeo: this file was restored, copied or moved"

# What clients say, or who reads their logs, when they do not go on.
REFUSALS = ("newer transactions than server", "Server behind client", "remove the cache file", "out of sync")


class Ids:
    """Which object ids each client was given, used or not. A client that is opened again is another one."""

    def __init__(self):
        self.given = {}

    def take(self, holder, agent, h, count=2):
        taken = agent.new_oids(h=h, count=count)
        self.given.setdefault(holder, set()).update(taken, agent.reserved_oids(h=h))
        return taken

    def check(self):
        holder_of = {}
        for holder, oids in self.given.items():
            twice = {holder_of[oid]: oid for oid in sorted(oids) if oid in holder_of}
            check(not twice, f"given to {holder} and before to", twice)
            holder_of.update((oid, holder) for oid in oids)


class Story:
    """One database with a client that has a cache file (`c`), others without (`w`), and what is right in it."""

    def __init__(self, world, generation, program=None, name="server"):
        self.world = world
        self.generation = generation
        if world.make_program(generation).is_python:
            raise Skip("Python's server lets clients go on with what is lost, or not connect")
        # Old clients wait for acknowledgements of TCP several times in each transaction.
        address = str(world.directory / "socket") if generation.age < 500 else None
        self.server = world.server(generation, name=name, program=program, address=address)
        self.backup = self.directory(f"backup-{name}")
        self.ids = Ids()
        self.openings = 0
        self.names = {}
        self.cached = self.writer = None
        # oid -> [value, tid]
        self.right = {}
        # Objects that have lost their last states; what is there instead, if anything, is in `right`.
        self.lost = set()

    def directory(self, name):
        made = self.world.directory / name
        made.mkdir()
        return made

    def open_writer(self):
        self.writer = self.world.client(self.generation, self.server, h="w", agent=self.writer)
        self.opened("w", "a client without a cache")

    def open_cached(self):
        self.cached = open_cached(self.world, self.generation, self.server, agent=self.cached, watch=False, poll=0.1)
        self.cached.db_open(h="c")
        self.opened("c", "the client with the cache")

    def opened(self, h, what):
        self.openings += 1
        self.names[h] = f"{what} ({self.openings})"

    def take_ids(self, h, count=2):
        return self.ids.take(self.names[h], self.cached if h == "c" else self.writer, h, count)

    def write(self, agent, h, values):
        """Commits these values, oid -> value; they are right from now on."""
        changes = [[oid, self.right.get(oid, [None, Z64])[1], value, 0] for oid, value in values.items()]
        tid = agent.commit(h=h, changes=changes)
        self.right.update((oid, [value, tid]) for oid, value in values.items())
        return tid

    def wait_seen(self, values):
        """Until the client with the cache has heard of these, and has them in its cache."""
        deadline = time.time() + 60
        for oid, value in values.items():
            while self.cached.load(h="c", oid=oid)["value"] != value:
                check(time.time() < deadline, "the client does not hear of", oid)
                time.sleep(0.005)

    def begin(self):
        """Up to what the backup will have: a == 1, b == 10."""
        self.open_writer()
        self.writer.bootstrap(h="w")
        self.open_cached()
        self.a, self.b = self.take_ids("c")
        self.write(self.cached, "c", {self.a: 1})
        self.write(self.writer, "w", {self.b: 9})
        self.cached.load(h="c", oid=self.b)
        self.count_to(1)
        self.write(self.writer, "w", {self.b: 10})
        self.wait_seen({self.a: 1, self.b: 10})

    def count_to(self, value):
        equal(self.cached.db_count(h="c", times=1)["done"], 1)
        equal(self.cached.db_counters(h="c"), [value, value])

    def lose(self):
        """What the backup will not have. Two clients have ids that they have not used."""
        kept = dict(self.right)
        lostobj = self.take_ids("w", 3)[0]
        mine = self.take_ids("c")[0]
        self.write(self.writer, "w", {self.a: 666, lostobj: 666})
        self.wait_seen({self.a: 666, lostobj: 666})
        self.write(self.cached, "c", {mine: 666})
        self.count_to(2)
        # So that the cache has a revision of the lost time that was not the last.
        self.write(self.writer, "w", {self.a: 667})
        self.wait_seen({self.a: 667, lostobj: 666, mine: 666})
        return self.go_back(kept)

    def go_back(self, kept):
        """Only this is right now. Returns what was."""
        before = self.right
        self.lost |= {oid for oid, state in before.items() if kept.get(oid) != state}
        self.right = dict(kept)
        return before

    def close_clients(self):
        self.writer.close(h="w")
        self.cached.close(h="c")

    def another_commits(self):
        """A client without a cache, with ids of its own."""
        self.open_writer()
        new = self.take_ids("w")[0]
        self.write(self.writer, "w", {self.b: self.right[self.b][0] + 10, new: 5})

    def wait_connected(self):
        """An old client counts as connected, and reads from its cache, before it has verified that."""
        self.cached.wait_connected(h="c")
        deadline = time.time() + 60
        while self.wrong() and time.time() < deadline:
            time.sleep(0.02)

    def wrong(self):
        """What the client with the cache sees and should not."""
        found = {}
        for oid in sorted(self.lost | set(self.right)):
            try:
                loaded = self.cached.load(h="c", oid=oid)
                found[oid] = [loaded["value"], loaded["tid"]]
            except ClientError as error:
                found[oid] = error.name
        return [f"{oid}: {state}, not {self.right.get(oid, 'POSKeyError')}" for oid, state in found.items()
                if state != self.right.get(oid, "POSKeyError")]

    def check_client(self, counters=1):
        """The client with the cache sees what is there, commits, and is heard."""
        equal(self.wrong(), [], "what the client sees")
        equal(self.cached.db_counters(h="c"), [counters, counters], "counters")
        new = self.take_ids("c")[0]
        self.write(self.cached, "c", {self.a: 2, new: 3})
        self.count_to(counters + 1)
        if not self.writer_is_open():
            self.open_writer()
        self.take_ids("w", 101)
        for oid, (value, tid) in self.right.items():
            loaded = self.writer.load(h="w", oid=oid)
            equal((loaded["value"], loaded["tid"]), (value, tid), f"what another client sees of {oid}")
        self.write(self.writer, "w", {self.b: 77})
        self.wait_seen({self.b: 77})
        self.ids.check()
        for part in REFUSALS:
            equal(self.cached.logged(part=part), [], "the client's log")

    def writer_is_open(self):
        try:
            return self.writer.is_connected(h="w")
        except ClientError:
            return False

    def check_file(self, markers):
        """Python's FileStorage finds what the clients saw."""
        self.close_clients()
        equal(self.server.stop(), 0)
        # Without the index, which ZODB3 3.9 could not read.
        copy = self.world.directory / "looked-at.fs"
        shutil.copyfile(self.server.data_path, copy)
        found = self.writer.read_file(path=str(copy))
        for oid, value in self.right.items():
            equal(found["current"][oid], value, f"what Python reads of {oid}")
        check(not self.lost & set(found["current"]) - set(self.right), "lost objects in the file")
        empty = [description for _, description, oids in found["transactions"] if not oids]
        equal(empty, [MARKER] * markers, "transactions without records")
        equal(found["undo"].count(MARKER), markers, "in the undo log")
        tids = [tid for tid, _, _ in found["transactions"]]
        equal(tids, sorted(set(tids)), "order of transactions")


def restore(back_up, put_back, running=False, index=True, kill=False, connected=False, exchange=False, commit=False,
            says=RESTORED, markers=1):
    """A test that backs up in this way and puts back in that way.

    running: the server runs while the backup is made. index: that of the lost file stays. kill: with -9. connected: the
    client with the cache stays. exchange: the server runs while the backup is put back. commit: another client commits
    before that one returns. says: what the server logs at the start. markers: transactions that it adds then.
    """
    def test(world, generation):
        story = Story(world, generation)
        server = story.server
        story.begin()
        if not running:
            story.close_clients()
            equal(server.stop(), 0)
        back_up(server, story.backup)
        if not running:
            server.start()
            story.open_writer()
            story.open_cached()
        story.lose()
        if not connected:
            story.cached.close(h="c")
        story.writer.close(h="w")
        if exchange:
            put_back(server, story.backup)
        if kill:
            world.kill(server)
        else:
            equal(server.stop(), 0)
        if connected:
            story.cached.wait_connected(h="c", wanted=False)
        if not exchange:
            put_back(server, story.backup)
        if not index:
            backups.remove_index(server)
        story.cached.forget_log()
        logged = len(server.log_text())
        server.start()
        if commit:
            story.another_commits()
        if connected:
            story.wait_connected()
        else:
            story.open_cached()
        lines = server.log_text()[logged:]
        check(says in lines, "not in the log:", says, "but", lines)
        verified(story.cached, generation, False)
        story.check_client()
        story.check_file(markers)
    return test


def register(**cases):
    for name, test in cases.items():
        test.__name__, test.__module__ = name, __name__
        per_generation()(test)


register(
    copied_while_stopped_put_over=restore(backups.copy_file, backups.put_over),
    copied_while_running_renamed=restore(
        backups.copy_file, backups.put_renamed, running=True, index=False, kill=True, commit=True),
    by_repozo=restore(backups.repozo, backups.put_by_repozo, running=True, commit=True),
    by_zeobackup=restore(backups.zeobackup, backups.put_by_zeobackup, running=True, kill=True, commit=True),
    by_zeobackup_after_python=restore(
        backups.zeobackup, backups.put_by_zeobackup_after_python, running=True, index=False),
    from_a_repository=restore(
        backups.in_repository, backups.put_from_repository, running=True, kill=True, connected=True),
    from_a_repository_after_a_lost_disk=restore(
        backups.in_repository, backups.put_after_a_lost_disk, running=True, kill=True, commit=True),
    to_a_transaction=restore(backups.at_transaction, backups.put_to_transaction, running=True, connected=True),
    whole_directory_put_over=restore(backups.copy_family, backups.put_over, says=TOUCHED),
    whole_directory_of_a_running_server=restore(
        backups.copy_family, backups.put_alone, running=True, kill=True, connected=True, commit=True, says=TOUCHED),
    exchanged_under_the_running_server=restore(
        backups.copy_file, backups.put_renamed, running=True, connected=True, exchange=True),
    # Nobody can tell that it is not the newest. Without the commit the client would find a server that is behind:
    # `caches.a_client_newer_than_the_server_is_told`.
    on_a_new_machine=restore(
        backups.copy_file, backups.put_alone, running=True, commit=True, says=UNKNOWN, markers=0),
)


@per_generation()
def a_cache_of_the_time_before_is_kept(world, generation):
    """A client that was away since before the backup has seen nothing that is lost."""
    story = Story(world, generation)
    story.begin()
    story.cached.close(h="c")
    backups.copy_file(story.server, story.backup)
    kept = dict(story.right)
    story.write(story.writer, "w", {story.a: 666})
    story.go_back(kept)
    story.writer.close(h="w")
    equal(story.server.stop(), 0)
    backups.put_renamed(story.server, story.backup)
    story.cached.forget_log()
    story.server.start()
    story.another_commits()
    story.open_cached()
    verified(story.cached, generation, True)
    story.check_client()
    story.check_file(markers=1)


@per_generation()
def restored_twice_then_the_lost_file(world, generation):
    story = Story(world, generation)
    story.begin()
    backups.copy_file(story.server, story.backup)
    newest = story.lose()
    kept = dict(story.right)
    story.close_clients()
    equal(story.server.stop(), 0)
    lost = story.directory("lost")
    backups.copy_file(story.server, lost)
    for backup, right, counters in ((story.backup, kept, 1), (story.backup, kept, 1), (lost, newest, 2)):
        backups.put_renamed(story.server, backup)
        story.go_back(right)
        story.server.start()
        story.open_cached()
        story.check_client(counters)
        if backup is not lost:
            story.close_clients()
            equal(story.server.stop(), 0)
    story.check_file(markers=1)


@per_generation()
def packed_so_that_the_last_transaction_is_gone(world, generation):
    """What clients have seen last was garbage. The server that did the pack knows of it, the file does not."""
    story = Story(world, generation)
    story.begin()
    garbage = story.take_ids("w")[0]
    story.write(story.writer, "w", {garbage: 5})
    story.wait_seen({garbage: 5})
    story.cached.close(h="c")
    story.writer.pack(h="w", at=time.time() + 86400)
    story.go_back({})
    story.writer.close(h="w")
    equal(story.server.stop(), 0)
    story.cached.forget_log()
    story.server.start()
    check("a pack has dropped the last transactions" in story.server.log_text(), story.server.log_text())
    story.open_cached()
    story.check_client()
    story.check_file(markers=1)


@per_generation(but=("zodb38-py27",))
def python_wrote_last(world, generation):
    """Clients of ZEO 5 and 6 keep their ids over a reconnect, and nothing in the file tells of them."""
    need(generation.python_server)
    story = Story(world, generation, Program.python(generation.python_server))
    story.begin()
    story.take_ids("w")
    story.cached.close(h="c")
    story.write(story.writer, "w", {story.b: 11})
    equal(story.server.stop(), 0)
    story.writer.wait_connected(h="w", wanted=False)
    written = story.server.data_path.read_bytes()
    story.server.program = world.make_program(generation)
    story.cached.forget_log()
    logged = len(story.server.log_text())
    story.server.start()
    story.open_cached()
    # Clients of ZEO 5 and 6 sometimes leave a cache file that they cannot read: they put it aside and begin a new one.
    if not any((world.directory / "cache").glob("*.bad")):
        verified(story.cached, generation, True)
    lines = story.server.log_text()[logged:]
    equal(story.server.data_path.read_bytes(), written, "the file after the start")
    story.writer.wait_connected(h="w")
    story.write(story.writer, "w", {oid: 8 for oid in story.take_ids("w")})
    story.take_ids("c", 101)
    story.check_client()
    story.check_file(markers=0)
    check(UNKNOWN in lines, lines)


@all_together
def tools_of_every_generation_read_the_marker(world):
    for name in ("zodb38-py27", "zodb39-py27", "zodb310-py27", "zeo4-py27", "zeo4-py36", "zeo5-py38", "zeo6-py311"):
        generation = generations.BY_NAME[name]
        if generation.missing():
            continue
        story = Story(world, generation, name=name)
        story.open_writer()
        (oid,) = story.take_ids("w", 1)
        story.write(story.writer, "w", {oid: 1})
        story.writer.close(h="w")
        equal(story.server.stop(), 0)
        story.server.data_path.touch()
        story.server.start()
        story.open_writer()
        story.write(story.writer, "w", {oid: 2})
        story.writer.close(h="w")
        equal(story.server.stop(), 0)
        backups.remove_index(story.server)
        path = story.server.data_path
        programs = generation.python.parent
        check(MARKER in backups.run(programs / "fsdump", path), "fsdump")
        backups.run(programs / "repozo", "-B", "-F", "-r", story.backup, "-f", path)
        copy = path.with_name("copy.fs")
        backups.run(programs / "repozo", "-R", "-r", story.backup, "-o", copy)
        equal(copy.read_bytes(), path.read_bytes(), "repozo")
        if generation.age >= 500:
            for script in ("fstail", "fstest"):
                backups.run(generation.python, "-m", "ZODB.scripts." + script, path)


def blobs_after(world, generation, lost_files):
    """`Data.fs` of before, and the blob directory of before or, if `lost_files`, that of the lost time."""
    if world.make_program(generation).is_python:
        raise Skip("Python's server lets clients go on with what is lost, or not connect")
    server = world.server(generation, storages={"1": ("Data.fs", "blob-dir blobs")})
    blobs, cache = server.directory / "blobs", world.directory / "blob-cache"
    cache.mkdir()

    def opened(agent=None):
        return open_cached(world, generation, server, agent=agent, watch=False, poll=0.1, blob_dir=str(cache),
                           shared_blob_dir=False)

    agent = opened()
    agent.bootstrap(h="c")
    changed, kept, lost = agent.new_oids(h="c", count=3)
    first = agent.commit_blobs(h="c", blobs=[[changed, Z64, 70000, "first"], [kept, Z64, 100, "kept"]])
    backup = world.directory / "backup"
    backup.mkdir()
    backups.copy_file(server, backup)
    shutil.copytree(blobs, world.directory / "blobs-backup")

    second = agent.commit_blobs(h="c", blobs=[[changed, first, 80000, "lost"], [lost, Z64, 200, "lost"]])
    for oid, serial in (changed, second), (lost, second), (kept, first):
        agent.load(h="c", oid=oid)
        agent.load_blob(h="c", oid=oid, serial=serial)
    agent.close(h="c")
    equal(server.stop(), 0)
    backups.put_renamed(server, backup)
    if not lost_files:
        shutil.rmtree(blobs)
        shutil.copytree(world.directory / "blobs-backup", blobs)
    server.start()

    agent = opened(agent)
    verified(agent, generation, False)
    for oid, size, seed in (changed, 70000, "first"), (kept, 100, "kept"):
        serial = agent.load(h="c", oid=oid)["tid"]
        equal(serial, first, "the revision of before")
        equal(agent.load_blob(h="c", oid=oid, serial=serial), agent.blob_sum(size=size, seed=seed), seed)
    raises("POSKeyError", agent.load, h="c", oid=lost)
    again = agent.new_oids(h="c", count=1)[0]
    check(again not in (changed, kept, lost), "given out twice", again)
    third = agent.commit_blobs(h="c", blobs=[[changed, first, 300, "third"], [again, Z64, 400, "new"]])
    check(third > second, "a tid of the lost time", third)
    other = world.client(generation, server, h="o", agent=agent, blob_dir=str(world.directory / "another-cache"),
                         shared_blob_dir=False)
    for h, oid, size, seed in [("o", changed, 300, "third"), ("o", again, 400, "new"), ("o", kept, 100, "kept"),
                               ("c", changed, 300, "third"), ("c", again, 400, "new")]:
        serial = other.load(h=h, oid=oid)["tid"]
        equal(other.load_blob(h=h, oid=oid, serial=serial), agent.blob_sum(size=size, seed=seed), seed)


@per_generation()
def blobs_restored_with_the_file(world, generation):
    blobs_after(world, generation, lost_files=False)


@per_generation()
def the_file_restored_beside_blobs_of_the_lost_time(world, generation):
    blobs_after(world, generation, lost_files=True)
