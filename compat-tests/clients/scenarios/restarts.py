"""The server goes away and comes back while clients are in the middle of something."""
import time

from harness.scenario import check, equal, per_generation, raises

from .basics import new_object

GONE = ("ClientDisconnected", "DisconnectedError", "StorageTransactionError", "ClientStorageError")


@per_generation()
def the_client_comes_back(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=1)
    for number in range(2):
        if number == 0:
            equal(server.stop(), 0)
        else:
            world.kill(server)
        a.wait_connected(h="a", wanted=False)
        server.start()
        a.wait_connected(h="a")
        equal(a.load(h="a", oid=oid)["value"], 1 + number)
        tid = a.commit(h="a", changes=[[oid, tid, 2 + number, 0]])
        equal(a.load(h="a", oid=oid)["tid"], tid)


@per_generation()
def restart_after_vote(world, generation):
    """A voted transaction is gone with its server, and says so; nothing of it is left in the file."""
    server = world.server(generation)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=1)
    a.begin(h="a")
    a.store(h="a", oid=oid, serial=tid, value=2)
    a.vote(h="a")
    world.kill(server)
    a.wait_connected(h="a", wanted=False)
    server.start()
    a.wait_connected(h="a")
    raises(GONE, a.finish, h="a")
    equal(a.load(h="a", oid=oid)["value"], 1)
    time.sleep(0.1)
    b = world.client(generation, server)
    tid2 = b.commit(h="a", changes=[[oid, tid, 3, 0]])
    a.wait_invalidated(h="a", oid=oid, tid=tid2)
    equal(a.load(h="a", oid=oid)["value"], 3)


@per_generation()
def the_server_starts_later_than_the_client(world, generation):
    server = world.server(generation, start=False)
    a = world.agent(generation)
    a.open(h="a", addr=list(server.address), wait=False)
    check(not a.is_connected(h="a"))
    server.start()
    a.wait_connected(h="a")
    oid, tid = new_object(a, value=5)
    equal(a.load(h="a", oid=oid)["tid"], tid)


@per_generation()
def data_survive_kill(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    wanted = {}
    for value in range(20):
        oid, tid = new_object(a, value=value, size=value * 100)
        wanted[oid] = (value, tid)
    world.kill(server)
    server.start()
    b = world.client(generation, server)
    for oid, (value, tid) in wanted.items():
        loaded = b.load(h="a", oid=oid)
        equal((loaded["value"], loaded["tid"]), (value, tid))
    if generation.age > 308:
        equal(b.last_transaction(h="a"), max(tid for _, tid in wanted.values()))
