"""Clients of RelStorage, for `scripts/bench postgres`: processes that commit to a database, or load from it.

    relstorage_clients.py prepare DSN
    relstorage_clients.py commit DSN PROCESSES SECONDS OBJECTS RECORD_BYTES
    relstorage_clients.py load DSN PROCESSES SECONDS OIDS

Each process has a storage, and so connections, of its own. They call the storage itself: a ZODB connection would add its
pickling, and a poll at the begin of each transaction. `commit` stores OBJECTS objects of its own in each transaction;
`load` reads objects of the file OIDS, with no cache of records. Prints lines `FIGURE VALUE`.
"""
import multiprocessing
import os
import random
import sys
import time

from relstorage.adapters.postgresql import PostgreSQLAdapter
from relstorage.options import Options
from relstorage.storage import RelStorage
from ZODB.Connection import TransactionMetaData

WARM_UP = 0.3


def connect(dsn):
    options = Options(keep_history=True, cache_local_mb=0)
    return RelStorage(PostgreSQLAdapter(dsn=dsn, options=options), options=options)


def committer(dsn, objects, length):
    """A function that makes one commit."""
    storage = connect(dsn)
    payload = os.urandom(length - 8)
    state = {"tid": b"\0" * 8, "number": 0}
    oids = [storage.new_oid() for _ in range(objects)]

    def commit():
        state["number"] += 1
        transaction = TransactionMetaData()
        storage.tpc_begin(transaction)
        data = b"%08d" % state["number"] + payload
        for oid in oids:
            storage.store(oid, state["tid"], data, "", transaction)
        if storage.tpc_vote(transaction):
            raise RuntimeError("a conflict on private objects")
        state["tid"] = storage.tpc_finish(transaction)
    return commit


def loader(dsn, path):
    """A function that makes one load."""
    storage = connect(dsn).new_instance()
    storage.poll_invalidations()
    with open(path, "rb") as file:
        all_oids = file.read()
    count = len(all_oids) // 8

    def load():
        at = random.randrange(count) * 8
        data, tid = storage.load(all_oids[at:at + 8])
        if not data or not tid:
            raise RuntimeError("load: no data, or no serial")
    return load


def work(make, everyone_ready, results, seconds):
    """One process: warms up, measures, and leaves the durations of what ended in the time of the measurement."""
    try:
        operation, failure = make(), None
    except Exception as error:  # The others wait for this process.
        operation, failure = None, repr(error)
    everyone_ready.wait()
    durations = []
    try:
        begin = time.perf_counter() + WARM_UP
        end = begin + seconds
        now = time.perf_counter()
        while now < end and operation:
            started = now
            operation()
            now = time.perf_counter()
            if begin <= now <= end:
                durations.append(now - started)
    except Exception as error:
        failure = repr(error)
    results.put((failure, durations))


def measure(make, processes, seconds, figure):
    context = multiprocessing.get_context("fork")
    everyone_ready, results = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=work, args=(make, everyone_ready, results, seconds), daemon=True)
               for _ in range(processes)]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for failure, _ in found:
        if failure:
            sys.exit(failure)
    durations = sorted(duration for _, some in found for duration in some)
    if not durations:
        sys.exit("no operation ended in the time of the measurement")
    print(figure, len(durations) / seconds)
    for name, percent in (("p50_us", 50), ("p99_us", 99)):
        print(name, durations[max(-(-len(durations) * percent // 100), 1) - 1] * 1e6)
    if figure == "commits_s":
        print("longest_ms", durations[-1] * 1e3)
        print("fair", min(len(some) for _, some in found) * processes / len(durations))
    sys.stdout.flush()
    # The storages' threads are not waited for.
    os._exit(0)


def main(workload, dsn, *rest):
    if workload == "prepare":
        # The first client of a database adds RelStorage's functions.
        connect(dsn).close()
    elif workload == "commit":
        processes, seconds, objects, length = rest
        measure(lambda: committer(dsn, int(objects), int(length)), int(processes), float(seconds), "commits_s")
    elif workload == "load":
        processes, seconds, path = rest
        measure(lambda: loader(dsn, path), int(processes), float(seconds), "loads_s")
    else:
        sys.exit("unknown workload " + workload)


if __name__ == "__main__":
    main(*sys.argv[1:])
