"""Iteration and copying: what Python's server hands out and writes, ours does, byte for byte."""
import pickle
import shutil

from harness import files, generations
from harness.logs import Log
from harness.scenario import Skip, check, equal, per_generation, raises
from harness.server import Program

from .basics import Z64, new_object

RECORD = b"cpersistent.mapping\nPersistentMapping\nq\x01.}q\x01."

# Extensions as they stand in files: of both Pythons, and empty. The keys of each have different hashes in Python 2, whose
# servers sort by them what they write: ours keeps the order in which it comes.
EXTENSIONS = [
    b"",
    b"}q\x01.",
    b"}q\x01U\x0crequest_typeq\x02U\x0fWSGIHTTPRequestq\x03s.",
    b"}q\x01(U\x04nameq\x02X\x05\x00\x00\x00j\xc3\xb6rgq\x03U\x01nK\x05U\x04longq\x04L123456789012345678L\nu.",
    b"}q\x01(U\x01f" + b"G?\xf8\x00\x00\x00\x00\x00\x00" + b"U\x01u(K\x01K\x02tq\x02U\x01l]q\x03(NI01\nI00\neu.",
    pickle.dumps({"request_type": "WSGIHTTPRequest", "size": 70000, "float": None, "flags": [True, False]}, 2),
    pickle.dumps({"request_type": "WSGIHTTPRequest", "size": -1, "nested": {"a": (1, 2, 3, 4)}}, 3),
    pickle.dumps({"name": "j\u00f6rg", "large": 1 << 60, "float": 0.1}, 3),
    pickle.dumps({"bytes": b"\xff\x00\x01"}, 3),
]
# What Python's servers hand out but their clients close the connection at, or the server cannot encode.
OUTLANDISH = [
    pickle.dumps({"set": {1}}, 3),
    pickle.dumps({"set": frozenset([1, 2])}, 2),
    pickle.dumps({"large": 1 << 100}, 2),
    b"N.",
]
UNREADABLE = [
    b"this is no pickle",
    b"}q\x01U\x01a",
    b"}q\x01U\x01acno.such.module\nClass\nq\x02s.",
    b"\xff" * 300,
]


def every_kind_of_transaction(python2, unreadable):
    """A log with every kind of record, status and extension that iteration meets."""
    log = Log(b"FS21" if python2 else b"FS30")
    log.transaction((0, RECORD), description=b"initial database creation")
    log.transaction((1, RECORD + b" first"), (2, RECORD), user=b"/ admin", status=b"p")
    for n, extension in enumerate(EXTENSIONS + (UNREADABLE if unreadable else [])):
        if python2 and extension[:2] == b"\x80\x03":
            continue
        log.transaction((3 + n, RECORD + b" %d" % n), user=b" joe", description=b"no %d" % n, extension=extension)
    _, (old, new) = log.transaction((1, RECORD + b" second"), (40, b"\x00" * 200_000))
    if not unreadable:
        log.transaction()  # an older FileStorage does not write it
    log.transaction((1, old), description=b"undo")
    log.transaction((1, log.last[1]), (2, log.last[2]), description=b"undo of an undo")
    log.transaction((2, 0), description=b"deletion")
    log.transaction((2, RECORD), (5, RECORD), (5, RECORD + b" again"), description="j\u00f6rg \u20ac".encode())
    log.transaction(*[(100 + n, RECORD + b"." * n) for n in range(300)])
    return log


def source(world, generation, python):
    """The log for the Python that serves this generation, and which server this is."""
    why = generations.BY_NAME[generation.python_server].missing()
    if why:
        raise Skip(why)
    path = world.directory / "source.fs"
    # What ZODB 5 and later cannot read, they raise at; before, it was an empty dict.
    every_kind_of_transaction(python.endswith("py27"), generation.age < 500).write(path)
    return path


def servers(world, generation, path=None):
    """Python's server and ours, each on a copy of the file."""
    for name, program in (("python", Program.python(generation.python_server)),
                          ("ours", world.make_program(generation))):
        server = world.server(generation, name=name, program=program, start=False)
        if path:
            shutil.copy(path, server.data_path)
        yield server.start()


@per_generation(since=309)
def iteration_hands_out_what_pythons_does(world, generation):
    path = source(world, generation, generation.python_server)
    found = []
    for server in servers(world, generation, path):
        agent = world.client(generation, server)
        everything = agent.transactions(h="a")
        tids = [txn[0] for txn in everything]
        parts = [agent.transactions(h="a", start=tids[a], stop=tids[b]) for a, b in ((0, 0), (3, 7), (-2, -1), (5, 2))]
        between = "%016x" % (int(tids[4], 16) + 1)
        parts += [agent.transactions(h="a", start=between, stop=between), agent.transactions(h="a", stop=between),
                  agent.transactions(h="a", start="00" * 8), agent.transactions(h="a", start="7f" * 8)]
        found.append([everything] + parts)
    check(len(found[0][0]) > 15)
    for wanted, ours in zip(*found):
        equal(len(ours), len(wanted), "transactions")
        for a, b in zip(ours, wanted):
            equal(a, b)


@per_generation(since=309)
def copies_from_a_server(world, generation):
    """A client of the server as the source: both servers' copies are the same file."""
    path = source(world, generation, generation.python_server)
    copies = []
    for server in servers(world, generation, path):
        copy = server.directory / "copy.fs"
        world.client(generation, server).copy_to(h="a", path=str(copy))
        copies.append(copy.read_bytes())
    check(len(copies[0]) > 200_000)
    same_bytes(copies)


