"""Persistent caches over disconnects and restarts: what changed meanwhile is seen, what did not is kept."""
import time

from harness.scenario import check, equal, per_generation

from .basics import Z64


def warm(world, generation, server, count=10):
    """A client with a cache file that has loaded `count` objects; closed again. Returns what it saw."""
    writer = world.client(generation, server, h="w")
    other = writer.new_oids(h="w", count=1)[0]
    oids = sorted(writer.new_oids(h="w", count=count))
    other_tid = writer.commit(h="w", changes=[[other, Z64, 1, 0]])
    tid = writer.commit(h="w", changes=[[oid, Z64, n, 0] for n, oid in enumerate(oids)])
    cached = open_cached(world, generation, server)
    for n, oid in enumerate(oids):
        equal(cached.load(h="c", oid=oid)["value"], n)
    # ZODB3 3.8 knows where its cache stands only after the first invalidation.
    other_tid = writer.commit(h="w", changes=[[other, other_tid, 2, 0]])
    cached.wait_invalidated(h="c", oid=other, tid=other_tid)
    cached.close(h="c")
    return writer, oids, tid


def open_cached(world, generation, server, agent=None, **kw):
    cache = world.directory / "cache"
    cache.mkdir(exist_ok=True)
    return world.client(generation, server, h="c", agent=agent, client="warm", var=str(cache), **kw)


def values(agent, oids, h="c"):
    return [agent.load(h=h, oid=oid)["value"] for oid in oids]


def verified(agent, generation, quick):
    """The client must have said how it verified, in the words of its generation."""
    if generation.age >= 500:
        equal(agent.verification(h="c"), "quick verification" if quick else "cache too old, clearing")
    elif quick:
        check(agent.logged(part="Recovering"), "no quick verification")
    else:
        check(agent.logged(part="Verifying cache") or agent.logged(part="dropping stale cache"),
              "no full verification")
        check(not agent.logged(part="Recovering"), "quick verification after too much")


@per_generation()
def cache_up_to_date(world, generation):
    server = world.server(generation)
    writer, oids, _ = warm(world, generation, server)
    writer.close(h="w")
    equal(server.stop(), 0)
    server.start()
    cached = open_cached(world, generation, server)
    if generation.age >= 500:
        equal(cached.verification(h="c"), "Cache up to date")
    else:
        check(cached.logged(part="No verification necessary"))
    equal(values(cached, oids), list(range(10)))


@per_generation()
def quick_verification(world, generation):
    server = world.server(generation)
    writer, oids, tid = warm(world, generation, server)
    t2 = writer.commit(h="w", changes=[[oids[1], tid, 100, 0], [oids[2], tid, 200, 0]])
    writer.commit(h="w", changes=[[oids[2], t2, 201, 0]])
    cached = open_cached(world, generation, server)
    verified(cached, generation, True)
    equal(values(cached, oids), [0, 100, 201, 3, 4, 5, 6, 7, 8, 9])


@per_generation()
def quick_verification_after_restart(world, generation):
    server = world.server(generation)
    writer, oids, tid = warm(world, generation, server)
    writer.commit(h="w", changes=[[oids[1], tid, 100, 0]])
    writer.close(h="w")
    equal(server.stop(), 0)
    server.start()
    cached = open_cached(world, generation, server)
    verified(cached, generation, True)
    equal(values(cached, oids), [0, 100, 2, 3, 4, 5, 6, 7, 8, 9])


@per_generation()
def quick_verification_after_kill(world, generation):
    server = world.server(generation)
    writer, oids, tid = warm(world, generation, server)
    writer.commit(h="w", changes=[[oids[1], tid, 100, 0]])
    server.kill()
    server.start()
    cached = open_cached(world, generation, server)
    verified(cached, generation, True)
    equal(values(cached, oids), [0, 100, 2, 3, 4, 5, 6, 7, 8, 9])


