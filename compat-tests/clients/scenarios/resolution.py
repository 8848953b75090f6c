"""Conflict resolution with the application's classes: by the server's helpers, and by clients."""
import io
import os
import pickle
import pickletools
import signal
import time
from pathlib import Path

from harness.scenario import Skip, check, equal, per_generation, program, raises
from harness import generations

from .basics import Z64

COUNTER = ("ZODB.tests.ConflictResolution", "PCounter")
UNRESOLVABLE = ("ZODB.tests.ConflictResolution", "PCounter2")
LENGTH = ("BTrees.Length", "Length")

# A module of an application, for Python 2 and 3.
TROUBLE = """
from __future__ import print_function
import os, sys, threading, time
from persistent import Persistent

class Adds(Persistent):
    def _p_resolveConflict(self, old, committed, new):
        committed['_value'] += new['_value'] - old['_value']
        return committed

class Prints(Adds):
    def _p_resolveConflict(self, old, committed, new):
        print('said on standard output'); sys.stdout.flush()
        os.write(1, b'x' * 100000)
        print('said on standard error', file=sys.stderr)
        sys.stdin.read()
        return Adds._p_resolveConflict(self, old, committed, new)

class Dies(Adds):
    def _p_resolveConflict(self, old, committed, new):
        os._exit(7)

class IsKilled(Adds):
    def _p_resolveConflict(self, old, committed, new):
        os.kill(os.getpid(), 9)

class Eats(Adds):
    def _p_resolveConflict(self, old, committed, new):
        return bytearray(1 << 32)

class Hangs(Adds):
    def _p_resolveConflict(self, old, committed, new):
        while True: time.sleep(100)

class Plain(Persistent):
    pass
"""


def record(generation, name, state):
    """A record as a client of this generation writes it."""
    protocol = 1 if generation.is_python2 else 3
    head = b"" if generation.is_python2 else b"\x80\x03"
    return (head + f"c{name[0]}\n{name[1]}\n.".encode() + pickle.dumps(state, protocol)).hex()


def state(data):
    """What a record holds, behind its class."""
    data = io.BytesIO(bytes.fromhex(data))
    for _ in pickletools.genops(data):
        pass  # up to the end of the first pickle
    return pickle.load(data)


def application(world, generation):
    """The interpreter of an application: a script, as buildout makes them."""
    site = world.directory / "site"
    site.mkdir()
    (site / "trouble.py").write_text(TROUBLE)
    script = world.directory / "zopepy"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={site} PYTHONDONTWRITEBYTECODE=1 exec {generation.python} "$@"\n')
    script.chmod(0o755)
    return script


def with_helpers(world, generation, interpreter, start=True):
    """A server whose helpers run in this interpreter; Python's server itself runs in a Python with these classes."""
    server = world.server(generation, start=False)
    if not server.program.is_python:
        server.zeo += f"\nconflict-resolver {interpreter}"
    return server.start() if start else server


def put(agent, oid, serial, data):
    """One transaction; its tid, or the client's error."""
    agent.begin(h="a")
    try:
        agent.store_bytes(h="a", oid=oid, serial=serial, data=data)
        agent.vote(h="a")
    except Exception:
        agent.abort(h="a")
        raise
    return agent.finish(h="a")


def conflict(agent, generation, name, states):
    """Stores old, committed, and then the new state that started from the old one; answers what became of it."""
    old, committed, new = (record(generation, name, s) for s in states)
    oid = agent.new_oids(h="a", count=1)[0]
    t1 = put(agent, oid, Z64, old)
    put(agent, oid, t1, committed)
    tid = put(agent, oid, t1, new)
    equal(agent.get_tid(h="a", oid=oid), tid)
    return oid, agent.load_bytes(h="a", oid=oid)


def values(*numbers):
    return [{"_value": n} for n in numbers]


def counted(server, agent, conflicts, resolved):
    # ZODB3 3.9 and older clients cannot ask; the server of ZEO 5 and 6 does not count what it resolves.
    if agent.generation.age >= 310 and not server.program.is_python:
        status = agent.status(h="a")
        equal((status["conflicts"], status["conflicts_resolved"]), (conflicts, resolved))


def wait_log(server, text, count=1, timeout=60):
    deadline = time.time() + timeout
    while server.log_text().count(text) < count:
        check(time.time() < deadline, "no line in the log:", text)
        time.sleep(0.02)


