"""Cases of `run` in which the database, the network or a server fails beside clients that go on by themselves.

Clients of ZEO 4 and 6 commit the values 1, 2, 3, ... to objects of their own through all servers, and know what was
acknowledged; others read groups of objects as of one moment. Each must have a success after the last failure.
"""
import os
import random
import signal
import socket
import time

from database import broken_invariants
from harness import generations
from harness.agents import AgentPool
from harness.server import Program, Server
from proxy import Proxy

GENERATIONS = ["zeo6-py311", "zeo4-py27"]
# Objects of each client that commits.
GROUP = 3


def available():
    return [generations.BY_NAME[name] for name in GENERATIONS if not generations.BY_NAME[name].missing()]


class Stage:
    """The servers over one database, and the clients."""

    def __init__(self, top, database, name, keep_history, sections, programs=None):
        """`sections`: one for each server. `programs`: the same; these servers have Unix sockets."""
        self.top, self.database, self.name, self.keep_history = top, database, name, keep_history
        self.servers = []
        for number, section in enumerate(sections):
            directory = top / f"server{number}"
            program, address = (programs[number], str(directory / "socket")) if programs else (Program.ours(), None)
            self.servers.append(Server(program, directory, address, sections=section))
        self.pool = AgentPool(top)
        self.groups, self.writers, self.readers = [], [], []
        self.failures = []
        self.end = top / "end"

    def __enter__(self):
        for server in self.servers:
            server.start()
        return self

    def __exit__(self, *error):
        self.pool.stop()
        for server in self.servers:
            server.kill()

    def agent(self, generation, server):
        agent = self.pool.get(generation)
        address = server.address if isinstance(server.address, str) else list(server.address)
        agent.open(h="a", addr=address, watch=False)
        return agent

    def begin(self):
        for number, server in enumerate(self.servers):
            for generation in available():
                agent = self.agent(generation, server)
                oids = agent.new_oids(h="a", count=GROUP)
                tid = agent.commit(h="a", changes=[[oid, "00" * 8, 0, 100] for oid in oids])
                self.groups.append(oids)
                self.writers.append((f"commits {generation} at {number}", agent, oids, tid))
        for number, server in enumerate(self.servers):
            for generation in available():
                self.readers.append((f"reads {generation} at {number}", self.agent(generation, server)))
        for _, agent, oids, tid in self.writers:
            agent.send("steady_commits", h="a", oids=oids, serial=tid, end=str(self.end))
        for _, agent in self.readers:
            agent.send("steady_reads", h="a", groups=self.groups, end=str(self.end))

    def finish(self):
        """All must be well again by themselves, and nothing be lost."""
        self.end.touch()
        values = []
        for name, agent, oids, _ in self.writers:
            result = self.receive(name, agent)
            if result:
                values.append((name, oids, result["value"], result["doubtful"]))
        for name, agent in self.readers:
            self.receive(name, agent)
        for number, server in enumerate(self.servers):
            agent = self.agent(available()[0], server)
            for name, oids, value, is_doubtful in values:
                found = {agent.load(h="a", oid=oid)["value"] for oid in oids}
                if found != {value} and not (is_doubtful and found == {value + 1}):
                    self.failures.append(f"{name}: {value} was acknowledged, server {number} has {found}")
        for server in self.servers:
            if server.stop():
                self.failures.append(f"{server.directory.name}: exit code")
            for bad in ("panic", "has failed; restart"):
                if bad in server.log_text():
                    self.failures.append(f"{server.directory.name}: the log has {bad!r}")
        self.failures += broken_invariants(self.database, self.name, self.keep_history)
        if self.keep_history:
            numbers = ", ".join(str(int(oid, 16)) for oids in self.groups for oid in oids)
            twice = self.database.sql("select zoid, count(*) from object_state where zoid in "
                                      f"({numbers}) group by zoid, md5 having count(*) > 1", self.name)
            if twice:
                self.failures.append(f"committed twice: {twice}")
        return self.failures

    def receive(self, name, agent):
        try:
            result = agent.receive(timeout=240)
        except Exception as error:
            self.failures.append(f"{name}: {str(error)[:600]}")
            return None
        what = {k: v for k, v in result.items() if v}
        print(f"  {name:<24} {what}", flush=True)
        return result


# -- the cases. Each gets a stage whose clients work, and `amount`, what the options say.

def stop(stage, database, rounds):
    """PostgreSQL is stopped at once, or its first process is killed, and started again; now and then a server, too."""
    for number in range(rounds):
        time.sleep(random.uniform(0.3, 1.5))
        server = random.choice(stage.servers) if number % 4 == 1 else None
        if server:
            server.kill()
        if number % 3 == 2:
            database.kill()
        else:
            database.stop("immediate")
        time.sleep(random.choice((0, 0.5)))
        database.start_again()
        if server:
            server.start()
    print(f"  {rounds} stops", flush=True)


def cut(stage, proxies, seconds):
    """What lies between the servers and PostgreSQL cuts, delays, holds and forgets connections."""
    deadline = time.time() + seconds
    counts = {}
    while time.time() < deadline:
        proxy = random.choice(proxies)
        left = deadline - time.time()
        kinds = ["cut"] * 6 + ["delay"] * 2 + ["hold"] * 2 + (["forget", "dark"] if left > 40 else [])
        kind = random.choice(kinds)
        counts[kind] = counts.get(kind, 0) + 1
        if kind == "cut":
            proxy.cut_by_messages(random.choice((40, 200, 1000)))
            time.sleep(min(left, random.uniform(1, 5)))
        elif kind == "delay":
            proxy.delay(random.choice((0.005, 0.05, 0.3)))
            time.sleep(min(left, random.uniform(1, 5)))
        elif kind == "hold":
            proxy.hold()
            time.sleep(min(left, random.uniform(0.5, 4)))
        elif kind == "forget":
            proxy.forget()
            time.sleep(random.uniform(1, 15))
        else:
            # A network that is away, and then has forgotten all connections.
            proxy.hold()
            time.sleep(random.uniform(5, 25))
            proxy.forget()
        proxy.calm()
    cuts, made = (sum(getattr(proxy, what) for proxy in proxies) for what in ("cuts", "made"))
    print(f"  {counts}: {made} connections, {cuts} of them cut at a message", flush=True)


