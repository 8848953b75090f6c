"""Opens cache files with ZEO's own client, each with the size that it has, and prints what becomes of them.

    open_caches.py FILE...

A line for each: `used` or `dropped`, then the revisions that are in the index, as OID:START, ascending.
"""
import logging
import os
import sys

from ZEO.cache import ClientCache

logging.basicConfig(level=100)
for path in sys.argv[1:]:
    cache = ClientCache(path, os.path.getsize(path))
    words = []
    for oid, tid in cache.contents():
        words.append((int.from_bytes(oid, 'big'), int.from_bytes(tid, 'big')))
    for oid in cache.noncurrent.keys():
        words.extend((oid, tid) for tid in cache.noncurrent[oid].keys())
    verdict = 'dropped' if os.path.exists(path + '.bad') else 'used'
    print(verdict, *('%016x:%016x' % word for word in sorted(words)))
    cache.close()
