"""Prints what a FileStorage has, as seen through its API, one fact a line: `python dump.py Data.fs`.

    N length size last-tid
    T tid status user description extension          transactions, in file order (hex)
    R oid tid data_txn data                          their records
    L oid tid data | POSKeyError                     load, in oid order
    B oid before tid end data | None | POSKeyError   loadBefore, at every tid
    H oid tid:size ...                               history

Data is length:crc32. Runs under every Python and ZODB that ever wrote such files (2.7, 3.x; ZODB3 3.8 on).
"""
import binascii
import sys
import zlib

from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, u64


def hexed(value):
    if not isinstance(value, bytes):
        value = value.encode('utf-8')
    return binascii.hexlify(value).decode('ascii') or '-'


def short(data):
    return '-' if data is None else '%d:%08x' % (len(data), zlib.crc32(data) & 0xffffffff)


def tid_or(tid):
    return '-' if tid is None else hexed(tid)


def extension(txn):
    """The bytes of the extension: an attribute since ZODB 5, before only the dict."""
    if hasattr(txn, 'extension_bytes'):
        return hexed(txn.extension_bytes)
    found = getattr(txn, '_extension', None) or getattr(txn, 'extension', None)
    return 'dict' if found else '-'


def dump(path, out):
    def say(*words):
        out.write(' '.join(words) + '\n')

    storage = FileStorage(path, read_only=True)
    last = storage.lastTransaction() if hasattr(storage, 'lastTransaction') else None
    say('N', str(len(storage)), str(storage.getSize()), tid_or(last))
    tids = []
    for txn in storage.iterator():
        status = txn.status if isinstance(txn.status, str) else txn.status.decode('ascii')
        say('T', hexed(txn.tid), hexed(status), hexed(txn.user), hexed(txn.description), extension(txn))
        tids.append(txn.tid)
        for record in txn:
            say('R', hexed(record.oid), hexed(record.tid), tid_or(record.data_txn), short(record.data))
    oids = sorted(storage._index.keys())
    for oid in oids:
        try:
            data, tid = storage.load(oid, '')[:2]
            say('L', hexed(oid), hexed(tid), short(data))
        except POSKeyError:
            say('L', hexed(oid), 'POSKeyError')
        for before in tids + [p64(u64(tids[-1]) + 1)]:
            try:
                found = storage.loadBefore(oid, before)
            except POSKeyError:
                say('B', hexed(oid), hexed(before), 'POSKeyError')
                continue
            if found is None:
                say('B', hexed(oid), hexed(before), 'None')
            else:
                data, tid, end = found
                say('B', hexed(oid), hexed(before), hexed(tid), tid_or(end), short(data))
        revisions = storage.history(oid, size=100)
        say('H', hexed(oid), *['%s:%d' % (hexed(r['tid']), r['size']) for r in revisions])
    storage.close()


if __name__ == '__main__':
    dump(sys.argv[1], sys.stdout)
