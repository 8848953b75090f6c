"""Commit, read, abort, missing objects, history: what every client does every day."""
import signal

from harness.agents import ClientError
from harness.scenario import check, equal, per_generation, raises

Z64 = "00" * 8
MAX_TID = "7f" + "ff" * 7


def new_object(agent, h="a", value=1, size=0):
    oid = agent.new_oids(h=h, count=1)[0]
    return oid, agent.commit(h=h, changes=[[oid, Z64, value, size]])


def commit_in_turn(agents, rounds, after=lambda: None):
    """Each agent in turn changes one object, and all others hear of it. `after` is called after each change."""
    oid, tid = new_object(agents[0], value=0)
    for n in range(1, rounds * len(agents)):
        writer = agents[n % len(agents)]
        tid = writer.commit(h="a", changes=[[oid, tid, n, 70000 * (n % 3)]])
        for agent in agents:
            if agent is not writer:
                agent.wait_invalidated(h="a", oid=oid, tid=tid)
            equal(agent.load(h="a", oid=oid)["value"], n)
        after()


@per_generation()
def commit_and_read(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=42)
    equal(a.load(h="a", oid=oid)["value"], 42)
    equal(a.load(h="a", oid=oid)["tid"], tid)
    equal(a.last_transaction(h="a"), tid)
    b = world.client(generation, server)
    loaded = b.load(h="a", oid=oid)
    equal((loaded["value"], loaded["tid"]), (42, tid))
    if generation.age > 308:  # ZODB3 3.8 learns it with the first invalidation
        equal(b.last_transaction(h="a"), tid)
    equal(b.get_tid(h="a", oid=oid), tid)
    second = a.commit(h="a", changes=[[oid, tid, 43, 0]])
    check(second > tid, second, "after", tid)
    equal(a.load(h="a", oid=oid)["value"], 43)


@per_generation()
def others_see_a_commit(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=1)
    equal(b.load(h="a", oid=oid)["value"], 1)
    for value in range(2, 12):
        tid = a.commit(h="a", changes=[[oid, tid, value, 0]])
        b.wait_invalidated(h="a", oid=oid, tid=tid)
        loaded = b.load(h="a", oid=oid)
        equal((loaded["value"], loaded["tid"]), (value, tid))
    seen = [t for t, _ in b.invalidations(h="a")]
    equal(seen, sorted(set(seen)), "invalidations in order, each once")
    equal(a.invalidations(h="a"), [], "nobody is told of its own commits")
    equal(b.last_transaction(h="a"), tid)


