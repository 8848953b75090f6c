"""From Python's server to ours and back on the same files: every record and the index stay what they were."""
import shutil

from harness import files, generations
from harness.scenario import Skip, all_together, check, equal, per_generation
from harness.server import Program

from .basics import Z64


def work(agent, count=12):
    """Some transactions of several kinds; returns oid -> (tid, value) as the client saw it."""
    oids = sorted(agent.new_oids(h="a", count=count))
    tid = agent.commit(h="a", changes=[[oid, Z64, n, n * 50] for n, oid in enumerate(oids)], user="j\xf6rg",
                       description="first \u20ac", extension={"request": "/x", "n": 3})
    seen = {oid: (tid, n) for n, oid in enumerate(oids)}
    for n, oid in enumerate(oids[:5]):
        tid = agent.commit(h="a", changes=[[oid, seen[oid][0], 50 + n, 0]], description="change")
        seen[oid] = (tid, 50 + n)
    return seen


def compare(agent, seen):
    for oid, (tid, value) in seen.items():
        loaded = agent.load(h="a", oid=oid)
        equal((loaded["tid"], loaded["value"]), (tid, value), oid)


def need(*environments):
    for name in environments:
        why = generations.BY_NAME[name].missing()
        if why:
            raise Skip(why)


@per_generation(but=("zodb38-py27",))
def there_and_back(world, generation):
    """Python writes, ours goes on, Python goes on again, ours once more."""
    need(generation.python_server)
    python = Program.python(generation.python_server)
    server = world.server(generation, program=python)
    ours = world.make_program(generation)
    agent = world.client(generation, server)
    seen, dumps = {}, []
    for round_number in range(4):
        seen.update(work(agent))
        compare(agent, seen)
        agent.close(h="a")
        equal(server.stop(), 0)
        magic = server.data_path.read_bytes()[:4]
        dumped = files.dump(server.data_path)
        if dumps:
            equal(dumped[:len(dumps[-1])], dumps[-1], "what was there before")
        equal(len(dumped), 6 * (round_number + 1), "transactions")
        current = files.current(server.data_path)
        equal({oid: tid for oid, (tid, _) in current.items()}, {oid: tid for oid, (tid, _) in seen.items()})
        index = files.index(server.data_path)
        check(index["same"], "the saved index is not what a scan finds")
        equal(index["saved_end"], server.data_path.stat().st_size, "the index was saved at the end")
        equal(index["index_warnings"], [c for c in index["index_warnings"] if "scan.fs" in c or "restor" in c.lower()],
              "Python about the index")
        dumps.append(dumped)
        server.program = ours if server.program is python else python
        server.start()
        agent = world.client(generation, server, agent=agent)
        compare(agent, seen)
        equal(server.data_path.read_bytes()[:4], magic, "magic")


@per_generation(but=("zodb38-py27",))
def same_transactions_give_the_same_file(world, generation):
    """One client does the same against Python's server and ours: the dumps differ in times only."""
    need(generation.python_server)
    dumps = []
    for name, program in (("python", Program.python(generation.python_server)),
                          ("ours", world.make_program(generation))):
        server = world.server(generation, name=name, program=program)
        agent = world.client(generation, server)
        work(agent)
        agent.close(h="a")
        equal(server.stop(), 0)
        tids = {}
        dumped = files.dump(server.data_path)
        for n, txn in enumerate(dumped):
            tids[txn["tid"]] = n
            txn["tid"] = n
            txn["records"] = [[oid, tids[tid], sha, data_txn] for oid, tid, sha, data_txn in txn["records"]]
        dumps.append((server.data_path.read_bytes()[:4], server.data_path.stat().st_size, dumped))
    equal(dumps[1][2], dumps[0][2], "transactions")
    equal(dumps[1][0], dumps[0][0], "magic")
    equal(dumps[1][1], dumps[0][1], "size of the file")


@per_generation(since=309)
def copied_transactions_keep_their_tids(world, generation):
    """copyTransactionsFrom: how databases are moved from one storage to another."""
    first = world.server(generation, name="first")
    agent = world.client(generation, first)
    seen = work(agent)
    agent.close(h="a")
    equal(first.stop(), 0)
    second = world.server(generation, name="second")
    agent = world.client(generation, second, agent=agent)
    # Without the index: ZODB3 3.9 cannot read the format that ZODB3 3.10 introduced.
    source = world.directory / "source.fs"
    shutil.copy(first.data_path, source)
    agent.copy_from(h="a", path=str(source))
    compare(agent, seen)
    agent.close(h="a")
    equal(second.stop(), 0)
    equal(files.dump(second.data_path), files.dump(first.data_path))


@all_together
def python_file_storage_appends_to_ours(world):
    need("zeo6-py311")
    server = world.server()
    agent = world.client(generations.BY_NAME["zeo6-py311"], server)
    seen = work(agent)
    agent.close(h="a")
    equal(server.stop(), 0)
    new = files.look("append", server.data_path, 5)
    check(not set(new) & set(seen), "an oid was given twice")
    server.start()
    agent = world.client(generations.BY_NAME["zeo6-py311"], server)
    compare(agent, seen)
    for oid in new:
        agent.load(h="a", oid=oid)
    check(min(agent.new_oids(h="a", count=3)) > max(new))


@all_together
def python_reads_while_we_serve(world):
    """repozo and fsdump open the file read only beside the server: they see complete transactions only."""
    need("zeo6-py311")
    server = world.server()
    agent = world.client(generations.BY_NAME["zeo6-py311"], server)
    seen = work(agent)
    agent.begin(h="a")
    agent.store(h="a", oid=min(seen), serial=seen[min(seen)][0], value=1)
    agent.vote(h="a")
    equal(len(files.dump(server.data_path)), 6)
    agent.finish(h="a")
    equal(len(files.dump(server.data_path)), 7)


@all_together
def file_of_a_killed_server(world):
    need("zeo6-py311")
    server = world.server()
    agent = world.client(generations.BY_NAME["zeo6-py311"], server)
    seen = work(agent)
    agent.begin(h="a")
    agent.store(h="a", oid=min(seen), serial=seen[min(seen)][0], value=1, size=100_000)
    agent.vote(h="a")
    server.kill()
    current = files.current(server.data_path)
    equal({oid: tid for oid, (tid, _) in current.items()}, {oid: tid for oid, (tid, _) in seen.items()})
