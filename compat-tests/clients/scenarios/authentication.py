"""Digest authentication: clients before ZEO 5 with and without credentials, and the password file."""
import os
import pty
import stat
import subprocess
import time
from pathlib import Path

from harness.generations import ALL, VENVS
from harness.scenario import all_together, check, equal, per_generation, program, raises
from harness.server import our_binary

from .basics import Z64, commit_in_turn, new_object

REALM = "A Realm"
DIGEST = "\n".join(["authentication-protocol digest", "authentication-database passwords",
                    f"authentication-realm {REALM}"])
FOO = {"username": "foo", "password": "bar", "realm": REALM}


def zeopasswd(directory, *arguments, environment=None, stdin=None):
    """Ours, or Python's of an environment. Returns the exit code and what was printed."""
    if environment:
        code = "from ZEO.zeopasswd import main; main()"
        command = [str(VENVS / environment / "bin" / "python"), "-c", code]
    else:
        command = [str(Path(our_binary()).with_name("zeopasswd"))]
    done = subprocess.run(command + list(arguments), cwd=directory, input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True)
    return done.returncode, done.stdout


def protected_server(world, generation=None, zeo=DIGEST, realm=("-r", REALM)):
    server = world.server(generation, start=False, zeo=zeo)
    environment = "zeo4-py27" if server.program.is_python else None
    code, said = zeopasswd(server.directory, "-p", "digest", "-f", "passwords", *realm, "foo", "bar",
                           environment=environment)
    equal(code, 0, said)
    return server.start()


def refused(world, generation, server, *all_credentials):
    """None of these clients gets in, however often it tries."""
    agent = world.agent(generation)
    for n, credentials in enumerate(all_credentials):
        world.client(generation, server, h=f"refused {n}", agent=agent, wait=False, **credentials)
    time.sleep(1.5)
    for n, credentials in enumerate(all_credentials):
        check(not agent.is_connected(h=f"refused {n}"), "connected with", credentials)
        raises("ClientDisconnected", agent.load, h=f"refused {n}", oid=Z64)
        agent.close(h=f"refused {n}")


@per_generation(until=499)
def the_right_password(world, generation):
    server = protected_server(world, generation)
    a = world.client(generation, server, **FOO)
    b = world.client(generation, server, **FOO)
    oid, tid = new_object(a, value=1)
    for value, size in ((2, 0), (3, 1 << 20), (4, 100)):
        tid = a.commit(h="a", changes=[[oid, tid, value, size]])
        b.wait_invalidated(h="a", oid=oid, tid=tid)
        equal(b.load(h="a", oid=oid)["value"], value)
    tid = b.commit(h="a", changes=[[oid, tid, 5, 0]])
    a.wait_invalidated(h="a", oid=oid, tid=tid)
    equal(a.load(h="a", oid=oid)["value"], 5)
    reader = world.client(generation, server, h="r", read_only=True, **FOO)
    equal(reader.load(h="r", oid=oid)["value"], 5)
    raises("ReadOnlyError", reader.begin, h="r")


@per_generation(until=499)
def wrong_or_no_credentials(world, generation):
    server = protected_server(world, generation)
    refused(world, generation, server, {}, dict(FOO, password="noogie"), dict(FOO, username="nobody"),
            dict(FOO, realm="Another"))
    a = world.client(generation, server, **FOO)
    new_object(a, value=1)
    if not server.program.is_python:
        log = server.log_text()
        check("authentication failed for 'foo'" in log and "authentication failed for 'nobody'" in log, log)
        check("authenticated as 'foo'" in log, log)


@per_generation(until=499)
def without_a_realm(world, generation):
    server = protected_server(world, generation, DIGEST.rsplit("\n", 1)[0], realm=())
    a = world.client(generation, server, **dict(FOO, realm=None))
    new_object(a, value=1)
    if not server.program.is_python:
        refused(world, generation, server, dict(FOO, password="noogie", realm=None))


