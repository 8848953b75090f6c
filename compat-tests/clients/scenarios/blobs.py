"""Blobs: sent to the server and fetched from it, or put into a directory that clients and server share."""
import shutil
import signal
import time

from harness import files, generations
from harness.scenario import Skip, all_together, check, equal, per_generation, program, raises
from harness.server import Program

from .basics import Z64

CHUNK = 59000
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 300000]
MEGABYTE = 1 << 20


def server(world, generation=None, **kw):
    return world.server(generation, storages={"1": ("Data.fs", "blob-dir blobs")}, **kw)


def client(world, generation, running, h="a", shared=False, agent=None):
    """With a cache of its own, or the server's directory."""
    blob_dir = running.directory / ("blobs" if shared else f"cache-{generation}-{h}-{time.time()}")
    blob_dir.mkdir(exist_ok=True)
    return world.client(generation, running, h=h, agent=agent, blob_dir=str(blob_dir), shared_blob_dir=shared)


def kept(running):
    """The files of blobs, and others that should not be there."""
    blobs = running.directory / "blobs"
    found = sorted(path.relative_to(blobs) for path in blobs.rglob("*") if path.is_file())
    return [path for path in found if str(path) != ".layout"]


def path_of(oid, tid):
    """Where the server keeps it: the bushy layout."""
    return "/".join("0x" + oid[i:i + 2] for i in range(0, 16, 2)) + "/0x" + tid + ".blob"


@per_generation()
def up_and_down(world, generation):
    """Every length around that of a chunk, stored by one client and fetched by another."""
    running = server(world, generation)
    agent = client(world, generation, running)
    oids = agent.new_oids(h="a", count=len(SIZES))
    tid = agent.commit_blobs(h="a", blobs=[[oid, Z64, size, size] for oid, size in zip(oids, SIZES)])
    equal(sorted(str(path) for path in kept(running)), sorted(path_of(oid, tid) for oid in oids))
    client(world, generation, running, h="b", agent=agent)
    for oid, size in zip(oids, SIZES):
        equal(agent.load_blob(h="b", oid=oid, serial=tid), agent.blob_sum(size=size, seed=size), size)
    changed = agent.commit_blobs(h="a", blobs=[[oids[0], tid, 100, "changed"]])
    equal(agent.load_blob(h="b", oid=oids[0], serial=changed), agent.blob_sum(size=100, seed="changed"))
    equal(agent.load_blob(h="b", oid=oids[0], serial=tid), agent.blob_sum(size=0, seed=0), "the old revision")
    for path in kept(running):
        equal((running.directory / "blobs" / path).stat().st_mode & 0o222, 0, "nobody may write")


@per_generation()
def what_is_not_there(world, generation):
    running = server(world, generation)
    agent = client(world, generation, running)
    oid, = agent.new_oids(h="a", count=1)
    tid = agent.commit_blobs(h="a", blobs=[[oid, Z64, 10, 1]])
    error = raises("POSKeyError", agent.load_blob, h="a", oid=oid, serial="00" * 7 + "01")
    text = error.answer["text"]
    check("No blob file" in text or oid in text or oid.lstrip("0") in text, text)
    client(world, generation, running, h="b", agent=agent)
    equal(agent.load_blob(h="b", oid=oid, serial=tid)[0], 10, "and life goes on")


@per_generation()
def aborted_and_refused(world, generation):
    """Nothing is left of a blob whose transaction comes to nothing."""
    running = server(world, generation)
    for shared in False, True:
        before = kept(running)
        agent = client(world, generation, running, shared=shared)
        oid, other = agent.new_oids(h="a", count=2)
        first = agent.commit_blobs(h="a", blobs=[[oid, Z64, 1000, 1]])
        second = agent.commit_blobs(h="a", blobs=[[oid, first, 2000, 2]])
        for vote in False, True:
            agent.begin(h="a")
            agent.store_blob(h="a", oid=other, serial=Z64, size=100000, seed=3)
            if vote:
                agent.vote(h="a")
            agent.abort(h="a")
        raises("ConflictError", agent.commit_blobs, h="a", blobs=[[oid, first, 100000, 4]])
        # A client may go at any time.
        agent.begin(h="a")
        agent.store_blob(h="a", oid=other, serial=Z64, size=100000, seed=5)
        agent.close(h="a")
        deadline = time.time() + 60
        expected = sorted([*map(str, before), path_of(oid, first), path_of(oid, second)])
        while sorted(map(str, kept(running))) != expected and time.time() < deadline:
            time.sleep(0.05)
        left = [path for path in map(str, kept(running)) if path not in expected and not path.endswith((".tmp", ".tmp-"))]
        equal(left, [], "what is left, but for what the client itself left")
        for path in kept(running):
            if str(path) not in expected:
                (running.directory / "blobs" / path).unlink()