@per_generation()
def many_objects_in_one_transaction(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oids = a.new_oids(h="a", count=3000)
    equal(len(set(oids)), 3000, "distinct oids")
    tid = a.commit(h="a", changes=[[oid, Z64, n, n % 200] for n, oid in enumerate(oids)])
    for n in (0, 1, 1500, 2999):
        loaded = b.load(h="a", oid=oids[n])
        equal((loaded["value"], loaded["tid"]), (n, tid))
    tid2 = a.commit(h="a", changes=[[oid, tid, n + 1, 0] for n, oid in enumerate(oids)])
    b.wait_invalidated(h="a", oid=oids[7], tid=tid2)
    equal(b.load(h="a", oid=oids[2999])["value"], 3000)
    c = world.client(generation, server)
    equal(c.about(h="a")["len"], 3000)


@per_generation()
def abort_leaves_nothing(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=1)
    for voted in (False, True):
        a.begin(h="a")
        a.store(h="a", oid=oid, serial=tid, value=2)
        if voted:
            a.vote(h="a")
        a.abort(h="a")
        equal(a.load(h="a", oid=oid)["value"], 1)
        equal(b.load(h="a", oid=oid)["tid"], tid)
        tid = b.commit(h="a", changes=[[oid, tid, 1, 0]])
        a.wait_invalidated(h="a", oid=oid, tid=tid)
    size = server.data_path.stat().st_size
    check(size < 1500, "aborted data stays in the file:", size)


@per_generation()
def a_client_that_disappears_after_vote_blocks_nobody(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=1)
    b.load(h="a", oid=oid)
    a.begin(h="a")
    a.store(h="a", oid=oid, serial=tid, value=2)
    a.vote(h="a")
    a.process.kill()
    a.broken = True
    tid2 = b.commit(h="a", changes=[[oid, tid, 3, 0]])
    check(tid2 > tid)
    equal(b.load(h="a", oid=oid)["value"], 3)


@per_generation()
def missing_objects(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    nowhere = "00" * 6 + "0777"
    error = raises("POSKeyError", a.load, h="a", oid=nowhere)
    equal(error.answer.get("arg"), nowhere, "oid in the error")
    raises("KeyError", a.load_serial, h="a", oid=nowhere, serial=MAX_TID)
    raises("KeyError", a.get_tid, h="a", oid=nowhere)
    raises("KeyError", a.history, h="a", oid=nowhere, size=1)
    oid, tid = new_object(a)
    error = raises("POSKeyError", a.load_serial, h="a", oid=oid, serial="0300000000000000")
    equal(a.load_before(h="a", oid=oid, before=tid), None, "before it existed")
    equal(a.load(h="a", oid=oid)["tid"], tid)
    check("POSKeyError" not in server.log_text(), "a missed load is nothing to log")


@per_generation()
def revisions(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=0)
    tids = [tid]
    for value in range(1, 5):
        tids.append(a.commit(h="a", changes=[[oid, tids[-1], value, 10 * value]]))
    equal(tids, sorted(set(tids)))
    for n, tid in enumerate(tids):
        equal(b.load_serial(h="a", oid=oid, serial=tid)["value"], n)
        if n:
            found = b.load_before(h="a", oid=oid, before=tid)
            equal((found["value"], found["tid"], found["end"]), (n - 1, tids[n - 1], tid))
    found = b.load_before(h="a", oid=oid, before=MAX_TID)
    equal((found["value"], found["tid"], found["end"]), (4, tids[4], None))


@per_generation()
def history(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=0)
    tids = [tid]
    for value in range(1, 4):
        tids.append(a.commit(h="a", changes=[[oid, tids[-1], value, 100 * value]], user="j\xf6rg %d" % value,
                             description="change %d" % value))
    entries = a.history(h="a", oid=oid, size=10)
    equal([e["tid"] for e in entries], tids[::-1])
    equal([e["description"] for e in entries], ["change 3", "change 2", "change 1", ""])
    check(entries[0]["size"] > entries[1]["size"] > 100)
    if not generation.is_python2 and generation.age >= 500:
        check(entries[0]["user"].strip("/ ").endswith("j\xf6rg 3"), entries[0])
    equal(len(a.history(h="a", oid=oid, size=2)), 2)
    equal(a.history(h="a", oid=oid, size=1)[0]["tid"], tids[-1])


@per_generation()
def new_oids_never_repeat(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oids = []
    for _ in range(3):
        oids += a.new_oids(h="a", count=70) + b.new_oids(h="a", count=70)
    equal(len(set(oids)), len(oids), "distinct oids")
    check(Z64 not in oids, "oid 0 is the root's")
    last = max(oids)
    a.commit(h="a", changes=[[last, Z64, 1, 0]])
    a.close(h="a")
    b.close(h="a")
    equal(server.stop(), 0)
    server.start()
    a = world.client(generation, server)
    more = a.new_oids(h="a", count=200)
    check(min(more) > last, min(more), "after", last)
    a.close(h="a")
    server.stop(signal.SIGKILL)
    server.start()
    a = world.client(generation, server)
    check(min(a.new_oids(h="a", count=10)) > last)


@per_generation()
def large_object(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=7, size=20_000_000)
    written, read = a.load(h="a", oid=oid), b.load(h="a", oid=oid)
    equal(read, written)
    check(read["len"] > 20_000_000)
    tid = b.commit(h="a", changes=[[oid, tid, 8, 21_000_000]])
    a.wait_invalidated(h="a", oid=oid, tid=tid)
    equal(a.load(h="a", oid=oid)["sha"], b.load(h="a", oid=oid)["sha"])


@per_generation(since=309)
def deleted_object(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=1)
    a.begin(h="a")
    a.delete(h="a", oid=oid, serial=tid)
    a.vote(h="a")
    gone = a.finish(h="a")
    raises("POSKeyError", b.load, h="a", oid=oid)
    found = b.load_before(h="a", oid=oid, before=gone)
    equal((found["value"], found["tid"]), (1, tid))
    b.begin(h="a")
    # ZEO 4 and older answer the vote of such a conflict in serialnos.
    b.delete(h="a", oid=oid, serial=tid)
    raises("ConflictError", b.vote, h="a")
    b.abort(h="a")


@per_generation()
def about_the_storage(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    about = a.about(h="a")
    equal((about["len"], about["read_only"]), (0, False))
    oid, _ = new_object(a, size=5000)
    a.close(h="a")
    a = world.client(generation, server)
    about = a.about(h="a")
    equal(about["len"], 1)
    equal(about["size"], server.data_path.stat().st_size)
    check(about["size"] > 5000)


@per_generation()
def all_current_records(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    oids = sorted(a.new_oids(h="a", count=20))
    tid = a.commit(h="a", changes=[[oid, Z64, n, 0] for n, oid in enumerate(oids)])
    found = a.record_iternext(h="a", limit=100)
    equal([r[0] for r in found], oids)
    equal({r[1] for r in found}, {tid})


@per_generation(since=309)
def iteration(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=0)
    tids = [tid]
    for value in range(1, 6):
        tids.append(a.commit(h="a", changes=[[oid, tids[-1], value, 0]], description="no %d" % value))
    found = a.iterate(h="a")
    equal([t["tid"] for t in found], tids)
    equal([t["records"] for t in found], [[[oid, tid, n]] for n, tid in enumerate(tids)])
    equal(found[3]["description"], "no 3")
    equal([t["tid"] for t in a.iterate(h="a", start=tids[1], stop=tids[3])], tids[1:4])
    equal(a.iterate(h="a", start="7f00000000000000"), [])


@per_generation(since=310)
def server_status(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    before = a.status(h="a")
    equal(before["connections"], 2)
    oid, tid = new_object(a, value=0)
    b.load(h="a", oid=oid)
    after = a.status(h="a")
    equal(after["commits"], before["commits"] + 1)
    check(after["loads"] > before["loads"])
    check(after["stores"] > before["stores"])
    equal(after["active_txns"], 0)
    equal(after["waiting"], 0)
    wanted = {"loads", "stores", "commits", "aborts", "active_txns", "lock_time", "conflicts", "conflicts_resolved",
              "start", "connections", "waiting", "timeout-thread-is-alive"}
    wanted |= {"verifying_clients"} if generation.age < 500 else set()
    wanted |= {"last-transaction"} if generation.age >= 400 else set()
    if generation.age != 310:  # its own server is older than the Python server used for comparison
        equal(set(after), wanted)
        equal(after["last-transaction"], tid)


@per_generation()
def records_that_are_no_pickles(world, generation):
    """The server keeps bytes; what they mean is the clients' business."""
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid = a.new_oids(h="a", count=1)[0]
    tid = Z64
    for data in ("00", "ff" * 1000, "8005", "28" * 500, b"cos\nsystem\n(S'true'\ntR.".hex()):
        a.begin(h="a")
        a.store_bytes(h="a", oid=oid, serial=tid, data=data)
        a.vote(h="a")
        old, tid = tid, a.finish(h="a")
        equal(b.load_bytes(h="a", oid=oid), data) if old == Z64 else None
        if old != Z64:
            b.begin(h="a")
            b.store_bytes(h="a", oid=oid, serial=old, data=data)
            raises("ConflictError", b.vote, h="a")
            b.abort(h="a")
            b.wait_invalidated(h="a", oid=oid, tid=tid)
            equal(b.load_bytes(h="a", oid=oid), data)


@per_generation()
def quota(world, generation):
    server = world.server(generation, storages={"1": ("Data.fs", "quota 60KB")})
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=1, size=50_000)
    other = a.new_oids(h="a", count=1)[0]
    # Like Python's FileStorage: a record may not begin beyond the quota.
    error = raises("Exception", a.commit, h="a", changes=[[oid, tid, 2, 60_000], [other, Z64, 2, 10]])
    check("quota" in (error.name + error.answer["text"]).lower(), error)
    equal(b.load(h="a", oid=oid)["value"], 1)
    tid = b.commit(h="a", changes=[[oid, tid, 3, 100]])
    a.wait_invalidated(h="a", oid=oid, tid=tid)
    check(server.data_path.stat().st_size < 60_000)


@per_generation()
def what_is_refused_harms_nothing(world, generation):
    """Packing: done or refused, but the connection goes on, and so does everybody else."""
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, tid = new_object(a, value=1)
    try:
        a.pack(h="a")
    except ClientError as error:
        check("Disconnected" not in error.name, error)
        check(error.answer["text"], "an error that says nothing:", error.name)
    check(a.is_connected(h="a"))
    tid = a.commit(h="a", changes=[[oid, tid, 2, 0]])
    b.wait_invalidated(h="a", oid=oid, tid=tid)
