"""The storages of the configuration beside `<filestorage>`, as clients of every generation see them."""
import io
import pickle
import re
import zlib

from harness import generations
from harness.scenario import Skip, all_together, check, equal, per_generation, raises

from .basics import Z64

ALL = """\
%import zc.zlibstorage
%import zc.beforestorage
%import tempstorage
<mappingstorage mapping/>
<temporarystorage temporary/>
<demostorage demo>
  <filestorage>
    path base.fs
  </filestorage>
</demostorage>
<demostorage staging>
  <mappingstorage/>
  <filestorage changes>
    path changes.fs
  </filestorage>
</demostorage>
<zlibstorage zlib>
  <filestorage>
    path zlib.fs
  </filestorage>
</zlibstorage>
"""


@per_generation()
def every_storage_stores_and_finds_conflicts(world, generation):
    ours_only(world, generation)
    server = world.server(generation, sections=ALL)
    agent = world.agent(generation)
    for storage in "mapping", "temporary", "demo", "staging", "zlib":
        world.client(generation, server, h=storage, agent=agent, storage=storage)
        first, second = agent.new_oids(h=storage, count=2)
        check(first != second, storage)
        one = agent.commit(h=storage, changes=[[first, Z64, 1, 4000], [second, Z64, 2, 0]], user="somebody")
        two = agent.commit(h=storage, changes=[[first, one, 3, 5000]])
        found = agent.load(h=storage, oid=first)
        equal((found["value"], found["tid"]), (3, two), storage)
        found = agent.load_before(h=storage, oid=first, before=two)
        equal((found["value"], found["tid"], found["end"]), (1, one, two), storage)
        equal(agent.get_tid(h=storage, oid=second), one, storage)
        raises("ConflictError", agent.commit, h=storage, changes=[[first, one, 4, 0]])
        equal(agent.load_serial(h=storage, oid=first, serial=one)["value"], 1, storage)
        check(agent.about(h=storage)["len"] >= 2, storage)
        agent.close(h=storage)
    equal(server.stop(), 0)
    # What was changed in a demo is not in its base.
    check(len((server.directory / "base.fs").read_bytes()) == 4)


@per_generation()
def garbage_of_a_temporary_storage_is_a_conflict(world, generation):
    """Who still knows an object that another client's commit made garbage must try again with newer states. Clients
    since ZEO 5, which only ever ask for states before their transaction, got a POSKeyError instead."""
    ours_only(world, generation)
    server = world.server(generation, sections=ALL)
    agent = world.client(generation, server, storage="temporary")
    world.client(generation, server, h="reader", agent=agent, storage="temporary")
    garbage, unknown = agent.new_oids(h="a", count=2)

    def store(*changes):
        agent.begin(h="a")
        for oid, serial, data in changes:
            agent.store_bytes(h="a", oid=oid, serial=serial, data=data.hex())
        agent.vote(h="a")
        return agent.finish(h="a")

    root = b"cpersistent.mapping\nPersistentMapping\n.U\x08" + bytes.fromhex(garbage) + b"Q."
    one = store((Z64, Z64, root), (garbage, Z64, bucket({1: 1})))
    two = store((Z64, one, bucket({})))
    raises("ConflictError", agent.load, h="reader", oid=garbage)
    raises("ConflictError", agent.load_before, h="reader", oid=garbage, before=two)
    raises(("POSKeyError", "KeyError"), agent.load, h="reader", oid=unknown)
    for handle in "a", "reader":
        agent.close(h=handle)
    equal(server.stop(), 0)