@per_generation()
def shared_directory(world, generation):
    """The client puts the file there, the server gives it its name."""
    running = server(world, generation)
    agent = client(world, generation, running, shared=True)
    oid, = agent.new_oids(h="a", count=1)
    tid = agent.commit_blobs(h="a", blobs=[[oid, Z64, 200000, 1]])
    equal([str(path) for path in kept(running)], [path_of(oid, tid)])
    equal(agent.load_blob(h="a", oid=oid, serial=tid), agent.blob_sum(size=200000, seed=1))
    # Another client that does not share it.
    client(world, generation, running, h="b", agent=agent)
    equal(agent.load_blob(h="b", oid=oid, serial=tid), agent.blob_sum(size=200000, seed=1))


@per_generation()
def large(world, generation):
    """64 MB up and down; the server's memory does not grow with them."""
    running = server(world, generation)
    agent = client(world, generation, running)
    oid, = agent.new_oids(h="a", count=1)
    before = running.rss()
    tid = agent.commit_blobs(h="a", blobs=[[oid, Z64, 64 * MEGABYTE, 1]])
    client(world, generation, running, h="b", agent=agent)
    equal(agent.load_blob(h="b", oid=oid, serial=tid), agent.blob_sum(size=64 * MEGABYTE, seed=1))
    if not running.program.is_python:
        grown = (running.rss() - before) / MEGABYTE
        check(grown < 8, f"the server has grown by {grown:.1f} MB")


@per_generation(since=310)
def undone(world, generation):
    """Undo brings the earlier blob back, under the name of the undoing transaction; and so does undo of the undo."""
    running = server(world, generation)
    agent = client(world, generation, running)
    oid, = agent.new_oids(h="a", count=1)
    first = agent.commit_blobs(h="a", blobs=[[oid, Z64, 70000, 1]])
    second = agent.commit_blobs(h="a", blobs=[[oid, first, 80000, 2]])
    client(world, generation, running, h="b", agent=agent)
    expected = second
    for size, seed in [(70000, 1), (80000, 2)]:
        agent.begin(h="a")
        agent.undo(h="a", id=agent.undo_log(h="a")[0]["id"])
        agent.vote(h="a")
        undoing = agent.finish(h="a")
        check(undoing > expected)
        expected = undoing
        equal(agent.load_blob(h="b", oid=oid, serial=undoing), agent.blob_sum(size=size, seed=seed))
    agent.close(h="b")
    agent.close(h="a")
    equal(running.stop(), 0)
    equal(len(files.blobs(running.data_path, running.directory / "blobs")), 4)


@per_generation(but=("zodb38-py27",))
def there_and_back(world, generation):
    """Python's server, ours and Python's again with the same directory; then Python's FileStorage sees them all."""
    if world.make_program(generation).is_python or generations.BY_NAME[generation.python_server].missing():
        raise Skip("needs ours and Python's")
    python = Program.python(generation.python_server)
    running = server(world, generation, program=python)
    ours = world.make_program(generation)
    stored = {}
    for number, next_program in enumerate([ours, python, ours, None]):
        agent = client(world, generation, running)
        oid, = agent.new_oids(h="a", count=1)
        tid = agent.commit_blobs(h="a", blobs=[[oid, Z64, 1000 * number, number]])
        stored[oid, tid] = agent.blob_sum(size=1000 * number, seed=number)
        for (oid, tid), blob in stored.items():
            equal(agent.load_blob(h="a", oid=oid, serial=tid), blob)
        agent.close(h="a")
        equal(running.stop(), 0)
        seen = files.blobs(running.data_path, running.directory / "blobs")
        equal({(oid, tid): [size, sha] for oid, tid, size, sha in seen}, stored)
        if next_program:
            running.program = next_program
            running.start()