@per_generation()
def helpers_resolve(world, generation):
    server = with_helpers(world, generation, generation.python)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, data = conflict(a, generation, COUNTER, values(1, 3, 5))
    equal(state(data), {"_value": 7})
    b.wait_invalidated(h="a", oid=oid, tid=a.get_tid(h="a", oid=oid))
    equal(b.load_bytes(h="a", oid=oid), data)
    _, data = conflict(a, generation, LENGTH, [10, 15, 20])
    equal(state(data), 25)
    counted(server, a, 0, 2)

    error = raises("ConflictError", conflict, a, generation, UNRESOLVABLE, values(1, 2, 3))
    check(".PCounter2," in error.answer["text"], error)
    error = raises("ConflictError", conflict, a, generation, ("no.such.module", "Class"), values(1, 2, 3))
    check("class no.such.module.Class," in error.answer["text"], error)
    counted(server, a, 2, 2)
    if not server.program.is_python:
        wait_log(server, f"conflict-resolver {generation.python}: Python ")
        check("version unknown" not in server.log_text())


@per_generation()
def bad_application_code_costs_one_resolution(world, generation):
    server = with_helpers(world, generation, application(world, generation))
    if server.program.is_python:
        raise Skip("it costs Python's server its life")
    a = world.client(generation, server)

    def works():
        equal(state(conflict(a, generation, ("trouble", "Adds"), values(1, 3, 5))[1]), {"_value": 7})

    works()
    equal(state(conflict(a, generation, ("trouble", "Prints"), values(1, 3, 5))[1]), {"_value": 7})
    wait_log(server, "said on standard output")
    wait_log(server, "said on standard error")
    for name in "Dies", "IsKilled", "Eats", "Plain":
        error = raises("ConflictError", conflict, a, generation, ("trouble", name), values(1, 2, 3))
        check(f"class trouble.{name}," in error.answer["text"], error)
        works()
    log = server.log_text()
    for text in ("ended (exit status: 7) while it resolved a conflict on an object of class trouble.Dies",
                 "ended (signal: 9 (SIGKILL)) while it resolved a conflict on an object of class trouble.IsKilled",
                 "MemoryError", "uses too much memory and is replaced"):
        check(text in log, "no line in the log:", text)


@per_generation()
def what_a_record_names_is_not_run(world, generation):
    """A record called posix.system, and the first conflict on its object had a helper run the command."""
    server = with_helpers(world, generation, application(world, generation))
    if server.program.is_python:
        raise Skip("it runs what it is told to")
    a = world.client(generation, server)
    mark = world.directory / "was-run"
    command = b"V" + f"touch {mark}".encode() + b"\n"
    call = b"cposix\nsystem\n(" + command + b"tR."
    adds = b"ctrouble\nAdds\n."
    for data in call + b"}.", adds + b"}V_value\n" + call[:-1] + b"s.":
        oid = a.new_oids(h="a", count=1)[0]
        t1 = put(a, oid, Z64, data.hex())
        put(a, oid, t1, data.hex())
        raises("ConflictError", put, a, oid, t1, data.hex())
    wait_log(server, "its record names posix.system, which is not run")
    check(not mark.exists(), "the helper ran it")
    equal(state(conflict(a, generation, ("trouble", "Adds"), values(1, 3, 5))[1]), {"_value": 7})


