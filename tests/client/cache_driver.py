"""Makes the calls of a test on the cache of ZEO's own client, of any version.

Each line of the input is a call, a list in JSON; each line of the output its result. Ids are numbers, data is
hexadecimal. The last tid is changed only by its own call.
"""
import binascii
import json
import struct
import sys

import ZEO.cache

# ZODB 3.8 has versions.
VERSIONS = not hasattr(ZEO.cache, 'max_block_size')


def p64(number):
    return struct.pack('>Q', number)


def u64(text):
    return struct.unpack('>Q', text)[0]


def text(data):
    return binascii.hexlify(data).decode('ascii')


class Calls(object):

    cache = None

    def open(self, path, size):
        self.cache = ZEO.cache.ClientCache(str(path), size)
        return self.last_tid()

    def close(self):
        self.cache.close()

    def clear(self):
        self.cache.clear()

    def last_tid(self):
        tid = self.cache.getLastTid()
        return u64(tid) if tid else 0

    def set_last_tid(self, tid):
        self.cache.setLastTid(p64(tid))

    def store(self, oid, start, end, data):
        end = p64(end) if end else None
        data = binascii.unhexlify(data)
        if VERSIONS:
            self.cache.store(p64(oid), '', p64(start), end, data)
        else:
            self.cache.store(p64(oid), p64(start), end, data)

    def invalidate(self, oid, tid):
        tid = p64(tid) if tid else None
        if VERSIONS:
            # It would set the last tid too.
            self.cache.setLastTid = lambda tid: None
            self.cache.invalidate(p64(oid), '', tid)
            del self.cache.setLastTid
        else:
            self.cache.invalidate(p64(oid), tid)

    def load(self, oid):
        found = self.cache.load(p64(oid))
        return found and [u64(found[1]), 0, text(found[0])]

    def load_before(self, oid, before):
        found = self.cache.loadBefore(p64(oid), p64(before))
        return found and [u64(found[1]), u64(found[2]) if found[2] else 0, text(found[0])]

    def contents(self):
        return sorted([u64(found[0]), u64(found[1])] for found in self.cache.contents())

    def count(self):
        return len(self.cache)


calls = Calls()
for line in iter(sys.stdin.readline, ''):
    call = json.loads(line)
    result = getattr(calls, call[0])(*call[1:])
    sys.stdout.write(json.dumps(result) + '\n')
    sys.stdout.flush()
