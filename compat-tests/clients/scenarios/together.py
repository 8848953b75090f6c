"""Clients of all generations on one server at the same time: no Python server can do this.

Msgpack needs a greeting of its own, so that client has no place here.
"""
import time

from harness import generations
from harness.scenario import Skip, all_together, check, equal

from .basics import Z64

def everybody(world, server, **kw):
    present = [g for g in generations.ALL if not g.msgpack and not g.missing()]
    if len(present) < 2:
        raise Skip("needs at least two environments")
    return {g: world.client(g, server, **kw) for g in present}


@all_together
def each_sees_what_the_others_commit(world):
    server = world.server()
    agents = everybody(world, server)
    first = next(iter(agents.values()))
    oid = first.new_oids(h="a", count=1)[0]
    tid = first.commit(h="a", changes=[[oid, Z64, 0, 0]])
    value = 0
    for _ in range(3):
        for writer in agents.values():
            value += 1
            tid = writer.commit(h="a", changes=[[oid, tid, value, 10 * value]], user="somebody")
            for generation, reader in agents.items():
                if reader is not writer:
                    reader.wait_invalidated(h="a", oid=oid, tid=tid)
                loaded = reader.load(h="a", oid=oid)
                equal((loaded["value"], loaded["tid"]), (value, tid), f"what {generation} reads")
    shas = {agent.load(h="a", oid=oid)["sha"] for agent in agents.values()}
    equal(len(shas), 1)
    histories = [[e["tid"] for e in agent.history(h="a", oid=oid, size=100)] for agent in agents.values()]
    equal(len(histories[0]), value + 1)
    check(all(h == histories[0] for h in histories), "different histories")
    for generation, agent in agents.items():
        seen = [t for t, _ in agent.invalidations(h="a")]
        equal(seen, sorted(set(seen)), f"order of invalidations at {generation}")


@all_together
def conflicts_between_generations(world):
    server = world.server()
    agents = everybody(world, server)
    first = next(iter(agents.values()))
    oid = first.new_oids(h="a", count=1)[0]
    old = tid = first.commit(h="a", changes=[[oid, Z64, 0, 0]])
    for writer in agents.values():
        tid = writer.commit(h="a", changes=[[oid, tid, 1, 0]])
        for generation, other in agents.items():
            if other is writer:
                continue
            try:
                other.commit(h="a", changes=[[oid, old, 2, 0]])
            except Exception as error:
                equal(error.name, "ConflictError", str(generation))
                equal((error.answer.get("oid"), error.answer.get("serials")), (oid, [tid, old]), str(generation))
            else:
                raise AssertionError(f"{generation} wrote over a newer revision")


@all_together
def votes_of_different_generations_wait_for_each_other(world):
    """Old generations want their serial at vote; new ones don't; both write the same object."""
    server = world.server()
    agents = everybody(world, server)
    order = list(agents.items())
    oid = order[0][1].new_oids(h="a", count=1)[0]
    tid = order[0][1].commit(h="a", changes=[[oid, Z64, 0, 0]])
    for (g1, first), (g2, second) in zip(order, order[1:] + order[:1]):
        for agent, value in ((first, 5), (second, 6)):
            agent.begin(h="a")
            agent.store(h="a", oid=oid, serial=tid, value=value)
        first.vote(h="a")
        second.send("vote", h="a")
        time.sleep(0.1)
        check(not second.answered(), g2, "voted beside", g1)
        new = first.finish(h="a")
        try:
            second.receive()
        except Exception as error:
            equal(error.answer.get("serials"), [new, tid], f"{g2} after {g1}")
        else:
            raise AssertionError(f"{g2} voted over what {g1} committed")
        second.abort(h="a")
        tid = new


@all_together
def tids_grow_over_interleaved_commits(world):
    """Different objects, all voted at once as far as their generations permit, finished in any order."""
    server = world.server()
    agents = everybody(world, server)
    oids = {g: agent.new_oids(h="a", count=1)[0] for g, agent in agents.items()}
    for g, agent in agents.items():
        agent.commit(h="a", changes=[[oids[g], Z64, 0, 0]])
    watcher = world.client(list(agents)[-1], server)
    for _ in range(5):
        for g, agent in agents.items():
            agent.begin(h="a")
            agent.store(h="a", oid=oids[g], serial=agent.load(h="a", oid=oids[g])["tid"], value=1)
        for agent in agents.values():
            agent.send("vote", h="a")
        waiting = list(agents.items())
        deadline = time.time() + 60
        while waiting:
            for g, agent in list(waiting):
                if agent.answered():
                    agent.receive()
                    agent.finish(h="a")
                    waiting.remove((g, agent))
            check(time.time() < deadline, "still waiting:", [str(g) for g, _ in waiting])
            time.sleep(0.002)
    deadline = time.time() + 60
    seen = []
    while len(seen) < 5 * len(agents) and time.time() < deadline:
        time.sleep(0.02)
        seen = [t for t, _ in watcher.invalidations(h="a")]
    equal(len(seen), 5 * len(agents))
    equal(seen, sorted(set(seen)))


@all_together
def counters_add_up(world):
    """Every generation counts in the same two counters, with databases and object caches, and conflicts."""
    server = world.server()
    agents = everybody(world, server, watch=False)
    next(iter(agents.values())).bootstrap(h="a")
    for agent in agents.values():
        agent.db_open(h="a")
    times = 25
    for agent in agents.values():
        agent.send("db_count", h="a", times=times)
    results = {g: agent.receive() for g, agent in agents.items()}
    total = sum(r["done"] for r in results.values())
    equal(sum(r["torn"] for r in results.values()), 0, f"torn reads {results}")
    equal([r["done"] for r in results.values()], [times] * len(agents), "everybody came to the end")
    for g, agent in agents.items():
        agent.db_wait_counters(h="a", wanted=[total, total])


@all_together
def old_and_new_caches_over_a_restart(world):
    server = world.server()
    agents = everybody(world, server)
    first = next(iter(agents.values()))
    oids = sorted(first.new_oids(h="a", count=len(agents)))
    tid = first.commit(h="a", changes=[[oid, Z64, n, 0] for n, oid in enumerate(oids)])
    for agent in agents.values():
        for oid in oids:
            agent.load(h="a", oid=oid)
    equal(server.stop(), 0)
    for agent in agents.values():
        agent.wait_connected(h="a", wanted=False)
    server.start()
    for n, agent in enumerate(agents.values()):
        agent.wait_connected(h="a")
        agent.commit(h="a", changes=[[oids[n], tid, 100 + n, 0]])
    deadline = time.time() + 60
    wanted = [100 + n for n in range(len(agents))]
    for g, agent in agents.items():
        while True:
            found = [agent.load(h="a", oid=oid)["value"] for oid in oids]
            if found == wanted or time.time() > deadline:
                break
            time.sleep(0.02)
        equal(found, wanted, str(g))
