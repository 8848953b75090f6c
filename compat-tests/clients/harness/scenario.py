"""Registry of tests, what a test gets (`World`), and counting.

Three kinds: for every generation (one client library against a server that serves it), for all generations at
once (only a server that serves them all can run these), and about the server program alone.
"""
import inspect
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from . import generations
from .agents import AgentPool, ClientError
from .server import Program, Server

PER_GENERATION = []
ALL_TOGETHER = []
PROGRAM = []

# Tests that are tried once more when they have failed. More than these are no accident.
AGAIN_MAX = 3


class Skip(Exception):
    """This test does not apply here; the text says why."""


def per_generation(since=0, until=10000, but=()):
    """A test for each generation, if its library has what the test needs."""
    def register(function):
        function.since, function.until, function.but = since, until, but
        PER_GENERATION.append(function)
        return function
    return register


def all_together(function):
    ALL_TOGETHER.append(function)
    return function


def program(ours_only=False):
    def register(function):
        function.ours_only = ours_only
        PROGRAM.append(function)
        return function
    return register


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in what) or "not so")


def equal(found, wanted, what=""):
    if found != wanted:
        raise AssertionError(f"{what}: found {found!r}, wanted {wanted!r}")


def raises(names, function, *args, **kw):
    """Calls and returns the client's error, which must be of one of these classes (or derived from one)."""
    names = (names,) if isinstance(names, str) else names
    try:
        result = function(*args, **kw)
    except ClientError as error:
        if not set(names) & set(error.classes):
            raise AssertionError(f"raised {error}, wanted {' or '.join(names)}") from None
        return error
    raise AssertionError(f"raised nothing but returned {result!r}, wanted {' or '.join(names)}")


class World:
    """A fresh directory, and everything started during one test; all of it ends with the test."""

    def __init__(self, directory, make_program, pool):
        self.directory = directory
        self.make_program = make_program
        self.pool = pool
        self.servers = []

    def server(self, generation=None, name="server", program=None, start=True, environment=(), **kw):
        """A server that serves this generation. With `msgpack` in it, it greets with M5."""
        if generation is not None and generation.msgpack:
            kw["zeo"] = kw.get("zeo", "") + "\nmsgpack true"
        server = Server(program or self.make_program(generation), self.directory / name, **kw)
        self.servers.append(server)
        return server.start(environment=environment) if start else server

    def agent(self, generation):
        return self.pool.get(generation)

    def client(self, generation, server, h="a", agent=None, **kw):
        """An agent with one open storage named `h`."""
        agent = agent or self.agent(generation)
        agent.open(h=h, addr=server.address if isinstance(server.address, str) else list(server.address), **kw)
        return agent

    def kill(self, server):
        """Kills it while the clients stand still: ZODB 3.8 hangs for ever when it connects to a process that is ending."""
        for agent in self.pool.lent:
            agent.process.send_signal(signal.SIGSTOP)
        try:
            server.kill()
        finally:
            for agent in self.pool.lent:
                agent.process.send_signal(signal.SIGCONT)

    def close(self):
        self.pool.return_all()
        for server in self.servers:
            server.kill()


class Runner:
    def __init__(self, directory, python_servers=False, pattern=None, verbose=False, keep=False):
        self.directory = Path(directory)
        self.python_servers = python_servers
        self.pattern = pattern
        self.verbose = verbose
        self.keep = keep
        self.pool = AgentPool(self.directory)
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failures = []
        self.again = 0

    def make_program(self, generation):
        if not self.python_servers:
            return Program.ours()
        return Program.python(generation.python_server if generation else "zeo6-py311")

    def say(self, verdict, name, detail=""):
        print(f"{verdict:<8}{name}{'  ' + detail if detail else ''}", flush=True)

    def skip(self, name, why):
        self.counts["skipped"] += 1
        self.say("SKIPPED", name, why)

    def run(self, function, *args):
        group = function.__module__.split(".")[-1]
        name = f"{group}.{function.__name__}"
        if args:
            name += f" [{', '.join(str(a) for a in args)}]"
        if self.pattern and self.pattern not in name:
            return
        directory = self.directory / name.replace(" ", "").replace("[", "-").replace("]", "").replace(",", "-")
        started = time.time()
        try:
            failure = self.attempt(function, args, directory)
            first = failure
            if failure and self.again < AGAIN_MAX:
                # Real clients have clocks of their own: what a busy machine broke passes now. What passes only now is
                # said aloud, for it may be a race.
                self.again += 1
                failure = self.attempt(function, args, directory.with_name(directory.name + "-again"))
                if not failure:
                    self.say("AGAIN", name, f"passed when tried again; first: {first} (files in {directory})")
        except Skip as why:
            self.skip(name, str(why))
            return
        if failure:
            self.counts["failed"] += 1
            self.failures.append(name)
            self.say("FAILED", name, f"{failure}{f'; before: {first}' if first != failure else ''} (files in {directory})")
        else:
            self.counts["passed"] += 1
            self.say("ok", name, f"{time.time() - started:.1f} s")

    def attempt(self, function, args, directory):
        """Runs a test in a fresh directory, which stays if it fails. Returns what was wrong, or nothing."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        world = World(directory, self.make_program, self.pool)
        try:
            function(world, *args)
        except Skip:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        except Exception as error:
            if self.verbose:
                traceback.print_exception(type(error), error, error.__traceback__, file=sys.stdout)
            for agent in world.pool.lent:
                agent.broken = True
            where = traceback.extract_tb(error.__traceback__)
            frame = [f for f in where if "scenarios" in f.filename] or where
            return f"{type(error).__name__}: {error} ({Path(frame[-1].filename).name}:{frame[-1].lineno})"
        else:
            if not self.keep:
                shutil.rmtree(directory, ignore_errors=True)
            return None
        finally:
            world.close()

    def run_all(self, names=()):
        chosen = [g for g in generations.ALL if not names or g.name in names]
        ready = []
        for generation in chosen:
            why = generation.missing()
            if self.python_servers and not why:
                why = generations.BY_NAME[generation.python_server].missing()
            if why:
                self.skip(f"ALL TESTS OF {generation}", why)
            else:
                ready.append(generation)
        if not names or "program" in names:
            for function in PROGRAM:
                if self.python_servers and function.ours_only:
                    continue
                self.run(function)
        for generation in ready:
            for function in PER_GENERATION:
                if function.since <= generation.age <= function.until and generation.name not in function.but:
                    self.run(function, generation)
        if not self.python_servers:
            for function in ALL_TOGETHER:
                if (not names or "together" in names) and len(inspect.signature(function).parameters) == 1:
                    self.run(function)
        self.pool.stop()
        print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % self.counts)
        return 1 if self.counts["failed"] else 0
