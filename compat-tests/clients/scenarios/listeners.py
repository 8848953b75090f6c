"""Several addresses of one server, each with its own rules, and clients of all generations at them at the same time."""
import os

from harness.generations import ALL, BY_NAME
from harness.scenario import all_together, check, equal, per_generation, raises
from harness.server import free_port
from harness.tls import certificate

from .authentication import DIGEST, FOO, REALM, zeopasswd
from .basics import Z64, commit_in_turn, new_object
from .read_only import refused
from .tls import options


class At:
    """One of a server's addresses, as the server that a client is given."""

    def __init__(self, address):
        self.address = address


def listen(name, address, more=""):
    shown = address if isinstance(address, str) else "%s:%s" % tuple(address)
    return f"<listen {name}>\n  address {shown}\n{more}\n</listen>\n"


def started(world, generation=None, zeo="", sections="", storages="<filestorage 1>\npath Data.fs\n</filestorage>\n"):
    server = world.server(generation, start=False, zeo=zeo, sections=storages + sections)
    return server


@all_together
def passwords_certificates_and_a_unix_socket(world):
    """At the same moment: older clients with passwords, newer ones with certificates, and all of them at a Unix socket."""
    own, known = certificate(world.directory, "server"), certificate(world.directory, "client")
    ssl = f"<ssl>\n  certificate {own[0]}\n  key {own[1]}\n  authenticate {known[0]}\n</ssl>"
    tls, local = At(("127.0.0.1", free_port())), At(str(world.directory / "zeo.sock"))
    sections = (listen("tls", tls.address, "authentication none\n" + ssl)
                + listen("local", local.address, "authentication none\nsocket-mode 600"))
    server = started(world, zeo=DIGEST, sections=sections)
    server.write_config()
    zeopasswd(server.directory, "-p", "digest", "-f", "passwords", "-r", REALM, "foo", "bar")
    server.start()
    generations = [g for g in ALL if not g.missing() and not g.msgpack]
    names = {g.name for g in generations}
    check({"zodb310-py27", "zeo4-py27", "zeo6-py311"} <= names, "environments are missing:", names)
    agents = []
    for generation in generations:
        if generation.age < 500:
            agents.append(world.client(generation, server, **FOO))
        else:
            agents.append(world.client(generation, tls, ssl=options(own, known)))
        agents.append(world.client(generation, local))
    commit_in_turn(agents, rounds=2)
    # What one address admits, another does not.
    six = BY_NAME["zeo6-py311"]
    raises(("ClientDisconnected", "ClientStorageError"), world.client, six, server, h="x", wait_timeout=2)
    raises("ClientDisconnected", world.client, six, tls, h="x", wait_timeout=2)
    log = server.log_text()
    for line in ("authenticated as 'foo'", "certificate of 'CN=client,O=Tests'", "(<listen tls>)", "(<listen local>)"):
        check(line in log, line, log)
    equal(server.stop(), 0)


@per_generation()
def a_read_only_address(world, generation):
    reading = At(("127.0.0.1", free_port()))
    server = started(world, generation, sections=listen("reading", reading.address, "read-only yes"))
    if server.program.is_python:
        return  # Python's server has one address
    server.start()
    writer = world.client(generation, server)
    oid, tid = new_object(writer, value=1)
    refused(world, generation, reading)
    reader = world.client(generation, reading, h="r", read_only=True)
    fallback = world.client(generation, reading, h="f", read_only_fallback=True)
    equal(fallback.about(h="f")["read_only"], True)
    for h, agent in (("r", reader), ("f", fallback)):
        equal(agent.load(h=h, oid=oid)["value"], 1)
    raises("ReadOnlyError", reader.new_oids, h="r", count=1)
    # Some generations refuse in tpc_begin, some learn it from the server at vote.
    raises(("ReadOnlyError", "StorageTransactionError"), fallback.commit, h="f", changes=[[oid, tid, 2, 0]])
    tid = writer.commit(h="a", changes=[[oid, tid, 3, 0]])
    for h, agent in (("r", reader), ("f", fallback)):
        agent.wait_invalidated(h=h, oid=oid, tid=tid)
        equal(agent.load(h=h, oid=oid)["value"], 3)


@per_generation()
def access_rules(world, generation):
    """Who comes over the network may do all, a process of this machine may read."""
    local = At(str(world.directory / "zeo.sock"))
    rules = f"<access 1>\n  rule all 127.0.0.0/8\n  rule read uid:{os.geteuid()}\n</access>\n"
    server = started(world, generation, sections=listen("local", local.address) + rules)
    if server.program.is_python:
        return  # Python's server has no such rules
    server.start()
    writer = world.client(generation, server)
    oid, tid = new_object(writer, value=1)
    fallback = world.client(generation, local, h="f", read_only_fallback=True)
    equal(fallback.about(h="f")["read_only"], True)
    equal(fallback.load(h="f", oid=oid)["value"], 1)
    raises(("ReadOnlyError", "StorageTransactionError"), fallback.commit, h="f", changes=[[oid, tid, 2, 0]])
    raises("ReadOnlyError", fallback.pack, h="f")
    if generation.age > 308:
        raises("StorageError", fallback.iterate, h="f")
    tid = writer.commit(h="a", changes=[[oid, tid, 3, 0]])
    fallback.wait_invalidated(h="f", oid=oid, tid=tid)
    equal(fallback.load(h="f", oid=oid)["value"], 3)
    # A pack needs a root object.
    writer.commit(h="a", changes=[[Z64, Z64, 1, 0]])
    writer.pack(h="a")
    log = server.log_text()
    check(f"registered for storage '1' as uid {os.geteuid()}, gid" in log, log)
    check("has no right to" in log and "call raised" not in log, log)


@per_generation()
def a_storage_that_is_not_served_there(world, generation):
    public = At(("127.0.0.1", free_port()))
    storages = "".join(f"<filestorage {name}>\npath {name}.fs\n</filestorage>\n" for name in ("main", "secret"))
    server = started(world, generation, sections=listen("public", public.address, "storages main"), storages=storages)
    if server.program.is_python:
        return  # Python's server has one address
    server.start()
    refused(world, generation, public, storage="secret")
    new_object(world.client(generation, public, h="b", storage="main"), h="b", value=1)
    new_object(world.client(generation, server, h="c", storage="secret"), h="c", value=1)