@per_generation(since=309)
def copies_to_a_server(world, generation):
    """A client as the destination: both servers write the same file."""
    python = generation.environment
    path = source(world, generation, python)
    copies = []
    for server in servers(world, generation):
        agent = world.client(generation, server)
        agent.copy_from(h="a", path=str(path))
        agent.close(h="a")
        equal(server.stop(), 0)
        copies.append(server.data_path.read_bytes())
    check(len(copies[0]) > 200_000)
    same_bytes(copies)


@per_generation(since=309)
def copies_between_servers(world, generation):
    """From one server to another through a client, with the destination in use meanwhile."""
    path = source(world, generation, generation.python_server)
    copies = []
    for first in list(servers(world, generation, path)):
        second = world.server(generation, name=first.directory.name + "-2", program=first.program)
        agent = world.client(generation, first)
        world.client(generation, second, h="b", agent=agent)
        agent.copy_between(h="a", to="b")
        last = agent.last_transaction(h="a")
        reader = world.client(generation, second)
        equal(reader.load(h="a", oid="%016x" % 100)["tid"], last)
        raises("POSKeyError", reader.load, h="a", oid="%016x" % 99)
        agent.close(h="b")
        equal(second.stop(), 0)
        copies.append(second.data_path.read_bytes())
    same_bytes(copies)


def same_bytes(copies):
    wanted, ours = copies
    if wanted[4:] != ours[4:]:
        at = next((n for n, (a, b) in enumerate(zip(wanted[4:], ours[4:])) if a != b), min(map(len, copies)) - 4) + 4
        raise AssertionError(f"the files differ at {at} ({len(wanted)} and {len(ours)} bytes): "
                             f"wanted {wanted[at - 60:at + 60]!r}, found {ours[at - 60:at + 60]!r}")


@per_generation(since=309)
def an_iterator_sees_what_was_there_when_it_was_made(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=0)
    tid = a.commit(h="a", changes=[[oid, tid, 1, 0]])
    b.iterators_start(h="a", count=2)
    a.commit(h="a", changes=[[oid, tid, 2, 0]])
    equal(b.iterators_next(h="a"), [tid, tid])
    raises("StopIteration", b.iterators_next, h="a")


@per_generation(since=309)
def an_iterator_goes_on_in_the_file_that_was_packed(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    tids = [Z64]
    for value in range(5):
        tids.append(a.commit(h="a", changes=[[Z64, tids[-1], value, 0]]))  # the root: a pack keeps it
    del tids[0]
    b.iterators_start(h="a", count=2)
    a.pack(h="a")
    for tid in tids[1:]:
        equal(b.iterators_next(h="a"), [tid, tid])
    raises("StopIteration", b.iterators_next, h="a")
    check(len(b.iterate(h="a")) < 5, "a new iterator sees the packed file")


@per_generation(since=310)
def iterators_end_with_their_client(world, generation):
    """Nothing of them is left on the server: neither of those that were dropped, nor of those of a client that died."""
    server = world.server(generation)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=0)
    for _ in range(3):
        tid = a.commit(h="a", changes=[[oid, tid, 1, 0]])
    for _ in range(3):
        b = world.client(generation, server)
        before = server.fd_count()
        b.iterators_start(h="a", count=50)
        equal(len(b.iterators_next(h="a")), 50)
        b.iterators_drop(h="a")
        check(server.fd_count() <= before + 1, "files are left open:", before, server.fd_count())
        b.iterators_start(h="a", count=50)
        b.process.kill()
        b.broken = True
    a.iterators_start(h="a", count=1)
    oid, tid = new_object(a, value=1)
    raises("KeyError", a.iterator_call, h="a", method="iterator_next", args=[77])


@per_generation(since=400)
def iterator_errors(world, generation):
    """What Python's server raises, for calls that no proper client makes."""
    found = []
    for server in servers(world, generation):
        agent = world.client(generation, server)
        oid, tid = new_object(agent, value=0)
        agent.commit(h="a", changes=[[oid, tid, 1, 0]])
        answers = []

        def call(method, *args):
            try:
                answers.append(agent.iterator_call(h="a", method=method, args=list(args)).replace(tid, "TID"))
            except Exception as error:
                answers.append((method, getattr(error, "name", None)))
        call("iterator_next", 5)
        call("iterator_start", None, None)
        call("iterator_record_start", 0, {"hex": tid})
        call("iterator_next", 0)
        call("iterator_record_start", 0, {"hex": Z64})
        call("iterator_record_start", 0, {"hex": tid})
        call("iterator_record_next", 99)
        call("iterator_next", 0)
        call("iterator_record_start", 0, {"hex": tid})
        call("iterator_next", 0)
        call("iterator_next", 0)
        found.append([a for a in answers if "{}" not in a])  # the transactions: of different times
        check(agent.is_connected(h="a"))
    equal(found[1], found[0])


@per_generation(since=309)
def extensions_that_pythons_servers_fail_at(world, generation):
    """A transaction's extension that no client can read stops neither iteration nor copying."""
    server = world.server(generation, start=False)
    log = Log(b"FS30")
    for n, extension in enumerate(OUTLANDISH + UNREADABLE):
        log.transaction((n, RECORD), extension=extension)
    log.write(server.data_path)
    server.start()
    if server.program.is_python:
        return
    agent = world.client(generation, server)
    found = agent.transactions(h="a", timeout=20)
    equal(len(found), len(OUTLANDISH + UNREADABLE))
    equal([txn[5] for txn in found[len(OUTLANDISH):]], [[]] * len(UNREADABLE))
