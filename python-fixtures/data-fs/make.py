"""Makes one fixture: `python make.py DIR` writes DIR/Data.fs, its index and DIR/expected.txt (see dump.py).

Run it with each Python whose files are to be read: `./make.sh` does. Time is faked, so the same ZODB gives the same
bytes again. Data.fs has current and old revisions, an undone change (back-pointer), an undone creation, a deleted
object where that exists, a large record, blocks of zeros, oids far apart, and a packed part.
"""
import os
import struct
import sys
import time

clock = [1700000000.0]


def tick():
    clock[0] += 1.25
    return clock[0]


time.time = tick

from ZODB.FileStorage import FileStorage  # noqa: E402
from ZODB.utils import p64, z64  # noqa: E402

import dump  # noqa: E402

try:
    from ZODB.Connection import TransactionMetaData
except ImportError:
    try:
        from transaction import Transaction as TransactionMetaData
    except ImportError:
        from transaction._transaction import Transaction as TransactionMetaData


def pickle_of(text):
    """A record as ZODB writes it: class, then state."""
    body = text if isinstance(text, bytes) else text.encode('utf-8')
    return (b'cpersistent.mapping\nPersistentMapping\n.'
            b'}U\x04dataT' + struct.pack('<i', len(body)) + body + b's.')


def commit(storage, stores, description=b'', user=b'', extension=None, undo=None, delete=None):
    txn = TransactionMetaData()
    txn.user, txn.description = user, description
    if extension:
        if hasattr(txn, 'extension'):
            txn.extension = extension
        else:
            txn._extension = extension
    storage.tpc_begin(txn)
    for oid, serial, data in stores:
        storage.store(p64(oid), serial, data, '', txn)
    if undo:
        storage.undo(undo, txn)
    if delete:
        storage.deleteObject(p64(delete[0]), delete[1], txn)
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)
    return storage.lastTransaction()


def make(directory):
    os.makedirs(directory)
    path = os.path.join(directory, 'Data.fs')
    storage = FileStorage(path)
    t1 = commit(storage, [(0, z64, pickle_of('root'))], b'initial database creation')
    t2 = commit(storage, [(1, z64, pickle_of('one')), (2, z64, pickle_of('two'))], b'two objects', b'/ someone',
                {'key': 'value', 'number': 7})
    t3 = commit(storage, [(1, t2, pickle_of('one, changed'))], u'caf\xe9'.encode('utf-8'))
    storage.pack(clock[0] + 0.5, lambda data, oids=None: [] if oids is None else oids)
    # Nothing refers to object 1, so it may be gone.
    one = t3 if 1 in present(storage) else z64
    commit(storage, [(0, t1, pickle_of('root again')), (1, one, pickle_of('one, after the pack'))],
           b'after the pack')
    undo_id = storage.undoLog(0, 1)[0]['id']
    commit(storage, [], b'undo', undo=undo_id)
    commit(storage, [(3, z64, pickle_of('three')), (70000, z64, pickle_of('far')),
                     (1 << 40, z64, pickle_of('very far'))], b'more objects')
    undo_id = storage.undoLog(0, 1)[0]['id']
    commit(storage, [], b'undo creation', undo=undo_id)
    t6 = commit(storage, [(4, z64, pickle_of(b'x' * 20000)), (5, z64, pickle_of(b'\0' * 9000)),
                          (6, z64, pickle_of('six'))], b'large')
    if hasattr(storage, 'deleteObject'):
        commit(storage, [], b'delete', delete=(6, t6))
    commit(storage, [], b'')
    storage.close()
    with open(os.path.join(directory, 'expected.txt'), 'w') as out:
        dump.dump(path, out)
    for name in ('Data.fs.lock', 'Data.fs.tmp', 'Data.fs.old'):
        if os.path.exists(os.path.join(directory, name)):
            os.remove(os.path.join(directory, name))


def present(storage):
    from ZODB.utils import u64
    return [u64(oid) for oid in storage._index.keys()]


if __name__ == '__main__':
    make(sys.argv[1])
