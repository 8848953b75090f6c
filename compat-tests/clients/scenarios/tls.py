"""TLS: clients of ZEO 5 and 6 by themselves, older ones through a wrapper; certificates that are not known."""
import signal
import time

from harness.generations import ALL
from harness.scenario import all_together, check, equal, per_generation, raises
from harness.tls import Tunnel, certificate, signed_certificate

from .authentication import DIGEST, FOO, REALM, zeopasswd
from .basics import commit_in_turn, new_object


def secured_server(world, generation=None, more=""):
    """A server, and the certificates of server and known client."""
    own, known = certificate(world.directory, "server"), certificate(world.directory, "client")
    ssl = f"<ssl>\n  certificate {own[0]}\n  key {own[1]}\n  authenticate {known[0]}\n</ssl>\n"
    return world.server(generation, start=False, zeo=ssl + more), own, known


def options(own, identity):
    """What a client that is to connect must say."""
    return {"server": own[0], "certificate": identity and identity[0], "key": identity and identity[1]}


def works(a, b):
    oid, tid = new_object(a, value=1)
    for value, size in ((2, 0), (3, 3 << 20), (4, 100), (5, 200000)):
        tid = a.commit(h="a", changes=[[oid, tid, value, size]])
        b.wait_invalidated(h="a", oid=oid, tid=tid)
        equal(b.load(h="a", oid=oid)["value"], value)
    tid = b.commit(h="a", changes=[[oid, tid, 6, 0]])
    a.wait_invalidated(h="a", oid=oid, tid=tid)
    equal(a.load(h="a", oid=oid)["value"], 6)
    return oid, tid


@per_generation(since=500)
def with_certificates(world, generation):
    server, own, known = secured_server(world, generation)
    server.start()
    ssl = options(own, known)
    oid, _ = works(world.client(generation, server, ssl=ssl), world.client(generation, server, ssl=ssl))
    if not server.program.is_python:
        check("TLS 1.3, certificate of 'CN=client,O=Tests'" in server.log_text(), server.log_text())
        # Files are reopened, and certificates read anew; who is connected stays so.
        server.send_signal(signal.SIGUSR2)
    c = world.client(generation, server, ssl=ssl)
    equal(c.load(h="a", oid=oid)["value"], 6)
    equal(server.stop(), 0)


@per_generation(since=500)
def blobs_with_certificates(world, generation):
    server, own, known = secured_server(world, generation)
    server.storages = {"1": ("Data.fs", "blob-dir blobs")}
    server.start()
    a, b = (world.client(generation, server, ssl=options(own, known), blob_dir=str(world.directory / name))
            for name in ("blobs-a", "blobs-b"))
    works(a, b)


@per_generation(since=500)
def without_the_right_certificate(world, generation):
    server, own, known = secured_server(world, generation)
    server.start()
    stranger = certificate(world.directory, "stranger")
    for identity in (stranger, None):
        raises("ClientDisconnected", world.client, generation, server, ssl=options(own, identity), wait_timeout=2)
    # A client that does not know the server, and one without TLS.
    raises("ClientDisconnected", world.client, generation, server, ssl=options(stranger, known), wait_timeout=2)
    raises("ClientDisconnected", world.client, generation, server, wait_timeout=2)
    new_object(world.client(generation, server, h="good", ssl=options(own, known)), h="good", value=1)
    if not server.program.is_python:
        log = server.log_text()
        check("'CN=stranger,O=Tests': the certificate is not in 'authenticate'" in log, log)
        check("the client shows no certificate" in log, log)
        # Most versions of asyncio go without saying why.
        check("the client does not accept the certificate of this server" in log
              or "does it know the server's certificate?" in log, log)


@per_generation(since=500)
def signed_by_an_authority_of_the_system(world, generation):
    """`authenticate SIGNED`: those whose certificate an authority has signed that the server's machine trusts."""
    own, authority = certificate(world.directory, "server"), certificate(world.directory, "authority")
    ssl = f"<ssl>\n  certificate {own[0]}\n  key {own[1]}\n  authenticate SIGNED\n</ssl>\n"
    server = world.server(generation, start=False, zeo=ssl)
    if server.program.is_python:
        return  # takes the word for the name of a file
    # Where OpenSSL, and so we, look for what the machine trusts.
    server.start(environment={"SSL_CERT_FILE": authority[0]})
    known = signed_certificate(world.directory, "client", authority)
    works(*(world.client(generation, server, ssl=options(own, known)) for _ in range(2)))
    stranger = certificate(world.directory, "stranger")
    forged = signed_certificate(world.directory, "forged", certificate(world.directory, "authority of his own"))
    for identity in (stranger, forged, None):
        raises("ClientDisconnected", world.client, generation, server, ssl=options(own, identity), wait_timeout=2)
    check("certificate of 'CN=client,O=Tests'" in server.log_text(), server.log_text())


@per_generation(until=499)
def through_a_wrapper(world, generation):
    server, own, known = secured_server(world, None)
    if server.program.is_python:
        return  # ZEO 4 has no TLS
    server.zeo += DIGEST
    zeopasswd(server.directory, "-p", "digest", "-f", "passwords", "-r", REALM, "foo", "bar")
    server.start()
    tunnel = Tunnel(server.address, known, own[0])
    server.address = tunnel.address
    try:
        works(world.client(generation, server, **FOO), world.client(generation, server, **FOO))
    finally:
        tunnel.close()


@all_together
def all_generations_with_tls(world):
    server, own, known = secured_server(world)
    server.start()
    tunnel = Tunnel(server.address, known, own[0])
    agents = []
    for generation in (g for g in ALL if not g.missing() and not g.msgpack):
        if generation.age >= 500:
            agents.append(world.client(generation, server, ssl=options(own, known)))
        else:
            agents.append(world.agent(generation))
            agents[-1].open(h="a", addr=list(tunnel.address))
    deadline = time.time() + 60
    commit_in_turn(agents, rounds=3, after=lambda: check(time.time() < deadline, "too slow"))
    tunnel.close()
