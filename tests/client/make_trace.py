"""Runs ZEO's own cache on random work and lets it write its trace.

    make_trace.py CACHE MEGABYTES SEED views|current

Writes CACHE and CACHE.trace. `current` loads current revisions only, which ZEO's cache can trace on Python 3 too.
`views` is the work of a client: loads at the time of a view, some of them old, and stores of what was missing. Some
objects are dropped, as in a verification.
The clock goes on by one second at each step.
"""
import os
import random
import sys
import time

os.environ['ZEO_CACHE_TRACE'] = '1'
from ZEO.cache import ClientCache
from ZODB.utils import p64

path, megabytes, seed, kind = sys.argv[1:]
rand = random.Random(int(seed)).random
now = [1278864701.5]
time.time = lambda: now[0]
OBJECTS, STEPS = 3000, 12000


def some_oid(step):
    """Few objects are loaded often, and which they are changes slowly."""
    return int(OBJECTS * rand() ** 3 + step // 20) % OBJECTS


def size():
    return int(100 + 3000 * rand() ** 2)


Plain = ClientCache


class CacheWithVersions(Plain):
    """ZODB 3.8: three methods have an argument more."""

    def store(self, oid, start, end, data):
        super(CacheWithVersions, self).store(oid, '', start, end, data)

    def load(self, oid):
        return super(CacheWithVersions, self).load(oid, '')

    def invalidate(self, oid, tid):
        super(CacheWithVersions, self).invalidate(oid, '', tid)


if hasattr(ClientCache, 'modifiedInVersion'):
    ClientCache = CacheWithVersions
cache = ClientCache(path, int(float(megabytes) * (1 << 20)))
tid = 1000
history = {}  # oid -> [(tid, size)], ascending; what the server has
view = tid + 1
for step in range(STEPS):
    now[0] += 1
    oid = some_oid(step)
    revisions = history.setdefault(oid, [(1, size())])
    dice = rand()
    if dice < 0.1:
        # A transaction, of this client or of another one.
        tid += 1
        revisions.append((tid, size()))
        cache.invalidate(p64(oid), p64(tid))
        if rand() < 0.5:
            cache.store(p64(oid), p64(tid), None, b'x' * revisions[-1][1])
        if rand() < 0.8:
            view = tid + 1
    elif dice < 0.101 and kind == 'views':
        cache.invalidate(p64(oid), None)
    elif kind == 'current':
        if cache.load(p64(oid)) is None:
            start, length = revisions[-1]
            cache.store(p64(oid), p64(start), None, b'x' * length)
    else:
        before = view if rand() < 0.9 else max(2, view - int(40 * rand()))
        if cache.loadBefore(p64(oid), p64(before)) is not None:
            continue
        older = [r for r in revisions if r[0] < before]
        start, length = older[-1]
        newer = [r for r in revisions if r[0] > start]
        try:
            cache.store(p64(oid), p64(start), p64(newer[0][0]) if newer else None, b'x' * length)
        except ValueError:
            pass  # Before 4.2 a load of a view did not look at current data.
cache.close()
