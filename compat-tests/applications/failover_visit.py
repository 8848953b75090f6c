"""A site of two Zope processes that have the addresses of a cluster's three servers, while the roles change.

Users read and write at both processes all the time. Every page is checked: its content is of one transaction, not older than
what its process has shown or answered before, and what was answered is there at the end. Printed is the longest time in
which no write of a process was answered, for each change of roles.
"""
import collections
import re
import threading
import time

from agreement import compare_all
from drill import demoted, promoted
from harness.scenario import check
from servers import Unanswered

from middle_visit import MiddleSite, User
from site_visit import eventually
from zope import Zope

USERS = ["write", "upload", "change_pair", "look"]
# What Zope shows an error page for while there is no primary. Users try again.
RETRIABLE = {"ClientDisconnected", "DisconnectedError", "ReadOnlyError"}
# The longest time without an answered write that is no failure. What it was is printed.
PAUSE_MAX = 60


class FailoverSite(MiddleSite):
    blob_count = 20

    def __init__(self, environment, directory, cluster, falls_back):
        """`falls_back`: whether the second process has read-only-fallback; the first one has it."""
        self.environment, self.cluster = environment, cluster
        # There is no middle.
        self.middle = self.server = None
        first, *others = [member.server for member in cluster]
        self.a = Zope(environment, directory / "zope-a", first, others=others, read_only_fallback=True)
        self.b = Zope(environment, directory / "zope-b", first, others=others, read_only_fallback=falls_back)
        self.falls_back = {self.a: True, self.b: falls_back}
        self.looks = collections.Counter()
        self.stored = collections.Counter()
        self.increments = collections.Counter()
        # By process: the value of each folder's pair that it has shown or answered last.
        self.pairs = {zope: collections.Counter() for zope in (self.a, self.b)}
        self.answered = {zope: [] for zope in (self.a, self.b)}
        self.lock = threading.Lock()

    def start(self):
        self.cluster.wait_whole()
        for zope in (self.b, self.a):
            self.start_process(zope)

    def start_process(self, zope):
        """A client of ZEO 5 and 6 with read-only-fallback may begin at a replica, and goes on to the primary at once. Zope
        ends if its first load is lost with the first connection, or if it makes its root before that."""
        for attempt in range(5):
            try:
                return zope.start().wait_ready()
            except RuntimeError:
                is_known = self.falls_back[zope] and re.search("ClientDisconnected|ReadOnlyError", zope.talk())
                if attempt == 4 or not is_known:
                    raise
                print("        Zope ended, as it went on to the primary while it started", flush=True)

    def build(self):
        for name in ("change_pair", "read_pair"):
            self.b.add_external_method("", name, "visits", name)
        super().build()

    # -- what users do

    def write(self, zope):
        super().write(zope)
        self.answered[zope].append(time.monotonic())

    def upload(self, zope):
        super().upload(zope)
        self.answered[zope].append(time.monotonic())

    def change_pair(self, zope):
        own = self.own(zope)
        value = int(zope.get(f"/{own}/change_pair"))
        with self.lock:
            last = self.pairs[zope][own]
            self.pairs[zope][own] = max(last, value)
        check(value >= last, f"a change of {own} was answered with {value}, and {last} was shown before")
        self.answered[zope].append(time.monotonic())

    def look(self, zope):
        """Pairs of both processes, the page, and a blob."""
        for own in ("site-a", "site-b"):
            with self.lock:
                last = self.pairs[zope][own]
            one, other = map(int, zope.get(f"/{own}/read_pair").split())
            check(one == other, f"a page of two states: the pair of {own} is {one} and {other}")
            check(one >= last, f"the pair of {own} is {one}, and {last} was shown or answered before")
            with self.lock:
                self.pairs[zope][own] = max(self.pairs[zope][own], one)
        self.read(zope)
        self.looks[zope] += 1
        self.fetch(zope, self.looks[zope] % self.blob_count)

    # -- changes of roles

    def exchange(self):
        """As planned, from the first server to the second one."""
        self.while_roles_change("exchange", lambda: self.hand_over(self.cluster["a"], self.cluster["b"]))

    def primary_is_killed(self):
        """The replica that has more takes its place at once."""
        self.while_roles_change("kill", self.kill_and_promote)

    def old_primary_comes_back(self):
        self.while_roles_change("return", self.start_killed)

    def exchange_back(self):
        """To the server that was killed, which has everything again."""
        primary = self.cluster.wait_whole()
        self.while_roles_change("back", lambda: self.hand_over(primary, self.cluster["b"]))

    @staticmethod
    def hand_over(primary, replica):
        demoted(primary)
        promoted(replica, "--wait", "20")

    def kill_and_promote(self):
        self.cluster["b"].server.kill()
        promoted(max((self.cluster["a"], self.cluster["c"]), key=lambda member: member.place()), "--wait", "20")
        if not all(self.falls_back.values()):
            # Without read-only-fallback ZEO 5 and 6 ask no other server again while one of the addresses does not answer.
            self.cluster["b"].server.start()

    def start_killed(self):
        killed = self.cluster["b"]
        if not killed.server.running():
            killed.server.start()
        eventually("the old primary follows", lambda: follows(killed), True)

    def while_roles_change(self, name, event):
        users = [User(self, zope, what) for zope in (self.a, self.b) for what in USERS]
        try:
            wait_for_all(users)
            began = time.monotonic()
            event()
            took = time.monotonic() - began
            wait_for_all(users)
        finally:
            for user in users:
                user.stop()
        for user in users:
            check(not user.wrong, user.wrong)
            check(user.errors.keys() <= {500}, "errors of another kind:", user)
        for zope in (self.a, self.b):
            reasons = zope.reasons_of_error_pages()
            check(reasons <= RETRIABLE, "error pages for", reasons)
        lines = [f"        {name} [{self.environment}]: the operator's commands took {took:.1f} s; the longest time without an "
                 "answered write:"]
        longest = 0
        for zope in (self.a, self.b):
            times = [began, *(moment for moment in self.answered[zope] if moment > began)]
            pause = max(later - earlier for earlier, later in zip(times, times[1:]))
            longest = max(longest, pause)
            errors = {user.name: user.errors[500] for user in users if user.zope is zope and user.errors}
            kind = "with read-only-fallback" if self.falls_back[zope] else "without read-only-fallback"
            lines.append(f"          {pause:5.2f} s {kind}; error pages: {errors or 'none'}")
        print("\n".join(lines), flush=True)
        check(longest < PAUSE_MAX, "no write was answered for", longest, "seconds")

    def nothing_is_lost(self):
        super().nothing_is_lost()
        for zope in (self.a, self.b):
            for own in ("site-a", "site-b"):
                least = max(seen[own] for seen in self.pairs.values())
                eventually(f"the pair of {own}", lambda: int(zope.get(f"/{own}/read_pair").split()[1]) >= least, True)
        self.stop()
        self.cluster.wait_whole()
        self.cluster.stop()
        print("        " + compare_all(self.cluster), flush=True)

    def stop(self):
        for zope in (self.a, self.b):
            zope.stop()


def follows(member):
    try:
        return bool(member.role()["primary"])
    except Unanswered:
        return False


def wait_for_all(users):
    """Each user has an answer to a request that begins now."""
    wanted = [(user, user.done + 2) for user in users]
    for user, count in wanted:
        while user.done < count and not user.wrong:
            user.wait_for_success(1)