def change_often(writer, oids, tid, times):
    tids = {oid: tid for oid in oids}
    for n in range(times):
        oid = oids[n % 3]
        tids[oid] = writer.commit(h="w", changes=[[oid, tids[oid], 1000 + n, 0]])
    return {oid: writer.load(h="w", oid=oid)["value"] for oid in oids}


@per_generation()
def full_verification_when_the_queue_is_exceeded(world, generation):
    server = world.server(generation, zeo="invalidation-queue-size 5")
    writer, oids, tid = warm(world, generation, server)
    wanted = change_often(writer, oids, tid, 12)
    cached = open_cached(world, generation, server)
    equal(values(cached, oids), [wanted[oid] for oid in oids])
    verified(cached, generation, False)


@per_generation()
def full_verification_after_restart(world, generation):
    server = world.server(generation, zeo="invalidation-queue-size 5")
    writer, oids, tid = warm(world, generation, server)
    wanted = change_often(writer, oids, tid, 12)
    writer.close(h="w")
    equal(server.stop(), 0)
    server.start()
    cached = open_cached(world, generation, server)
    equal(values(cached, oids), [wanted[oid] for oid in oids])
    verified(cached, generation, False)


@per_generation()
def invalidation_age(world, generation):
    """Beyond the queue, but young enough: the server iterates, and verification stays quick."""
    server = world.server(generation, zeo="invalidation-queue-size 5\ninvalidation-age 600")
    writer, oids, tid = warm(world, generation, server)
    wanted = change_often(writer, oids, tid, 12)
    cached = open_cached(world, generation, server)
    verified(cached, generation, True)
    equal(values(cached, oids), [wanted[oid] for oid in oids])


@per_generation()
def changes_while_disconnected(world, generation):
    """The server restarts under a client that stays: it returns by itself and has missed nothing."""
    server = world.server(generation)
    writer, oids, tid = warm(world, generation, server)
    cached = open_cached(world, generation, server)
    equal(values(cached, oids), list(range(10)))
    writer.close(h="w")
    server.stop()
    cached.wait_connected(h="c", wanted=False)
    server.start()
    writer = world.client(generation, server, h="w", agent=writer)
    writer.commit(h="w", changes=[[oids[3], tid, 33, 0]])
    cached.wait_connected(h="c")
    equal_soon(cached, oids, [0, 1, 2, 33, 4, 5, 6, 7, 8, 9])
    t3 = writer.commit(h="w", changes=[[oids[4], tid, 44, 0]])
    cached.wait_invalidated(h="c", oid=oids[4], tid=t3)
    equal(values(cached, oids)[4], 44)


def equal_soon(agent, oids, wanted, timeout=60):
    deadline = time.time() + timeout
    while values(agent, oids) != wanted and time.time() < deadline:
        time.sleep(0.02)
    equal(values(agent, oids), wanted)


@per_generation(since=309)
def a_client_newer_than_the_server_is_told(world, generation):
    """After a restore that nobody can notice (the server has neither the note nor the index of the lost file) the cache is
    ahead; the client must not be served on as if nothing was."""
    server = world.server(generation)
    writer, oids, tid = warm(world, generation, server)
    writer.close(h="w")
    server.stop()
    backup = server.data_path.read_bytes()
    server.start()
    writer = world.client(generation, server, h="w", agent=writer)
    writer.commit(h="w", changes=[[oids[1], tid, 100, 0]])
    cached = open_cached(world, generation, server)
    equal(values(cached, oids)[1], 100)
    cached.close(h="c")
    writer.close(h="w")
    server.stop()
    for path in server.directory.glob("Data.fs*"):
        path.unlink()
    server.data_path.write_bytes(backup)
    server.start()
    cached.forget_log()
    open_cached(world, generation, server, agent=cached, wait=False, poll=0.1)
    said = "newer transactions than server" if generation.age < 500 else "out of sync with the server"
    deadline = time.time() + 60
    while not cached.logged(part=said):
        check(time.time() < deadline, "the client noticed nothing")
        time.sleep(0.02)
    check(not cached.is_connected(h="c"), "connected to a server that is behind its cache")
