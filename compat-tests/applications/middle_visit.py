"""A site through a middle server, while the server behind it and the middle go and come back.

One Zope process is on the middle, the other on the server behind it: so it shows what a site without a middle sees of
the same event. Without a middle (`run --python`) both are on Python's server.
"""
import collections
import hashlib
import itertools
import threading
import time

from harness.scenario import check, equal

from site_visit import eventually, noise, sha
from zope import HttpError, Zope

REQUESTS = ["read", "write", "blob", "upload"]
# What sites on Python's server answer while it is away (`run --python` shows it): the error page for ClientDisconnected,
# those with ZEO 4 at once, those with ZEO 6 after half a minute.
KNOWN = {500}
# Below this a site on a middle sees nothing of what happens behind it: a request that needs the root waits for it.
# (`wait-timeout` is 30 s.)
UNSEEN = 20
# Why a middle ends the connection of a client that has voted.
VOTED_AND_LOST = ("the outcome of its transaction is unknown",
                  "another transaction was committed while its own was voted for")


class MiddleSite:
    blob_count = 200

    def __init__(self, environment, directory, server, middle, shows_users):
        self.shows_users = shows_users
        self.server = server
        self.middle = middle
        self.a = Zope(environment, directory / "zope-a", middle or server)
        self.b = Zope(environment, directory / "zope-b", server)
        self.blob_numbers = {zope: itertools.count() for zope in (self.a, self.b)}
        self.stored = collections.Counter()
        self.increments = collections.Counter()

    def start(self):
        self.b.start().wait_ready()
        self.a.start().wait_ready()

    def build(self):
        for name in ("set_up", "store_blob", "store_blobs", "fetch_blob", "increment", "read_counter"):
            self.b.add_external_method("", name, "visits", name)
        for name in ("site", "site-a", "site-b"):
            self.b.add_folder("", name)
            self.b.get(f"/{name}/set_up")
        self.b.add_page("/site", "page", "<p>page</p>")
        self.b.get(f"/site/store_blobs?count={self.blob_count}")
        eventually("the page through the middle", lambda: self.a.get("/site/page"), b"<p>page</p>")
        eventually("a blob through the middle", lambda: self.fetch(self.a, self.blob_count - 1), True)

    # -- what users do

    def read(self, zope):
        equal(zope.get("/site/page"), b"<p>page</p>")

    def own(self, zope):
        """A folder that only this process changes: conflicts are not what is tested here."""
        return "site-a" if zope is self.a else "site-b"

    def write(self, zope):
        own = self.own(zope)
        try:
            value = int(zope.get(f"/{own}/increment"))
        except (HttpError, OSError):
            self.increments[own, "unknown"] += 1
            raise
        last = self.increments[own, "last"]
        check(value > last, f"an increment of {own} was answered with {value}, the one before it with {last}")
        self.increments[own, "done"] += 1
        self.increments[own, "last"] = value

    def blob(self, zope):
        # Another one each time: it is not in the cache of the Zope process.
        self.fetch(zope, next(self.blob_numbers[zope]) % self.blob_count)

    @staticmethod
    def fetch(zope, n):
        found = zope.get(f"/site/fetch_blob?name=blob{n}")
        check(found == blob_content(n), "blob", n, "of", len(found), "bytes is another one")
        return True

    def upload(self, zope):
        own = self.own(zope)
        n = self.stored[own]
        zope.upload(f"/{own}/store_blob", "file", noise(100_000, f"{own} {n}"), name="upload")
        self.stored[own] += 1

    # -- events

    def during(self, event, unseen_by=()):
        """Users work while something happens. Afterwards everything works again, by itself. `unseen_by`: the processes
        whose users see no error, if it does not take long."""
        voted_and_lost = self.voted_and_lost()
        users = [User(self, zope, name) for zope in (self.a, self.b) for name in REQUESTS]
        try:
            started = time.time()
            event(users)
            took = time.time() - started
            for user in users:
                user.wait_for_success()
        finally:
            for user in users:
                user.stop()
        for user in users:
            check(not user.wrong, user.wrong)
            check(KNOWN.issuperset(user.errors), "errors that Python's site does not show:", user)
            if user.zope in unseen_by and took < UNSEEN and self.voted_and_lost() == voted_and_lost:
                check(not user.errors, "errors of what is not to be seen:", user)
        if self.shows_users:
            print("\n".join(f"        {user}" for user in users), flush=True)

    def voted_and_lost(self):
        """How often the middle had to end a client's connection, because the root went between the vote and the answer to
        the finish of its transaction."""
        log = self.middle.log_text() if self.middle else ""
        return sum(log.count(reason) for reason in VOTED_AND_LOST)

    def behind_the_middle(self):
        return [self.a] if self.middle else []

    def root_is_restarted(self):
        self.during(lambda users: self.goes_and_comes(self.stop_root, users), self.behind_the_middle())

    def root_is_killed(self):
        self.during(lambda users: self.goes_and_comes(self.server.kill, users), self.behind_the_middle())

    def stop_root(self):
        if not self.server.program.is_python:
            return equal(self.server.stop(), 0, "exit code")
        try:
            self.server.stop(timeout=5)
        except RuntimeError:
            # Python's server does not always end while clients store blobs; then it was killed.
            pass

    def goes_and_comes(self, go, users):
        reader = next(user for user in users if user.zope is self.a and user.name == "read")
        go()
        if self.middle:
            # Pages that are in the cache are served all the time.
            before = reader.done
            reader.wait_for_success(5)
            check(reader.done > before and not reader.errors, "reading without the root:", reader)
            check(not self.server.running(), "the root is away")
        else:
            time.sleep(1)
        self.server.start()

    def root_is_packed(self):
        self.during(lambda users: (self.a.pack(), self.b.pack()), [self.a, self.b])

    def middle_is_restarted(self):
        if self.middle:
            self.during(lambda users: (equal(self.middle.stop(), 0, "exit code"), self.middle.start()), [self.b])

    def middle_is_killed(self):
        if self.middle:
            self.during(lambda users: (self.middle.kill(), self.middle.start()), [self.b])

    def nothing_is_lost(self):
        for own, writer, other in (("site-a", self.a, self.b), ("site-b", self.b, self.a)):
            # The process that wrote sees it at once, the other one when the invalidations have come to it.
            equal(self.missing(own, writer), None)
            eventually(f"what was written to {own}, in the other process", lambda: self.missing(own, other), None)
        for n in range(0, self.blob_count, 7):
            self.fetch(self.a, n)

    def missing(self, own, zope):
        """What `zope` does not see of that which was written to the folder `own` and answered; None if it sees all."""
        done, unknown, last = (self.increments[own, what] for what in ("done", "unknown", "last"))
        value = int(zope.get(f"/{own}/read_counter"))
        if not max(done, last) <= value <= done + unknown:
            return (f"{done} increments of {own}, the last one answered with {last}, {unknown} without an answer, and the "
                    f"counter is {value}")
        count = self.stored[own]
        found = sha(zope.get(f"/{own}/fetch_blob?name=upload"))
        # The next one may have been stored without an answer.
        if found not in [sha(noise(100_000, f"{own} {n}")) for n in (count - 1, count)]:
            return f"another upload of {own} than number {count - 1}, the last"
        return None


