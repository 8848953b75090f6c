"""Makes databases for the tests of zeofs: `python make_files.py DIR` writes DIR/NAME.fs (and DIR/blobs) and prints each
name. Runs on Python 2.7 and 3, with any ZODB from 4 on. Time is faked, so that tids are the same each time.
"""
import os
import sys
import time

clock = [1790000000.0]


def tick():
    clock[0] += 1.25
    return clock[0]


time.time = tick

import transaction  # noqa: E402
from BTrees.IOBTree import IOBTree  # noqa: E402
from BTrees.OOBTree import OOBTree  # noqa: E402
from persistent import Persistent  # noqa: E402
from persistent.mapping import PersistentMapping  # noqa: E402
from persistent.wref import WeakRef  # noqa: E402

import ZODB  # noqa: E402
from ZODB.blob import Blob  # noqa: E402
from ZODB.FileStorage import FileStorage  # noqa: E402
from ZODB.serialize import referencesf  # noqa: E402
from ZODB.utils import p64  # noqa: E402
from ZODB.utils import z64  # noqa: E402

try:
    from ZODB.Connection import TransactionMetaData
except ImportError:
    from transaction import Transaction as TransactionMetaData

PYTHON2 = sys.version_info[0] == 2


class Page(Persistent):
    """An object with attributes."""


class Slotted(Persistent):
    """Made with an argument, so that references to it have no class."""

    def __new__(cls, argument=None):
        return Persistent.__new__(cls)

    def __getnewargs__(self):
        return ('an argument',)


def note(user=u'', description=u'', **extension):
    txn = transaction.get()
    txn.user = user
    txn.description = description
    for name, value in sorted(extension.items()):
        txn.setExtendedInfo(name, value)
    transaction.commit()


def low(storage, stores, user=b'', description=b'', extension=None, undo=None, delete=None, status=' '):
    """A transaction through the storage, with any bytes."""
    txn = TransactionMetaData()
    if PYTHON2:
        txn.user, txn.description = user, description
        txn._extension = extension or {}
    else:
        txn = TransactionMetaData(user, description, extension or {})
    storage.tpc_begin(txn, None, status)
    for oid, serial, data in stores:
        storage.store(p64(oid), serial, data, '', txn)
    if undo:
        storage.undo(undo, txn)
    if delete:
        storage.deleteObject(p64(delete[0]), delete[1], txn)
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)
    return storage.lastTransaction()


def record(text, refs=()):
    """A record of protocol 1, which refers to these oids."""
    body = b'}' + b''.join(b'U\x01' + (b'%c' % (97 + i) if not PYTHON2 else chr(97 + i)) + b'(U\x08' + p64(oid) +
                           b'cpersistent.mapping\nPersistentMapping\ntQs' for i, oid in enumerate(refs))
    return b'cpersistent.mapping\nPersistentMapping\n.' + body + b'U\x04textU' + bytes(bytearray([len(text)])) + text + b's.'


def application(path, blobs):
    """What an application commits: trees, references of every kind, undo, a blob, users, a pack in between."""
    db = ZODB.DB(FileStorage(path, blob_dir=blobs))
    connection = db.open()
    root = connection.root()
    root['tree'] = OOBTree()
    root['pages'] = pages = PersistentMapping()
    note(u'/ admin', u'/manage_addFolder')
    for number in range(100):
        root['tree']['key %d' % number] = 'value %d' % number
    note(u'/ admin', u'keys', request_type=u'PUT', size=7)
    for number in range(5):
        pages[number] = page = Page()
        page.title = u'Page %d, gr\xf6\xdfer' % number
        page.tree = root['tree']
        page.slotted = Slotted()
    pages['weak'] = WeakRef(pages[0])
    # ZODB 4 on Python 2 commits ASCII alone.
    note(u"it's \"me\"", u'two\nlines\t\\ and ' + (u'e' if PYTHON2 else u'\xe9'))
    numbers = root['numbers'] = IOBTree()
    for number in range(200):
        numbers[number] = number
    root['blob'] = Blob(b'some data' * 100)
    note(u'', u'a blob')
    pages[0].title = u'changed'
    note(u'someone', u'')
    pages[1].title = u'changed, too'
    note()
    db.undo(db.undoInfo(0, 1)[0]['id'])
    note(u'/ admin', u'undo')
    del root['numbers']
    note(u'/ admin', u'garbage')
    if path.endswith('packed.fs'):
        db.pack()
        pages[2].title = u'after the pack'
        note(u'/ admin', u'after the pack')
    connection.close()
    db.close()


def small(path):
    """A file of every kind of record, as short as possible: for damage."""
    storage = FileStorage(path)
    first = low(storage, [(0, z64, record(b'root', [1, 2]))], b'', b'initial')
    second = low(storage, [(1, z64, record(b'one', [2])), (2, z64, record(b'two'))], b'u', b'd', {'k': 1})
    third = low(storage, [(1, second, record(b'one, changed', [2, 0]))])
    undo_id = storage.undoLog(0, 1)[0]['id']
    low(storage, [], b'u', b'undo', undo=undo_id)
    low(storage, [(3, z64, record(b'three'))])
    undo_id = storage.undoLog(0, 1)[0]['id']
    low(storage, [], b'', b'undo creation', undo=undo_id)
    assert first < second < third
    storage.close()


def unusual(path):
    """Users and descriptions of any bytes, dangling references, a deleted object, transactions without records."""
    storage = FileStorage(path)
    first = low(storage, [(0, z64, record(b'root', [1, 2, 3, 0x77]))], bytes(bytearray(range(256))), b'\xff\x00')
    second = low(storage, [(1, z64, record(b'one')), (2, z64, record(b'two', [0x1234]))], b"'", b"\"'")
    low(storage, [(3, z64, record(b'three'))], b'', b'x' * 2000, {'a': [1, {'b': None}], 'c': b'\xff'})
    low(storage, [])
    low(storage, [], delete=(1, second))
    low(storage, [(0x123456789abcdef, z64, record(b'far', [1])), (2, second, record(b'two again', [0, 0, 3]))])
    undo_id = storage.undoLog(0, 1)[0]['id']
    low(storage, [], undo=undo_id)
    last = low(storage, [(0, first, record(b'x' * 200, [1, 2, 3, 0x77]))])
    low(storage, [(9, z64, b'\x80\x02cno.such\nClass\nq\x01.\x80\x02}q\x02U\x01xK\x01s.')])
    low(storage, [(0, last, record(b'packed', [3]))], status='p')
    storage.close()


def empty(path):
    FileStorage(path).close()


def main(directory):
    blobs = os.path.join(directory, 'blobs')
    for name in ('plain', 'packed'):
        application(os.path.join(directory, name + '.fs'), blobs + '-' + name)
    small(os.path.join(directory, 'small.fs'))
    unusual(os.path.join(directory, 'unusual.fs'))
    empty(os.path.join(directory, 'empty.fs'))
    storage = FileStorage(os.path.join(directory, 'unusual.fs'))
    storage.pack(clock[0] - 8, referencesf, gc=False)
    storage.close()
    os.rename(os.path.join(directory, 'unusual.fs.old'), os.path.join(directory, 'unpacked.fs'))


if __name__ == '__main__':
    main(sys.argv[1])
