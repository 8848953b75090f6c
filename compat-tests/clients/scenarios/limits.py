"""Limits: what a real client makes of being refused, and that it goes on once it is not."""
import time

from harness.scenario import check, equal, per_generation, raises

from .basics import Z64, new_object


def limited(world, generation, zeo):
    """A server of ours with these limits; Python's have none."""
    server = world.server(generation, start=False)
    if server.program.is_python:
        return None
    server.zeo += "\n" + zeo
    return server.start()


def wait_logged(agent, part, timeout=60):
    deadline = time.time() + timeout
    while not agent.logged(part=part):
        check(time.time() < deadline, "the client's log lacks", part)
        time.sleep(0.1)


@per_generation()
def one_client_too_many(world, generation):
    """It is told why, which its log shows, and tries until there is a place."""
    server = limited(world, generation, "max-connections 1")
    if server is None:
        return
    a = world.client(generation, server)
    oid, tid = new_object(a, value=1)
    b = world.agent(generation)
    b.open(h="b", addr=list(server.address), wait=False)
    wait_logged(b, "max-connections (1)")
    check(not b.is_connected(h="b"))
    raises("ClientDisconnected", b.load, h="b", oid=Z64)
    check("refused: max-connections (1) clients are connected" in server.log_text(), server.log_text())
    # Whoever is in does not notice.
    tid = a.commit(h="a", changes=[[oid, tid, 2, 0]])
    a.close(h="a")
    b.wait_connected(h="b")
    equal(b.load(h="b", oid=oid)["value"], 2)
    b.commit(h="b", changes=[[oid, tid, 3, 0]])


@per_generation()
def a_record_that_is_too_long(world, generation):
    """It fails with the reason, and the connection stays."""
    server = limited(world, generation, "max-message-size 1MB")
    if server is None:
        return
    a = world.client(generation, server)
    oid, tid = new_object(a, value=1, size=1000 * 1000)
    others = a.new_oids(h="a", count=2)
    changes = [[others[0], Z64, 1, 0], [oid, tid, 2, 2 << 20], [others[1], Z64, 1, 3 << 20]]
    error = raises("StorageError", a.commit, h="a", changes=changes)
    check("max-message-size is 1048576" in str(error), error)
    equal(server.log_text().count("max-message-size is 1048576"), 1, "lines in the log")
    check(a.is_connected(h="a"))
    equal(a.load(h="a", oid=oid)["value"], 1)
    a.commit(h="a", changes=[[oid, tid, 3, 0]])


@per_generation()
def a_transaction_that_is_too_large(world, generation):
    """It fails with the reason, and the connection stays."""
    server = limited(world, generation, "max-transaction-size 1MB\nmax-transaction-objects 100")
    if server is None:
        return
    a = world.client(generation, server)
    oid, tid = new_object(a, value=1)
    oids = a.new_oids(h="a", count=101)
    large = [[oid, Z64, 2, 300 << 10] for oid in oids[:4]]
    error = raises("StorageError", a.commit, h="a", changes=large)
    check("max-transaction-size is 1048576 bytes" in str(error), error)
    many = [[oid, Z64, 2, 0] for oid in oids]
    error = raises("StorageError", a.commit, h="a", changes=many)
    check("max-transaction-objects is 100" in str(error), error)
    check(not {"ConflictError", "TransientError"} & set(error.classes), "nobody should try it again", error.classes)
    check(a.is_connected(h="a"))
    a.commit(h="a", changes=large[:3])
    a.commit(h="a", changes=many[5:50] + [[oid, tid, 2, 0]])


@per_generation(since=309)
def a_blob_that_is_too_large(world, generation):
    server = world.server(generation, start=False)
    if server.program.is_python:
        return
    server.storages = {"1": ("Data.fs", "blob-dir blobs")}
    server.zeo += "\nmax-transaction-size 1MB"
    server.start()
    a = world.client(generation, server, blob_dir=str(world.directory / "cache"))
    oids = a.new_oids(h="a", count=2)
    error = raises("StorageError", a.commit_blobs, h="a", blobs=[[oids[0], Z64, 3 << 20, 1]])
    check("max-transaction-size is 1048576 bytes" in str(error), error)
    tid = a.commit_blobs(h="a", blobs=[[oids[0], Z64, 300 << 10, 2], [oids[1], Z64, 300 << 10, 3]])
    equal(a.load_blob(h="a", oid=oids[0], serial=tid)[0], 300 << 10)
    left = list((server.directory / "blobs" / "tmp").glob("*"))
    equal(left, [], "nothing is left of the first")


@per_generation()
def a_transaction_for_which_nothing_comes(world, generation):
    server = limited(world, generation, "idle-transaction-timeout 3s")
    if server is None:
        return
    a = world.client(generation, server)
    oid, tid = new_object(a, value=1)
    a.begin(h="a")
    a.store(h="a", oid=oid, serial=tid, value=2)
    deadline = time.time() + 60
    while "(idle-transaction-timeout)" not in server.log_text():
        check(time.time() < deadline, server.log_text())
        time.sleep(0.05)
    # Old clients have come back already, and the server knows of no transaction.
    raises(("ClientDisconnected", "DisconnectedError", "StorageTransactionError"), a.vote, h="a")
    a.abort(h="a")
    a.wait_connected(h="a")
    equal(a.load(h="a", oid=oid)["value"], 1)
    a.commit(h="a", changes=[[oid, tid, 3, 0]])
