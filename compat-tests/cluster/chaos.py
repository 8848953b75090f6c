"""The cases `chaos-...`: random faults and changes of roles beside clients, and the judge of what is left."""
import json
import signal
import subprocess
import threading
import time

import judge
from agreement import compare_all
from harness import generations
from harness.server import clean_environment
from servers import Cluster, Unanswered

PROGRAM = __file__.replace("chaos.py", "chaos_client.py")
CELLS = 24
CLIENTS = [
    {"name": "w6", "generation": "zeo6-py311", "writes": True},
    {"name": "w5", "generation": "zeo5-py38", "writes": True},
    {"name": "w4", "generation": "zeo4-py27", "writes": True},
    {"name": "w310", "generation": "zodb310-py27", "writes": True},
    {"name": "w39", "generation": "zodb39-py27", "writes": True},
    {"name": "w38", "generation": "zodb38-py27", "writes": True},
    {"name": "f4", "generation": "zeo4-py36", "writes": True, "fallback": True},
    {"name": "f6", "generation": "zeo6-py311", "writes": True, "fallback": True},
    {"name": "f310", "generation": "zodb310-py27", "writes": True, "fallback": True},
    {"name": "r5", "generation": "zeo5-py38", "writes": False, "read_only": True},
    {"name": "r310", "generation": "zodb310-py27", "writes": False, "read_only": True},
]
GENERATIONS = sorted({kind["generation"] for kind in CLIENTS})
# Seconds that a client may need until it succeeds, when all is well again.
PATIENCE = 240
SYNCHRONOUS = ["synchronous-replicas 1", "on-timeout block", "synchronous-timeout 1s"]


