"""Packing through clients, and zeopack against every server."""
import os
import subprocess
import time

from harness.generations import ALL
from harness.scenario import Skip, all_together, check, equal, per_generation, program, raises
from harness.server import Program, clean_environment, our_binary

from .basics import Z64
from .together import everybody

ONE, TWO = "%016x" % 1, "%016x" % 2


def counted(world, agent, times):
    """Oids 1 and 2 with so many revisions after the first; the tid of the last."""
    agent.bootstrap(h="a")
    tid = agent.load(h="a", oid=ONE)["tid"]
    for value in range(times):
        tid = agent.commit(h="a", changes=[[ONE, tid, value, 500], [TWO, tid, value, 0]])
    return tid


def revisions(agent, oid):
    return len(agent.history(h="a", oid=oid, size=100))


@per_generation()
def old_revisions_and_garbage_go(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    tid = counted(world, a, 6)
    garbage = a.new_oids(h="a", count=1)[0]
    a.commit(h="a", changes=[[garbage, Z64, 1, 0]])
    before = a.about(h="a")
    equal(revisions(a, ONE), 7)
    a.pack(h="a")
    equal(revisions(a, ONE), 1)
    equal(a.load(h="a", oid=ONE)["tid"], tid)
    b = world.client(generation, server)
    raises("POSKeyError", b.load, h="a", oid=garbage)
    # The new size is told, before the answer.
    after = a.about(h="a")
    equal((before["len"], after["len"]), (4, 3))
    check(after["size"] < before["size"], after)
    # And again: nothing to do, and then something.
    a.pack(h="a")
    tid = a.commit(h="a", changes=[[ONE, tid, 9, 0]])
    equal(revisions(a, ONE), 2)
    a.pack(h="a", at=1e9)
    equal(revisions(a, ONE), 2)
    a.pack(h="a", at=time.time() + 86400)
    equal(revisions(a, ONE), 1)
    check("pack(time=" in server.log_text() and ") complete" in server.log_text(), server.log_text())
    server.stop()
    server.start()
    a.wait_connected(h="a")
    equal(a.load(h="a", oid=ONE)["value"], 9)


@per_generation()
def a_reader_may_pack(world, generation):
    """Even with a server that is read-only."""
    server = world.server(generation)
    a = world.client(generation, server)
    counted(world, a, 3)
    server.stop()
    server.zeo += "\nread-only true"
    server.start()
    b = world.client(generation, server, h="b", read_only=True)
    b.pack(h="b")
    equal(len(b.history(h="b", oid=ONE, size=10)), 1)


@per_generation()
def without_waiting(world, generation):
    server = world.server(generation)
    a = world.client(generation, server)
    counted(world, a, 3)
    a.pack(h="a", wait=False)
    deadline = time.time() + 60
    while revisions(a, ONE) > 1:
        check(time.time() < deadline, "still not packed")
        time.sleep(0.02)


@per_generation()
def a_reference_to_nowhere(world, generation):
    """As with Python's server: the pack fails, and nothing has changed."""
    server = world.server(generation)
    a = world.client(generation, server)
    tid = counted(world, a, 2)
    lost = (b"cpersistent.mapping\nPersistentMapping\nq\x01."
            b"}q\x01U\x04dataq\x02}U\x01zU\x08\0\0\0\0\0\0\x00\x63Qss.")
    a.begin(h="a")
    a.store_bytes(h="a", oid=ONE, serial=tid, data=lost.hex())
    a.vote(h="a")
    a.finish(h="a")
    raises(("KeyError", "ServerException", "ClientStorageError"), a.pack, h="a")
    equal(revisions(a, ONE), 4)
    equal(a.load(h="a", oid=TWO)["tid"], tid)


@all_together
def counting_beside_packs(world):
    """Databases of all generations count, while all of them pack in turn."""
    server = world.server()
    agents = everybody(world, server, watch=False)
    packers = everybody(world, server)
    next(iter(agents.values())).bootstrap(h="a")
    for agent in agents.values():
        agent.db_open(h="a")
    times = 6
    for agent in agents.values():
        agent.send("db_count", h="a", times=times)
    packs = 0
    while not all(agent.answered() for agent in agents.values()) or packs < len(packers):
        list(packers.values())[packs % len(packers)].pack(h="a")
        packs += 1
    results = {g: agent.receive() for g, agent in agents.items()}
    total = sum(r["done"] for r in results.values())
    equal(sum(r["torn"] for r in results.values()), 0, f"torn reads {results}")
    equal([r["done"] for r in results.values()], [times] * len(agents), "everybody came to the end")
    for g, agent in agents.items():
        agent.db_wait_counters(h="a", wanted=[total, total])
    world.kill(server)
    server.start()
    for g, agent in agents.items():
        agent.wait_connected(h="a")
        agent.db_wait_counters(h="a", wanted=[total, total])


# -- zeopack


def zeopack(*arguments):
    command = os.path.join(os.path.dirname(our_binary()), "zeopack")
    if not os.path.exists(command):
        raise Skip(f"{command} is not there")
    done = subprocess.run([command, *arguments], env=clean_environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@per_generation()
def zeopack_against_python(world, generation):
    """A server of this generation, and the client of this generation sees what zeopack did."""
    name = generation.environment
    if not os.path.exists(Program.python(name).command[1]):
        raise Skip(f"no runzeo in {name}")
    server = world.server(generation, program=Program.python(name))
    a = world.client(generation, server)
    counted(world, a, 3)
    address = "%s:%s" % server.address
    equal(zeopack(address, "-d", "1"), (0, "", ""))
    equal(revisions(a, ONE), 4)
    equal(zeopack("-p", str(server.address[1]), "-h", "127.0.0.1"), (0, "", ""))
    equal(revisions(a, ONE), 1)
    code, out, err = zeopack(address + ":nowhere")
    equal((code, out), (1, ""))
    check("unknown storage" in err and "nowhere" in err, err)


@program(ours_only=True)
def zeopack_against_ours(world):
    generation = next((g for g in ALL if not g.missing()), None)
    if generation is None:
        raise Skip("needs an environment")
    socket_path = str(world.directory / "zeo.sock")
    server = world.server(address=socket_path, listen=socket_path, storages={"main": ("Data.fs", "")})
    a = world.client(generation, server, storage="main")
    counted(world, a, 3)
    equal(zeopack("-u", socket_path + ":main", "-t", "0"), (0, "", ""))
    equal(zeopack("-u", socket_path + ":main"), (0, "", ""))
    equal(revisions(a, ONE), 1)
    equal(zeopack("-U", socket_path, "-S", "main"), (0, "", ""))
    equal(zeopack("--nonsense")[0], 2)
    equal(zeopack("-u", socket_path)[0], 1)
    equal(zeopack()[0], 0)
    log = server.log_text()
    check("packing would free nothing" in log or "already been packed" in log, log)