def locks_go_to_others(stage, generation, what, stop, go_on):
    """The first server has voted for a change when `stop` is called. After a while others can make it. After `go_on` it cannot
    be finished."""
    here, there = (stage.agent(generation, server) for server in stage.servers)
    shared, = here.new_oids(h="a", count=1)
    tid = here.commit(h="a", changes=[[shared, "00" * 8, 1, 0]])
    there.last_transaction(h="a")
    here.begin(h="a")
    here.store(h="a", oid=shared, serial=tid, value=2)
    here.vote(h="a")
    stop()
    began = time.time()
    try:
        tid = there.commit(h="a", changes=[[shared, tid, 3, 0]], timeout=60)
        waited = time.time() - began
    finally:
        go_on()
    print(f"  {generation}: a server with locks {what}, another one waited {waited:.1f} s", flush=True)
    try:
        here.finish(h="a")
        stage.failures.append("a transaction was finished whose locks were gone, and whose object has changed")
    except Exception as error:
        print(f"    its finish then: {str(error)[:150]}", flush=True)
    found = there.load(h="a", oid=shared)
    if (found["value"], found["tid"]) != (3, tid):
        stage.failures.append(f"{found} is there, not 3 of {tid}")


def freeze(stage, database, rounds):
    """Processes stand still: a server that holds locks, a session that writes, one that reads."""
    first = stage.servers[0]
    for number in range(rounds):
        for generation in available():
            locks_go_to_others(stage, generation, "stood still", lambda: first.send_signal(signal.SIGSTOP),
                               lambda: first.send_signal(signal.SIGCONT))
        for kind, seconds in (("writer", 4), ("writer", 25), ("reader", 25)):
            process = database.session(stage.name, kind)
            if not process:
                continue
            os.kill(process, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(process, signal.SIGCONT)
            print(f"  round {number}: a session ({kind}) stood still for {seconds} s", flush=True)
            time.sleep(3)


def tree_agent(pool, server):
    agent = pool.get(generations.BY_NAME["zeo6-py311"])
    agent.write_modern_records()
    agent.open(h="a", addr=list(server.address), watch=False)
    agent.db_open(h="a")
    return agent


def pack_kill(top, database, name, keep_history, section, rounds, failures):
    """The server is killed in the middle of packs; all that is reachable stays, and a later pack removes the rest."""
    server = Server(Program.ours(), top / "server", sections=section).start()
    pool = AgentPool(top)
    try:
        starter = tree_agent(pool, server)
        starter.plant_tree(h="a")
        starter.close(h="a")
        known, last = {}, 0
        for number in range(rounds):
            end = top / f"end{number}"
            planter, packer = tree_agent(pool, server), tree_agent(pool, server)
            planter.send("steady_tree", h="a", slots=40, end=str(end), known=known, number=last)
            time.sleep(random.uniform(0.3, 1))
            packer.send("pack_loop", h="a", seconds=60, seed=number)
            time.sleep(random.choice((random.uniform(0.02, 0.5), random.uniform(0.5, 4))))
            server.kill()
            packs = packer.receive()
            server.start()
            end.touch()
            result = planter.receive()
            known, last = result["known"], result["number"]
            pool.return_all()
            print(f"  round {number}: killed in pack {packs['packs']} ({packs['stopped']}), {result['commits']} commits, "
                  f"{result['errors']}", flush=True)
            if "Disconnected" not in packs["stopped"]:
                failures.append(f"a pack has ended with {packs['stopped']}")
        judge = tree_agent(pool, server)
        judge.walk(h="a", known=known)
        judge.pack(h="a", at=time.time() + 10)
        reached = judge.walk(h="a", known=known)
        rows = int(database.sql("select count(distinct zoid) from object_state", name))
        left = int(database.sql("select count(*) from runzeo_pack", name)) if keep_history else 0
        print(f"  {reached} objects are reachable, {rows} are there", flush=True)
        if reached != rows or left:
            failures.append(f"{reached} objects are reachable and {rows} are there after the last pack, "
                            f"{left} packs are not complete")
        if server.stop():
            failures.append("the server's exit code")
        failures.extend(broken_invariants(database, name, keep_history))
    finally:
        pool.stop()
        server.kill()


def run(case, top, database, name, keep_history, options, make_section, failures):
    if case == "pack-kill":
        dsn = database.create(name)
        pack_kill(top, database, name, keep_history, make_section(dsn, keep_history), options.rounds, failures)
        return
    dsn = database.create(name)
    proxies, dsns = [], [dsn, dsn]
    if case == "cut":
        path = str(database.socket / ".s.PGSQL.5432")

        def connect():
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(path)
            return connected

        proxies = [Proxy(connect), Proxy(connect)]
        dsns = [f"host=127.0.0.1 port={proxy.port} user=postgres dbname={name} sslmode=disable" for proxy in proxies]
    try:
        with Stage(top, database, name, keep_history, [make_section(one, keep_history) for one in dsns]) as stage:
            stage.begin()
            if case == "stop":
                stop(stage, database, options.rounds)
            elif case == "cut":
                cut(stage, proxies, options.seconds)
            else:
                freeze(stage, database, options.rounds)
            failures.extend(stage.finish())
    finally:
        for proxy in proxies:
            proxy.close()