def run(top, dice, is_synchronous, seconds, network):
    cluster = Cluster(top, SYNCHRONOUS if is_synchronous else [], network)
    clients = []
    try:
        cluster.start()
        base = {"addresses": cluster.addresses, "cells": CELLS, "end": str(top / "end")}
        inside = cluster.network.inside()
        done = subprocess.run(inside + command(dict(base, name="setup", generation="zeo6-py311")), check=True, timeout=120,
                              env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        cluster.wait_whole()
        base["oids"] = json.loads(done.stdout)
        base["began"] = time.time()
        for kind in CLIENTS:
            options = dict(base, **kind, seed=dice.randrange(1 << 30), log=str(top / f"{kind['name']}.jsonl"))
            output = open(top / f"{kind['name']}.output", "wb")
            clients.append((kind["name"], subprocess.Popen(inside + command(options), env=clean_environment(),
                                                           stdout=output, stderr=output)))
        wait_for_logs([top / f"{kind['name']}.jsonl" for kind in CLIENTS])
        operator = Operator(cluster, dice, is_synchronous, base["began"], top / "operator.log")
        operator.run(seconds)
        operator.heal()
        (top / "end").touch()
        wait_for_ends(clients)
        primary = cluster.wait_whole()
        operator.pack_all()
        cluster.stop()
        print(f"  {operator.summary()}; {primary.name} is the primary, by promotion "
              f"{primary.timelines()[-1][0]}", flush=True)
        print("  " + compare_all(cluster), flush=True)
        logs = {kind["name"]: judge.log_of(top / f"{kind['name']}.jsonl") for kind in CLIENTS}
        print("  " + judge.check(cluster, primary, logs, is_synchronous), flush=True)
        print("  longest times without success: "
              + ", ".join(f"{name} {judge.longest_pause(log):.0f} s" for name, log in logs.items()), flush=True)
    finally:
        for _, process in clients:
            process.kill()
            process.wait()
        cluster.kill()


def wait_for_ends(clients):
    """All is well again, so each client succeeds."""
    deadline = time.time() + PATIENCE
    for name, process in clients:
        try:
            code = process.wait(max(0, deadline - time.time()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"client {name} has no success in {PATIENCE} s with a whole cluster") from None
        if code:
            raise AssertionError(f"client {name} ended with {code}")


def wait_for_logs(paths, timeout=60):
    """Until each client has done something: one that cannot connect at first ends."""
    deadline = time.time() + timeout
    while not all(path.exists() and path.stat().st_size for path in paths):
        if time.time() > deadline:
            raise AssertionError(f"a client does nothing: {paths}")
        time.sleep(0.1)


def command(options):
    python = generations.BY_NAME[options["generation"]].python
    return [str(python), PROGRAM, json.dumps(options)]


class Operator:
    """Does what breaks, and what operators do then.

    A promotion that is forced beside a primary that may live, or come back, loses what only others have. With synchronous
    replicas this operator promotes without a loss, as a tool must do it: first all replicas stop following that primary, so
    that it cannot answer any more; of them, and with two all must be there, the one with the latest transaction is promoted.
    """

    def __init__(self, cluster, dice, is_synchronous, packs_at, log_path):
        self.cluster, self.dice, self.is_synchronous, self.packs_at = cluster, dice, is_synchronous, packs_at
        self.log = open(log_path, "w", buffering=1)
        self.counts = {}
        # What is to be undone, and when: (time, function).
        self.later = []
        self.disturbed = set()
        self.began = time.time()

    def say(self, *words):
        self.log.write(f"{time.time():.3f} {time.time() - self.began:7.2f} {' '.join(map(str, words))}\n")

    def summary(self):
        return ", ".join(f"{what} {count}" for what, count in sorted(self.counts.items()))

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def run(self, seconds):
        actions = [self.kill, self.kill, self.stop, self.freeze, self.freeze, *[self.disturb] * 4,
                   self.exchange, self.exchange, self.fail_over, self.fail_over, self.pack]
        until = time.time() + seconds
        while time.time() < until:
            action = self.dice.choice(actions)
            if action != self.disturb:
                self.count(action.__name__)
            self.cluster.network.check()
            try:
                action()
            except Unanswered as error:
                self.say("unanswered:", error)
            self.pause(self.dice.choice([0, 0.2, 1, 2]))

    def pause(self, seconds):
        """Does what is due meanwhile."""
        until = time.time() + seconds
        while True:
            for one in [one for one in self.later if one[0] <= time.time()]:
                self.later.remove(one)
                one[1]()
            if time.time() >= until:
                return
            time.sleep(0.05)

    def do_later(self, what, after=(0.1, 0.5, 1.5, 3, 6)):
        self.later.append((time.time() + self.dice.choice(after), what))

    def one(self):
        """A server that is up, mostly the primary."""
        up = [member for member in self.cluster if member.is_up()]
        return self.dice.choice(up) if up else None

    # Faults

    def kill(self):
        member = self.one()
        if member:
            self.say("kill", member.name)
            member.server.kill()
            self.do_later(lambda: self.start(member))

    def stop(self):
        member = self.one()
        if member:
            self.say("stop", member.name)
            code = member.server.stop(timeout=120)
            if code:
                raise AssertionError(f"{member.name} ended with {code}:\n{member.server.talk()}")
            self.do_later(lambda: self.start(member))

    def start(self, member):
        if not member.server.running():
            self.say("start", member.name)
            member.start()

    def freeze(self):
        member = self.one()
        if member:
            self.say("freeze", member.name)
            member.server.send_signal(signal.SIGSTOP)
            member.is_frozen = True
            self.do_later(lambda: self.thaw(member))

    def thaw(self, member):
        if member.is_frozen:
            self.say("thaw", member.name)
            member.is_frozen = False
            if member.server.running():
                member.server.send_signal(signal.SIGCONT)

    def disturb(self):
        """A fault of the network. A way has one at a time, which lasts as long as was chosen."""
        network = self.cluster.network
        what = self.dice.choice(network.faults)
        where, ways = network.some(self.dice)
        ways = [way for way in ways if way not in self.disturbed]
        if not ways:
            return
        self.count(what)
        self.say(what, where)
        self.disturbed.update(ways)
        for way in ways:
            getattr(way, what)()

        def heal():
            self.say("heal", where)
            self.disturbed.difference_update(ways)
            for way in ways:
                way.heal()

        self.do_later(heal, network.lasting)

    def pack(self):
        member = self.one()
        if member:
            # It can take as long as the replicas of a synchronous primary stand still.
            self.say("pack", member.name, member.ask("pack", timeout=10, time=self.packs_at))

    # Roles

    def exchange(self):
        """As planned: the primary is demoted, and the one that has everything promoted."""
        primaries = self.cluster.primaries()
        if len(primaries) != 1:
            return
        old, = primaries
        code, output = old.admin("demote", timeout=60)
        self.say("demote", old.name, code, output.strip())
        if code:
            return
        others = [member for member in self.cluster if member.is_up()]
        places = self.places(others)
        if old.name not in places:
            return
        best = max(places, key=lambda name: (places[name], name != old.name))
        self.promote(self.cluster[best], "--wait", "2", *self.dice.choice([[], ["--force"]]))

    def fail_over(self):
        """Beside a primary that is dead, or may be."""
        if self.is_synchronous:
            self.fail_over_safely()
        else:
            up = [member for member in self.cluster if member.is_up()]
            if up:
                self.promote(self.dice.choice(up), "--force")

    def fail_over_safely(self):
        """Two servers that are no primary let the third one down, and the later one is promoted."""
        roles = {}
        for member in self.cluster:
            if member.is_up():
                try:
                    roles[member.name] = member.role()["role"]
                except Unanswered as error:
                    self.say("no role:", error)
        replicas = [self.cluster[name] for name, role in roles.items() if role == "replica"]
        if len(replicas) < 2:
            return
        one, other = self.dice.sample(replicas, 2)
        for member, to in ((one, other), (other, one)):
            self.follow(member, to)
        deadline = time.time() + 15
        while any(member.role()["storages"][0]["following"]["failure"] is None for member in (one, other)):
            if time.time() > deadline:
                return
            time.sleep(0.05)
        places = self.places([one, other])
        if len(places) == 2:
            self.promote(self.cluster[max(places, key=places.get)], "--force")

    def places(self, members):
        found = {}
        for member in members:
            try:
                found[member.name] = member.place()
            except Unanswered as error:
                self.say("no place:", error)
        self.say("places", found)
        return found

    def promote(self, member, *arguments):
        if self.dice.random() < 0.2:
            self.promote_and_kill(member, *arguments)
            return
        code, output = member.admin("promote", *arguments, timeout=90)
        self.say("promote", member.name, *arguments, code, output.strip())
        if code == 0:
            for other in self.cluster:
                if other is not member and other.is_up() and self.is_replica(other):
                    self.follow(other, member)

    def promote_and_kill(self, member, *arguments):
        """It is killed in the middle, and finishes what it has begun when it starts."""
        self.count("promote_and_kill")
        kill = threading.Timer(self.dice.uniform(0, 0.02), member.server.kill)
        kill.start()
        code, output = member.admin("promote", *arguments, timeout=90)
        kill.join()
        self.say("promote and kill", member.name, *arguments, code, output.strip())
        self.do_later(lambda: self.start(member))

    def is_replica(self, member):
        try:
            return member.role()["role"] == "replica"
        except Unanswered:
            return False

    def follow(self, member, to):
        code, output = member.admin("follow", self.cluster.network.peer(member.name, to.name), timeout=60)
        self.say("follow", member.name, to.name, code, output.strip())

    # The end

    def heal(self):
        """All is well again, and one server is the primary."""
        self.say("heal all")
        self.later, self.disturbed = [], set()
        self.cluster.network.heal()
        for member in self.cluster:
            self.thaw(member)
            self.start(member)
        deadline = time.time() + 60
        while len(self.cluster.primaries()) > 1:
            if time.time() > deadline:
                raise AssertionError(f"two primaries: {[member.name for member in self.cluster.primaries()]}")
            time.sleep(0.2)
        primaries = self.cluster.primaries()
        if not primaries:
            places = self.places(self.cluster)
            best = self.cluster[max(places, key=places.get)]
            self.promote(best, "--force")
            primaries = [best]
        for member in self.cluster:
            if member is not primaries[0]:
                self.follow(member, primaries[0])
        self.cluster.wait_whole()

    def pack_all(self):
        """Afterwards all files are packed as of the same time. A replica may be at it already, because its primary was."""
        deadline = time.time() + 60
        for member in self.cluster:
            while True:
                try:
                    member.ask("pack", timeout=120, time=self.packs_at)
                    break
                except Unanswered:
                    if time.time() > deadline:
                        raise
                    time.sleep(0.2)
