"""The case `drill`: roles are exchanged, and the primary is killed, beside real clients that go on by themselves."""
import time

from agreement import compare_all
from harness import generations
from servers import Cluster

NONE = "00" * 8
GENERATIONS = ["zodb310-py27", "zeo4-py27", "zeo5-py38", "zeo6-py311"]
KINDS = ["plain", "fallback", "reader"]
# The longest time without a success that is no error. What it was is printed.
PAUSE_MAX = 60


def run(top, pool, dice):
    keys = ["synchronous-replicas 1", "on-timeout block", "synchronous-timeout 1s"]
    cluster = Cluster(top, keys)
    try:
        cluster.start()
        clients = [Client(pool, generation, kind, cluster) for generation in GENERATIONS for kind in KINDS]
        phase(top, cluster, clients, "exchange", lambda: exchange(cluster))
        phase(top, cluster, clients, "kill", lambda: kill(cluster))
        primary = cluster.wait_whole()
        for client in clients:
            client.check_last(pool, primary)
        cluster.stop()
        print("  " + compare_all(cluster), flush=True)
    finally:
        cluster.kill()


class Client:
    """`plain`: waits for a server that it can write at. `fallback`: takes a replica until then. `reader`: the same, and
    does not write."""

    def __init__(self, pool, generation, kind, cluster):
        self.generation, self.kind = generations.BY_NAME[generation], kind
        self.agent = pool.get(self.generation)
        self.agent.open(h="a", addr=cluster.addresses, read_only_fallback=kind != "plain", watch=True)
        self.oids, self.value, self.is_doubtful = [], 0, False

    def __str__(self):
        return f"{self.kind} of {self.generation}"

    def begin(self, end, groups):
        if self.kind == "reader":
            self.agent.send("steady_reads", h="a", groups=groups, end=str(end))
        else:
            self.agent.send("steady_commits", h="a", oids=self.oids, serial=self.tid, end=str(end))

    def plant(self):
        """New objects, of the value 0; a group for the readers."""
        self.oids = self.agent.new_oids(h="a", count=2)
        self.tid = self.agent.commit(h="a", changes=[[oid, NONE, 0, 10] for oid in self.oids])
        return self.oids

    def end(self):
        done = self.agent.receive(240)
        if self.kind != "reader":
            self.value, self.is_doubtful = done["value"], done["doubtful"]
        return done

    def check_last(self, pool, primary):
        """The last value that was answered is there, for another client of the primary."""
        if self.kind == "reader":
            return
        agent = pool.get(self.generation)
        agent.open(h="look", addr=primary.address, watch=False)
        for oid in self.oids:
            found = agent.load(h="look", oid=oid)["value"]
            if found != self.value and not (self.is_doubtful and found == self.value + 1):
                raise AssertionError(f"{self}: the last value that was answered is {self.value}, and {found} is there")
        agent.close(h="look")


def phase(top, cluster, clients, name, event):
    """Clients work, `event` happens, clients work again."""
    primary = cluster.wait_whole()
    writers = [client for client in clients if client.kind != "reader"]
    for client in clients:
        # A client that has a replica looks for something better at times.
        wait_writable(client, primary)
    groups = [client.plant() for client in writers]
    cluster.wait_whole()
    end = top / f"end-{name}"
    for client in clients:
        client.begin(end, groups)
    time.sleep(2)
    began = time.time()
    event()
    passed = time.time() - began
    time.sleep(2)
    end.touch()
    print(f"  {name}: the operator's commands took {passed:.1f} s; the longest time without success:", flush=True)
    for client in clients:
        done = client.end()
        count = done.get("commits", done.get("reads"))
        errors = ", ".join(f"{what} {count}" for what, count in sorted(done["errors"].items()))
        print(f"    {client!s:24} {done['longest']:5.1f} s, {count} successes; errors: {errors or 'none'}", flush=True)
        if done["longest"] > PAUSE_MAX:
            raise AssertionError(f"{client} had no success for {done['longest']} s")


def wait_writable(client, primary, timeout=60):
    """Also one with read-only-fallback comes to the primary by itself."""
    deadline = time.time() + timeout
    while True:
        try:
            oid, = client.agent.new_oids(h="a", count=1)
            client.agent.commit(h="a", changes=[[oid, NONE, 0, 10]])
            return
        except Exception as error:
            if time.time() > deadline:
                raise AssertionError(f"{client} cannot write after {timeout} s: {error}") from None
            time.sleep(0.1)


def demoted(member):
    code, output = member.admin("demote")
    if code:
        raise AssertionError(f"demoting {member.name}: {output}")


def promoted(member, *arguments):
    code, output = member.admin("promote", *arguments)
    if code:
        raise AssertionError(f"promoting {member.name}: {output}")


def exchange(cluster):
    """From the first server to the second one, as planned."""
    demoted(cluster["a"])
    promoted(cluster["b"], "--wait", "20")


def kill(cluster):
    """The primary is lost; the replica that has more takes its place. Later it comes back."""
    cluster["b"].server.kill()
    best = max((cluster["a"], cluster["c"]), key=lambda member: member.place())
    promoted(best, "--force")
    time.sleep(1)
    cluster["b"].start()