@all_together
def every_generation_sees_the_others_blobs(world):
    running = server(world)
    agents, stored = [], {}
    for generation in generations.ALL:
        if generation.missing() or generation.msgpack:
            continue
        agent = client(world, generation, running, h=str(generation))
        agents.append((generation, agent))
        oid, = agent.new_oids(h=str(generation), count=1)
        tid = agent.commit_blobs(h=str(generation), blobs=[[oid, Z64, 100000, str(generation)]])
        stored[oid, tid] = agent.blob_sum(size=100000, seed=str(generation))
    for generation, agent in agents:
        for (oid, tid), blob in stored.items():
            equal(agent.load_blob(h=str(generation), oid=oid, serial=tid), blob, generation)


@all_together
def packed(world):
    """A pack takes out the old revisions, and keeps them beside Data.fs.old."""
    for name in "zeo4-py27", "zeo6-py311":
        generation = generations.BY_NAME[name]
        if generation.missing():
            continue
        running = server(world, generation, name=f"server-{generation}")
        agent = client(world, generation, running)
        agent.commit(h="a", changes=[[Z64, Z64, 1, 0]])
        # Nothing refers to it: the root is no pickle with references.
        oid, = agent.new_oids(h="a", count=1)
        agent.commit_blobs(h="a", blobs=[[oid, Z64, 1000, 1]])
        agent.pack(h="a")
        equal(kept(running), [])
        check(list((running.directory / "blobs.old").rglob("*.blob")), "the old ones are kept")


@program(ours_only=True)
def no_room_for_a_blob(world):
    """A file may only grow so long: that transaction fails, its file is gone, and all others go on."""
    generation = next(g for g in generations.ALL if g.age >= 400 and not g.missing())
    ours = world.make_program(generation)
    limited = Program(["bash", "-c", 'ulimit -f 4096; exec "$0" "$@"', *ours.command], False, ours.name)
    running = server(world, generation, program=limited)
    agent = client(world, generation, running)
    oid, other = agent.new_oids(h="a", count=2)
    raises(("OSError", "ServerException", "IOError", "ClientStorageError"), agent.commit_blobs, h="a",
           blobs=[[oid, Z64, 8 * MEGABYTE, 1]])
    equal(kept(running), [])
    tid = agent.commit_blobs(h="a", blobs=[[other, Z64, MEGABYTE, 2]])
    equal([str(path) for path in kept(running)], [path_of(other, tid)])
    check("Can't store a blob" in running.log_text(), "the operator is told")


@program(ours_only=True)
def killed_in_the_midst(world):
    """What a killed server leaves is removed when it is started again, and nothing else."""
    generation = next(g for g in generations.ALL if g.age >= 400 and not g.missing())
    running = server(world, generation)
    agent = client(world, generation, running)
    oid, other = agent.new_oids(h="a", count=2)
    tid = agent.commit_blobs(h="a", blobs=[[oid, Z64, 100000, 1]])
    agent.begin(h="a")
    agent.store_blob(h="a", oid=other, serial=Z64, size=100000, seed=2)
    agent.vote(h="a")
    running.stop(number=signal.SIGKILL)
    check(len(kept(running)) == 2, kept(running))
    running.start()
    equal([str(path) for path in kept(running)], [path_of(oid, tid)])


@program(ours_only=True)
def a_wrong_directory(world):
    """A client's cache is no blob directory; the start fails and says so."""
    generation = next(g for g in generations.ALL if not g.missing())
    running = server(world, generation, start=False)
    blobs = running.directory / "blobs"
    blobs.mkdir()
    (blobs / ".layout").write_text("zeocache")
    running.start(wait=False)
    equal(running.process.wait(30) != 0, True)
    check("client's cache" in running.talk(), running.talk())
    shutil.rmtree(blobs)


@program(ours_only=True)
def a_lawn(world):
    """A used directory without a marker is a lawn, as for Python."""
    generation = next(g for g in generations.ALL if g.age >= 400 and not g.missing())
    running = server(world, generation, start=False)
    (running.directory / "blobs" / "0x77").mkdir(parents=True)
    running.start()
    agent = client(world, generation, running)
    oid, = agent.new_oids(h="a", count=1)
    tid = agent.commit_blobs(h="a", blobs=[[oid, Z64, 10, 1]])
    name = oid.lstrip("0")
    check(f"0x{name.zfill(len(name) + len(name) % 2)}/0x{tid}.blob" in map(str, kept(running)), kept(running))
    equal((running.directory / "blobs/.layout").read_text(), "lawn")
    check("deprecated" in running.log_text())
