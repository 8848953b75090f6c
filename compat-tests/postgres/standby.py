"""The case `standby`: a server at the primary, a second one that serves a standby read-only, and clients that know both.

Clients count at the first server while others watch at the second one. Then the first server is killed, and a client
with `read_only_fallback` must go on at the second one, which it may only join when that has what the client has seen.
At last PostgreSQL's primary is killed, too, and the standby promoted: the second server goes on without a restart, the
first one is started again, and a client that knows both finds it and writes.
"""
import time

from database import Database
from harness.server import Program, Server


def section(dsn, read_only, keep_history):
    keys = f"keep-history {str(keep_history).lower()}\nread-only {str(read_only).lower()}"
    return f"%import relstorage\n<relstorage 1>\n{keys}\n<postgresql>\ndsn {dsn}\n</postgresql>\n</relstorage>"


def wait_for(what, holds, failures, timeout=90):
    deadline = time.time() + timeout
    while time.time() < deadline:
        try:
            if holds():
                return True
        except Exception:  # the client has no connection at the moment
            pass
        time.sleep(0.05)
    failures.append(f"waited in vain until {what}")
    return False


def run(top, pool, clients, seconds, keep_history, show, failures):
    name = "standby" if keep_history else "standby_free"
    primary, standby = Database(top / "primary"), Database(top / "standby")
    primary.start()
    primary.create(name)
    standby.follow(primary)
    both = f"host={primary.socket},{standby.socket} user=postgres dbname={name} target_session_attrs=read-write"
    first = Server(Program.ours(), top / "first", sections=section(both, False, keep_history)).start()
    dsn = f"host={standby.socket} user=postgres dbname={name}"
    second = Server(Program.ours(), top / "second", sections=section(dsn, True, keep_history))
    try:
        starter = pool.get(clients[-1])
        starter.open(h="s", addr=list(first.address), watch=False)
        starter.bootstrap(h="s")
        objects = "select count(*) from object_state"
        wanted = primary.sql(objects, name)
        wait_for("the standby has the first objects", lambda: standby.sql(objects, name) == wanted, failures)
        second.start()
        race(first, second, pool, clients, seconds, show, failures)
        fall_back(first, second, primary, standby, pool, clients[-1], failures)
        for server in (first, second):
            if server.stop():
                failures.append(f"{server.directory.name}: its exit code")
    finally:
        for server in (first, second):
            server.kill()
        standby.stop()
        primary.stop()


def race(first, second, pool, clients, seconds, show, failures):
    """Readers at the standby never see the two counters different, nor one that goes back."""
    counting, watching = [], []
    for generation in clients:
        for agents, server, read_only in ((counting, first, False), (watching, second, True)):
            agent = pool.get(generation)
            agent.open(h="a", addr=list(server.address), watch=False, read_only=read_only)
            agent.db_open(h="a")
            agents.append((generation, agent))
    for _, agent in counting:
        agent.send("db_count", h="a", times=10 ** 9, seconds=seconds)
    for _, agent in watching:
        agent.send("db_watch", h="a", seconds=seconds)
    total = 0
    for role, agents in (("count", counting), ("watch", watching)):
        for generation, agent in agents:
            total += show(f"{role} {generation}", agent.receive(timeout=seconds + 120), failures)
    for generation, agent in watching:
        try:
            agent.db_wait_counters(h="a", wanted=[total, total], timeout=60)
        except Exception as error:
            failures.append(f"watch {generation}: at the end {error}, wanted {total}")


def open_to_write(addresses, pool, generation):
    """A client at the server that writes. It may stay where it reads: sometimes ZEO's client does not look for the other
    server any more, between two servers of Python, too. One that begins anew has the choice again."""
    for _ in range(6):
        agent = pool.get(generation)
        agent.open(h="f", addr=addresses, read_only_fallback=True)
        if wait_for("", lambda: not agent.about(h="f")["read_only"], [], timeout=10):
            break
    return agent


def fall_back(first, second, primary, standby, pool, generation, failures):
    other = pool.get(generation)
    addresses = [list(first.address), list(second.address)]
    agent = open_to_write(addresses, pool, generation)
    other.open(h="r", addr=list(second.address), read_only=True)
    oid = agent.new_oids(h="f", count=1)[0]
    tid = agent.commit(h="f", changes=[[oid, "0" * 16, 1, 0]])
    first.kill()
    if wait_for("the client is at the standby's server", lambda: agent.about(h="f")["read_only"], failures):
        found = agent.load(h="f", oid=oid)
        print(f"  at the standby's server: {found}", flush=True)
        if (found["value"], found["tid"]) != (1, tid):
            failures.append(f"after the first server was killed: {found}")
    primary.stop("immediate")
    standby.promote()
    first.start()
    came_back = wait_for("", lambda: not agent.about(h="f")["read_only"], [], timeout=10)
    print(f"  the client has {'' if came_back else 'not '}come back by itself", flush=True)
    if not came_back:
        agent = open_to_write(addresses, pool, generation)
    if wait_for("a client writes again", lambda: not agent.about(h="f")["read_only"], failures):
        tid = agent.commit(h="f", changes=[[oid, tid, 2, 0]])
        other.wait_invalidated(h="r", oid=oid, tid=tid)
        found = other.load(h="r", oid=oid)
        print(f"  after the promotion: {found}", flush=True)
        if (found["value"], found["tid"]) != (2, tid):
            failures.append(f"after the promotion: {found}")
    if "CRITICAL" in second.log_text():
        failures.append("the standby's server has failed")
