"""TCP, Unix sockets and IPv6."""
import socket

from harness.scenario import Skip, check, equal, per_generation
from harness.server import free_port

from .basics import new_object


def works(world, generation, server, **kw):
    a, b = world.client(generation, server, **kw), world.client(generation, server, **kw)
    oid, tid = new_object(a, value=1, size=200_000)
    equal(b.load(h="a", oid=oid)["tid"], tid)
    tid = b.commit(h="a", changes=[[oid, tid, 2, 0]])
    a.wait_invalidated(h="a", oid=oid, tid=tid)
    equal(a.load(h="a", oid=oid)["value"], 2)


@per_generation()
def unix_socket(world, generation):
    path = str(world.directory / "zeo.sock")
    server = world.server(generation, address=path)
    works(world, generation, server)
    if server.program.is_python and generation.age < 500:
        return  # ZEO 4's server falls over a socket file that is left behind
    server.kill()  # leaves the socket file behind
    check((world.directory / "zeo.sock").exists())
    server.start()
    works(world, generation, server)
    equal(server.stop(), 0)
    check(not (world.directory / "zeo.sock").exists(), "the socket file stays after an orderly end")


@per_generation(since=310, but=("zeo4-py27", "zeo4-py36"))  # ZEO 4's client looks up IPv4 only
def ipv6(world, generation):
    try:
        port = free_port(socket.AF_INET6, "::1")
    except OSError as error:
        raise Skip(f"no IPv6 here: {error}") from None
    server = world.server(generation, address=("::1", port), listen=f"[::1]:{port}")
    works(world, generation, server)


@per_generation()
def port_alone_listens_everywhere(world, generation):
    port = free_port()
    server = world.server(generation, address=("127.0.0.1", port), listen=str(port))
    works(world, generation, server)