@per_generation(until=499)
def a_changed_password_file(world, generation):
    server = world.server(generation, start=False, zeo=DIGEST)
    if server.program.is_python:
        return  # Python's servers read it once
    configured = ("-C", "zeo.conf")
    server.write_config()
    zeopasswd(server.directory, *configured, "foo", "bar")
    server.start()
    a = world.client(generation, server, **FOO)
    oid, tid = new_object(a, value=1)
    equal(zeopasswd(server.directory, *configured, "other", stdin="new\n"), (0, ""))
    b = world.client(generation, server, h="b", **dict(FOO, username="other", password="new"))
    equal(b.load(h="b", oid=oid)["value"], 1)
    equal(zeopasswd(server.directory, *configured, "-d", "foo"), (0, ""))
    refused(world, generation, server, FOO)
    # Who is connected stays so.
    tid = a.commit(h="a", changes=[[oid, tid, 2, 0]])
    b.wait_invalidated(h="b", oid=oid, tid=tid)


@per_generation(since=500)
def clients_that_know_no_passwords(world, generation):
    server = world.server(generation, start=False)
    if server.program.is_python:
        return  # ZEO 5 and 6 have no authentication
    server.zeo += "\n" + DIGEST
    zeopasswd(server.directory, "-p", "digest", "-f", "passwords", "-r", REALM, "foo", "bar")
    server.start()
    raises(("ClientDisconnected", "ClientStorageError"), world.client, generation, server, wait_timeout=2)
    check("refused: authentication-protocol demands a user and a password" in server.log_text(), server.log_text())


@all_together
def all_that_can_authenticate(world):
    server = protected_server(world)
    agents = []
    for generation in (g for g in ALL if g.age < 500 and not g.missing()):
        agents.append(world.client(generation, server, **FOO))
    commit_in_turn(agents, rounds=4)


@program(ours_only=True)
def zeopasswd_writes_what_python_writes(world):
    steps = [("-p", "digest", "-f", "FILE", "-r", REALM, "foo", "bar"), ("-p", "digest", "-f", "FILE", "bar", "foo"),
             ("-p", "digest", "-f", "FILE", "zoe", "pass word"), ("-p", "digest", "-f", "FILE", "-d", "foo"),
             ("-p", "digest", "-f", "NO-REALM", "foo", "bar")]
    for step in steps:
        for name, environment in (("python2", "zeo4-py27"), ("python3", "zeo4-py36"), ("ours", None)):
            directory = world.directory / name
            directory.mkdir(exist_ok=True)
            equal(zeopasswd(directory, *step, environment=environment), (0, ""), step)
    for file in ("FILE", "NO-REALM"):
        found = {name: (world.directory / name / file).read_text() for name in ("python2", "python3", "ours")}
        equal(found["ours"], found["python2"])
        equal(found["ours"], found["python3"])
        equal(stat.S_IMODE(os.stat(world.directory / "ours" / file).st_mode), 0o600)


def at_a_terminal(directory, *arguments, typed):
    """Runs it with a terminal of its own, typing an answer to each question. Exit code, and all that could be seen."""
    command = [str(Path(our_binary()).with_name("zeopasswd")), *arguments]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execv(command[0], command)
    seen = b""
    try:
        for question, answer in typed:
            while not seen.endswith(question):
                seen += os.read(terminal, 1000)
            os.write(terminal, answer)
        while True:
            more = os.read(terminal, 1000)
            if not more:
                break
            seen += more
    except OSError:  # the terminal's other end is closed
        pass
    status = os.waitpid(pid, 0)[1]
    os.close(terminal)
    return status, seen.decode()


@program(ours_only=True)
def zeopasswd_asks_without_showing(world):
    first, again = b"Enter password: ", b"Enter password again: "
    to = ("-p", "digest", "-f", "FILE", "-r", REALM)
    status, seen = at_a_terminal(world.directory, *to, "foo", typed=[(first, b"bar\n"), (again, b"bar\n")])
    equal(status, 0, seen)
    check("bar" not in seen, seen)
    zeopasswd(world.directory, "-p", "digest", "-f", "OTHER", "-r", REALM, "foo", "bar")
    equal((world.directory / "FILE").read_text(), (world.directory / "OTHER").read_text())
    before = (world.directory / "FILE").read_text()
    status, seen = at_a_terminal(world.directory, *to, "zoe", typed=[(first, b"bar\n"), (again, b"baz\n")])
    equal(os.WEXITSTATUS(status), 1, seen)
    check("the two passwords differ; FILE is unchanged" in seen, seen)
    status, seen = at_a_terminal(world.directory, *to, "zoe", typed=[(first, b"\x03")])
    check(os.WIFSIGNALED(status), "interrupted:", status)
    equal((world.directory / "FILE").read_text(), before)
