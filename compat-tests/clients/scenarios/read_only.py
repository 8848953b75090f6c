"""Read-only clients, servers and storages, fallback, and storage names."""
import time

from harness.scenario import check, equal, per_generation, raises

from .basics import Z64, new_object

REFUSED = ("ReadOnlyError", "ClientDisconnected", "ClientStorageError", "ValueError", "RuntimeError")


@per_generation()
def read_only_client(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=1)
    b = world.client(generation, server, read_only=True)
    equal(b.load(h="a", oid=oid)["value"], 1)
    equal(b.about(h="a")["read_only"], True)
    raises("ReadOnlyError", b.begin, h="a")
    raises("ReadOnlyError", b.new_oids, h="a", count=1)
    tid = a.commit(h="a", changes=[[oid, tid, 2, 0]])
    b.wait_invalidated(h="a", oid=oid, tid=tid)
    equal(b.load(h="a", oid=oid)["value"], 2)


def refused(world, generation, server, **kw):
    """The client must not get a connection."""
    if generation.age >= 500:
        raises(REFUSED, world.client, generation, server, wait_timeout=2, **kw)
        return
    # Before ZEO 5 a client that is to wait does so for ever.
    agent = world.client(generation, server, wait=False, **kw)
    time.sleep(1.5)
    check(not agent.is_connected(h="a"), "connected")
    raises("ClientDisconnected", agent.load, h="a", oid=Z64)


def prepare(world, generation, **kw):
    server = world.server(generation)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=1)
    a.close(h="a")
    server.stop()
    before = server.data_path.read_bytes()
    server.zeo += "\n" + kw.pop("zeo", "")
    server.storages = kw.pop("storages", server.storages)
    server.start()
    return server, oid, before


def only_readers(world, generation, server, oid, before):
    refused(world, generation, server)
    reader = world.client(generation, server, h="r", read_only=True)
    equal(reader.load(h="r", oid=oid)["value"], 1)
    fallback = world.client(generation, server, h="f", read_only_fallback=True)
    equal(fallback.load(h="f", oid=oid)["value"], 1)
    equal(fallback.about(h="f")["read_only"], True)
    # Some generations refuse in tpc_begin, some learn it from the server at vote.
    raises(("ReadOnlyError", "StorageTransactionError"), fallback.commit, h="f", changes=[[oid, Z64, 2, 0]])
    server.stop()
    equal(server.data_path.read_bytes(), before, "the file")


@per_generation()
def read_only_server(world, generation):
    server, oid, before = prepare(world, generation, zeo="read-only true")
    only_readers(world, generation, server, oid, before)


@per_generation()
def read_only_storage(world, generation):
    server, oid, before = prepare(world, generation, storages={"1": ("Data.fs", "read-only true")})
    only_readers(world, generation, server, oid, before)


@per_generation()
def fallback_writes_where_it_can(world, generation):
    server = world.server(generation)
    a = world.client(generation, server, read_only_fallback=True)
    equal(a.about(h="a")["read_only"], False)
    oid, tid = new_object(a, value=1)
    equal(a.load(h="a", oid=oid)["tid"], tid)


@per_generation()
def wrong_storage_name(world, generation):
    server = world.server(generation)
    refused(world, generation, server, storage="nothing")
    a = world.client(generation, server, h="b")
    new_object(a, h="b")
    check(server.running())


@per_generation()
def several_storages(world, generation):
    server = world.server(generation, storages={"1": ("one.fs", ""), "main": ("main.fs", ""),
                                                "temporary": ("t.fs", "")})
    agents = {name: world.client(generation, server, storage=name) for name in ("1", "main", "temporary")}
    oids = {}
    for n, (name, agent) in enumerate(agents.items()):
        oids[name] = "00" * 7 + "01"
        agent.commit(h="a", changes=[[oids[name], Z64, 10 + n, 0]])
    for n, (name, agent) in enumerate(agents.items()):
        equal(agent.load(h="a", oid=oids[name])["value"], 10 + n)
        equal(agent.invalidations(h="a"), [], "invalidations of another storage")