def blob_content(n):
    """As `store_blobs` in Extensions/visits.py makes them."""
    return hashlib.sha256(str(n).encode()).digest() * 3000 + b"." * n


class User:
    """A thread that makes the same kind of request again and again."""

    def __init__(self, site, zope, name):
        self.name = name
        self.site = site
        self.zope = zope
        self.done = 0
        self.errors = collections.Counter()
        self.wrong = None
        self.longest = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        request = getattr(self.site, self.name)
        while not self.stopping.wait(0.02):
            started = time.time()
            try:
                request(self.zope)
                self.done += 1
            except HttpError as error:
                self.errors[error.status] += 1
            except OSError as error:
                self.errors[type(error).__name__] += 1
            except Exception as error:  # noqa: BLE001  (a wrong content)
                self.wrong = self.wrong or error
            self.longest = max(self.longest, time.time() - started)

    def wait_for_success(self, count=2):
        """A request that began just now, not one that was under way."""
        deadline = time.time() + 90
        wanted = self.done + count
        while self.done < wanted and not self.wrong:
            check(time.time() < deadline, "it does not work again:", self)
            time.sleep(0.02)

    def stop(self):
        self.stopping.set()
        self.thread.join(120)

    def __str__(self):
        where = "middle" if self.zope is self.site.a and self.site.middle else "direct"
        return f"{where} {self.name}: {self.done} done, longest {self.longest:.1f} s, errors {dict(self.errors)}"
