"""Workloads of Python's ClientStorage, for `scripts/bench client`. Runs on Python 2.7 and 3.

    client.py WORKLOAD HOST:PORT DIR THREADS SECONDS CACHE_BYTES RECORD_BYTES

DIR has the file `oids`. Prints lines `FIGURE VALUE`.
"""
from __future__ import print_function

import itertools
import os
import random
import struct
import sys
import threading
import time

from ZEO.ClientStorage import ClientStorage

NEWEST = b'\x7f' + b'\xff' * 7
ZERO = b'\0' * 8
WARM_UP = 0.3
OBJECTS_OF_A_COMMIT = 10

try:
    import ZEO.asyncio  # noqa
    IS_NEW = True
except ImportError:
    IS_NEW = False


def connect(address, cache_len, **more):
    host, port = address.rsplit(':', 1)
    return ClientStorage((host, int(port)), cache_size=cache_len, wait=True, wait_timeout=60, **more)


def loader(storage):
    """What the ZODB of this ZEO calls."""
    if IS_NEW:
        return lambda oid: storage.loadBefore(oid, NEWEST)
    return lambda oid: storage.load(oid, '')


def cpu():
    """Processor time of this process in seconds."""
    return sum(os.times()[:2])


class Clock(object):
    """0: warm-up, 1: measuring, 2: the end."""
    phase = 0


def run(threads, seconds, prepare):
    """Threads that call what `prepare` gives them, which returns a number of operations."""
    clock, counts, errors = Clock(), [0] * threads, []
    works = [prepare(number) for number in range(threads)]

    def body(number):
        work, count = works[number], 0
        try:
            while clock.phase < 2:
                phase = clock.phase
                done = work()
                if phase == 1 and clock.phase == 1:
                    count += done
        except Exception as error:
            errors.append(error)
        counts[number] = count
    all_threads = [threading.Thread(target=body, args=(number,)) for number in range(threads)]
    for thread in all_threads:
        thread.daemon = True
        thread.start()
    time.sleep(WARM_UP)
    begun, begun_cpu = time.time(), cpu()
    clock.phase = 1
    time.sleep(seconds)
    clock.phase = 2
    passed, used = time.time() - begun, cpu() - begun_cpu
    for thread in all_threads:
        thread.join()
    if errors:
        raise errors[0]
    if sum(counts):
        print('client_us', used * 1e6 / sum(counts))
    return sum(counts) / passed


def warm(storage, oids, threads, seconds):
    load = loader(storage)
    for oid in oids:
        load(oid)

    def prepare(number):
        choice = random.Random(number)
        mine = [choice.choice(oids) for _ in range(4096)]
        turns = itertools.cycle([mine[at:at + 64] for at in range(0, len(mine), 64)])

        def work():
            for oid in next(turns):
                load(oid)
            return 64
        return work
    print('loads_s', run(threads, seconds, prepare))


def cold(storage, oids, threads, seconds):
    load = loader(storage)
    oids = list(oids)
    random.Random(1).shuffle(oids)
    turns = itertools.cycle(oids)

    def work():
        load(next(turns))
        return 1
    print('loads_s', run(threads, seconds, lambda number: work))


def commits(storage, threads, seconds, record_len):
    try:
        from ZODB.Connection import TransactionMetaData as Transaction
    except ImportError:
        from transaction import Transaction

    def prepare(number):
        oids = [storage.new_oid() for _ in range(OBJECTS_OF_A_COMMIT)]
        serials = dict.fromkeys(oids, ZERO)
        tail = os.urandom(record_len - 8)
        turns = itertools.count(number << 32)

        def work():
            transaction = Transaction()
            data = struct.pack('>Q', next(turns)) + tail
            storage.tpc_begin(transaction)
            for oid in oids:
                storage.store(oid, serials[oid], data, '', transaction)
            voted = storage.tpc_vote(transaction)
            tid = storage.tpc_finish(transaction)
            for oid in oids:
                serials[oid] = tid or dict(voted)[oid]
            return 1
        return work
    print('commits_s', run(threads, seconds, prepare))


def reconnect(address, directory, cache_len):
    """Says when it is connected, again and again, and how many objects are cached then. Ends with its input."""
    storage = connect(address, cache_len, client='client', var=directory, min_disconnect_poll=1,
                      max_disconnect_poll=1)

    def watch():
        was = False
        while True:
            now = bool(storage.is_connected())
            if now and not was:
                at = time.time()
                print('connected %r %d' % (at, len(storage._cache)))
            elif was and not now:
                print('lost')
            sys.stdout.flush()
            was = now
            time.sleep(0.0005)
    thread = threading.Thread(target=watch)
    thread.daemon = True
    thread.start()
    sys.stdin.read()
    os._exit(0)


def open_cache(path, size):
    from ZEO.cache import ClientCache
    begun, begun_cpu = time.time(), cpu()
    cache = ClientCache(path, size)
    if hasattr(cache, 'open'):
        cache.open()
    print('open_ms', (time.time() - begun) * 1000)
    print('cpu_ms', (cpu() - begun_cpu) * 1000)
    print('revisions', len(cache))
    cache.close()


def main(workload, address, directory, threads, seconds, cache_len, record_len):
    threads, seconds = int(threads), float(seconds)
    cache_len, record_len = int(cache_len), int(record_len)
    if workload == 'reconnect':
        return reconnect(address, directory, cache_len)
    if workload == 'open':
        return open_cache(directory, cache_len)
    with open(os.path.join(directory, 'oids'), 'rb') as file:
        data = file.read()
    oids = [data[at:at + 8] for at in range(0, len(data), 8)]
    storage = connect(address, cache_len)
    if workload == 'warm':
        warm(storage, oids, threads, seconds)
    elif workload == 'cold':
        cold(storage, oids, threads, seconds)
    else:
        commits(storage, threads, seconds, record_len)
    storage.close()
    sys.stdout.flush()
    os._exit(0)


if __name__ == '__main__':
    import logging
    logging.basicConfig(level=logging.ERROR)
    main(*sys.argv[1:])