def processes_below(pid):
    """Children of a process, and theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid:
            found += [int(entry.name)] + processes_below(int(entry.name))
    return found


@program(ours_only=True)
def helpers_end_with_the_server(world):
    generation = generations.BY_NAME["zeo6-py311"]
    if generation.missing():
        return
    for how, hanging in (signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGTERM, True), (signal.SIGKILL, True):
        directory = f"server-{how}-{hanging}"
        (world.directory / directory).mkdir()
        site = world.directory / directory / "site"
        site.mkdir()
        (site / "trouble.py").write_text(TROUBLE)
        server = world.server(generation, name=directory, zeo=f"conflict-resolver {generation.python}",
                              environment={"PYTHONPATH": str(site)})
        a = world.client(generation, server, wait_timeout=30)
        equal(state(conflict(a, generation, ("trouble", "Adds"), values(1, 3, 5))[1]), {"_value": 7})
        if hanging:
            old, committed, new = (record(generation, ("trouble", "Hangs"), s) for s in values(1, 2, 3))
            oid = a.new_oids(h="a", count=1)[0]
            t1 = put(a, oid, Z64, old)
            put(a, oid, t1, committed)
            a.begin(h="a")
            a.store_bytes(h="a", oid=oid, serial=t1, data=new)
            a.send("vote", h="a")
            time.sleep(0.3)
        helpers = processes_below(server.process.pid)
        check(helpers, "no helper runs")
        started = time.time()
        server.stop(how)
        check(time.time() - started < 60, "the server took", time.time() - started)
        deadline = time.time() + 60
        while any(os.path.exists(f"/proc/{pid}/exe") for pid in helpers):
            check(time.time() < deadline, "helpers live on")
            time.sleep(0.02)
        if hanging:
            raises("Exception", a.receive)


@program(ours_only=True)
def helpers_that_cannot_start(world):
    generation = generations.BY_NAME["zeo6-py311"]
    if generation.missing():
        return
    server = world.server(generation, zeo="conflict-resolver /bin/true")
    a = world.client(generation, server)
    raises("ConflictError", conflict, a, generation, COUNTER, values(1, 3, 5))
    wait_log(server, "conflict-resolver /bin/true: ended (exit status: 0)")
    check("bin/zopepy" in server.log_text(), "no advice in the log")


@per_generation()
def known_classes_need_no_helper(world, generation):
    server = world.server(generation)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, data = conflict(a, generation, LENGTH, [10, 15, 20])
    equal(state(data), 25)
    b.wait_invalidated(h="a", oid=oid, tid=a.get_tid(h="a", oid=oid))
    equal(b.load_bytes(h="a", oid=oid), data)
    tree = ("BTrees.OOBTree", "OOBTree")
    _, data = conflict(a, generation, tree, [((((1, 10),),),), ((((1, 10, 2, 20),),),), ((((1, 10, 3, 30),),),)])
    equal(state(data), ((((1, 10, 2, 20, 3, 30),),),))
    error = raises("ConflictError", conflict, a, generation, tree,
                   [((((1, 10),),),), ((((1, 11),),),), ((((1, 12),),),)])
    check("class BTrees.OOBTree.OOBTree," in error.answer["text"], error)
    check(server.program.is_python or "conflict-resolver" not in server.log_text(), "advice that does not fit")


@per_generation()
def without_helpers_the_log_says_once_what_to_do(world, generation):
    server = world.server(generation)
    if server.program.is_python:
        raise Skip("Python's server imports the classes itself")
    a = world.client(generation, server)
    for _ in range(3):
        error = raises("ConflictError", conflict, a, generation, UNRESOLVABLE, values(1, 2, 3))
        check(".PCounter2," in error.answer["text"], error)
        raises("ConflictError", conflict, a, generation, COUNTER, values(1, 2, 3))
    # Further classes are logged at a level below INFO.
    lines = [line for line in server.log_text().splitlines() if "'conflict-resolver'" in line]
    equal(len(lines), 1, lines)
    check(".PCounter2 " in lines[0], lines)


@per_generation()
def clients_resolve(world, generation):
    """ZEO 5 and later merge themselves; on the same server others get the server's help."""
    server = with_helpers(world, generation, generation.python, start=False)
    if server.program.is_python and generation.age < 500:
        raise Skip("Python's server leaves these clients alone with their conflicts")
    server.zeo += "\nclient-conflict-resolution true"
    server.start()
    a, b = world.client(generation, server), world.client(generation, server)
    oid, data = conflict(a, generation, COUNTER, values(1, 3, 5))
    equal(state(data), {"_value": 7})
    b.wait_invalidated(h="a", oid=oid, tid=a.get_tid(h="a", oid=oid))
    equal(b.load_bytes(h="a", oid=oid), data)
    if not server.program.is_python:
        counted(server, a, 0, 0 if generation.age >= 500 else 1)
    raises("ConflictError", conflict, a, generation, UNRESOLVABLE, values(1, 2, 3))
    # Nothing is left of it: the next transaction of both clients passes.
    for agent in a, b:
        equal(state(conflict(agent, generation, LENGTH, [1, 2, 3])[1]), 4)