@per_generation()
def clients_may_compress_themselves(world, generation):
    """What zc.zlibstorage does in a client: the server hands on what it gets. With `<zlibstorage>` on the same file the
    server decompresses, and what the server compresses Python can decompress."""
    ours_only(world, generation)
    layer = "%import zc.zlibstorage\n<{0} 1>\n  <filestorage>\n    path Data.fs\n  </filestorage>\n</{0}>\n"
    plain = b"cpersistent.mapping\nPersistentMapping\nq\x01.}q\x01U\x04dataq\x02}q\x03U\x05valueJ\1\0\0\0ss." + b" " * 900
    compressed = b".z" + zlib.compress(plain)
    server = world.server(generation, sections=layer.format("serverzlibstorage"))
    agent = world.client(generation, server)
    oid, other = agent.new_oids(h="a", count=2)
    agent.begin(h="a")
    agent.store_bytes(h="a", oid=oid, serial=Z64, data=compressed.hex())
    agent.vote(h="a")
    agent.finish(h="a")
    equal(agent.load_bytes(h="a", oid=oid), compressed.hex())
    agent.close(h="a")
    equal(server.stop(), 0)

    server.sections = layer.format("zlibstorage")
    server.start()
    world.client(generation, server, agent=agent)
    equal(bytes.fromhex(agent.load_bytes(h="a", oid=oid)), plain)
    agent.begin(h="a")
    agent.store_bytes(h="a", oid=other, serial=Z64, data=plain.hex())
    agent.vote(h="a")
    agent.finish(h="a")
    equal(bytes.fromhex(agent.load_bytes(h="a", oid=other)), plain)
    agent.close(h="a")
    equal(server.stop(), 0)
    kept = server.data_path.read_bytes()
    check(plain not in kept)
    streams = [zlib.decompressobj().decompress(kept[at.end():]) for at in re.finditer(rb"\.z(?=\x78\x9c)", kept)]
    equal(streams, [plain, plain])


def bucket(numbers):
    """The record of an IIBucket."""
    items = b"".join(b"K" + bytes([key]) + b"K" + bytes([value]) for key, value in sorted(numbers.items()))
    return b"cBTrees.IIBTree\nIIBucket\nq\x01.((" + items + b"tt."


def numbers_of(record):
    stream = io.BytesIO(record)

    class Loader(pickle.Unpickler):
        def find_class(self, module, name):
            return module, name

    Loader(stream).load()
    items = Loader(stream).load()[0]
    return dict(zip(items[::2], items[1::2]))


@per_generation(since=309)
def compressed_states_are_merged(world, generation):
    ours_only(world, generation)
    server = world.server(generation, sections=ALL)
    agent = world.client(generation, server, storage="zlib")
    oid = agent.new_oids(h="a", count=1)[0]
    old = dict.fromkeys(range(60), 1)

    def store(serial, numbers):
        agent.begin(h="a")
        agent.store_bytes(h="a", oid=oid, serial=serial, data=bucket(numbers).hex())
        agent.vote(h="a")
        return agent.finish(h="a")

    first = store(Z64, old)
    second = store(first, {**old, 0: 2})
    third = store(first, {**old, 1: 3})
    check(third > second)
    equal(numbers_of(bytes.fromhex(agent.load_bytes(h="a", oid=oid))), {**old, 0: 2, 1: 3})


@all_together
def a_storage_as_it_was(world):
    """Everybody reads the past of a file that has gone on since; nobody writes."""
    everyone = [g for g in generations.ALL if not g.missing() and not g.msgpack]
    server = world.server()
    agent = world.client(everyone[-1], server)
    oid, later = agent.new_oids(h="a", count=2)
    one = agent.commit(h="a", changes=[[oid, Z64, 1, 0]])
    agent.close(h="a")
    equal(server.stop(), 0)
    # Whole seconds: what is stored from the next one on is not to be seen.
    server.sections = ("%import zc.beforestorage\n<before 1>\n  before-from-file before.txt\n  <filestorage>\n"
                       "    path Data.fs\n  </filestorage>\n</before>\n")
    (server.directory / "before.txt").write_text("9998-01-01T00:00:00")
    server.start()
    for generation in everyone:
        reader = world.client(generation, server, h="r", read_only=True)
        found = reader.load(h="r", oid=oid)
        equal((found["value"], found["tid"]), (1, one), generation)
        raises(("POSKeyError", "KeyError"), reader.load, h="r", oid=later)
        reader.close(h="r")
    equal(server.stop(), 0)
    (server.directory / "before.txt").unlink()
    server.start()
    check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", (server.directory / "before.txt").read_text()))


def ours_only(world, generation):
    if world.make_program(generation).is_python:
        raise Skip("Python's server lacks the packages")
