"""What a client of any generation does while its messages are recorded.

Runs on Python 2.7 and 3, with ZODB3 3.8 and everything later:  python session.py HOST PORT
"""
from __future__ import print_function

import sys
import time

import transaction
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage
from ZODB.DB import DB
from ZODB.POSException import ConflictError, POSKeyError, ReadOnlyError
from ZODB.utils import p64

PY2 = sys.version_info[0] == 2
EXTENSIONS = [
    {},
    {'a': 1},
    {'path': '/a/b', 'user_name': 'x', 'n': 70000},
    {'list': [1, 2.5, None, True, 'two'], 'empty': [], 'one': ['x']},
    {'tuple': (1, 'two', ('three', 4, 5, 6)), 'pair': ('a', 'b'), 'none': ()},
    {'dict': {'k': {'l': 'm'}, 'e': {}}, 'big': 2 ** 40, 'negative': -5},
    {'text': u'gr\xfc\xdf', 'bytes': b'\x00\xff' * 3, 'long': 'y' * 300},
    {'huge': 2 ** 100, 'minus': -2 ** 70, 'i': 255, 'j': 256, 'k': 65536},
]


def server_call(storage, name, *args):
    """Call a method of the server, whatever the client calls it."""
    if hasattr(storage, '_call'):
        return storage._call(name, *args)
    return storage._server.rpc.call(name, *args)


def refused(what, expected, function, *args):
    try:
        function(*args)
    except expected as error:
        print(what, '->', type(error).__name__)
    except Exception as error:
        print(what, '->', type(error).__name__, error)
    else:
        print(what, '-> nothing')


def main():
    address = sys.argv[1], int(sys.argv[2])
    storage = ClientStorage(address, wait=1)
    db = DB(storage)
    connection = db.open()
    root = connection.root()

    if 'msgpack' in sys.argv:  # has no integers beyond 64 bits
        EXTENSIONS.pop()
    for number, extension in enumerate(EXTENSIONS):
        root['n'] = number
        current = transaction.get()
        current.note(u'change %d' % number if not PY2 else 'change %d' % number)
        current.setUser(u'somebody' if not PY2 else 'somebody', '/path')
        for key, value in sorted(extension.items()):
            current.setExtendedInfo(key, value)
        transaction.commit()

    root['child'] = PersistentMapping()
    root['child']['x'] = 'y' * 1000
    transaction.commit()

    # another client, which gets invalidations and makes a conflict
    other = ClientStorage(address, wait=1)
    other_db = DB(other)
    manager = transaction.TransactionManager()
    try:
        other_connection = other_db.open(transaction_manager=manager)
    except TypeError:
        other_connection = other_db.open(txn_mgr=manager)
    other_connection.root()['child']['x'] = 1
    root['child']['x'] = 2
    transaction.commit()
    refused('conflict', ConflictError, manager.commit)
    manager.abort()
    time.sleep(.2)
    other_connection.sync()
    assert other_connection.root()['child']['x'] == 2

    oid = root['child']._p_oid
    tid = root['child']._p_serial
    refused('missing', POSKeyError, storage.load, p64(9999), '')
    refused('missing serial', POSKeyError, storage.loadSerial, oid, p64(1))
    refused('missing tid', POSKeyError, storage.getTid, p64(9999))
    storage.loadSerial(oid, tid)
    storage.getTid(oid)
    server_call(storage, 'loadBefore', oid, tid)
    server_call(storage, 'loadBefore', oid, p64(1))
    if hasattr(storage, 'history'):
        try:
            storage.history(oid, size=3)
        except TypeError:
            storage.history(oid, '', 3)
    storage.undoLog(0, 5)
    try:
        from ZopeUndo.Prefix import Prefix
        storage.undoInfo(0, -5, {'user_name': Prefix('/path')})
    except ImportError:
        storage.undoInfo(0, -5, {'user_name': '/path somebody'})
    storage.new_oid()
    server_call(storage, 'lastTransaction')
    for name in 'get_info', 'server_status', 'getExtensionMethods', 'ping':
        refused(name, Exception, server_call, storage, name) if name in (
            'get_info',) or name == sys.argv[3] else None
    if hasattr(storage, 'iterator'):
        for number, record in enumerate(storage.iterator()):
            if number in (2, 8):
                for item in record:
                    pass
    if hasattr(storage, 'record_iternext'):
        storage.record_iternext(None)
    refused('wrong count', TypeError, server_call, storage, 'loadBefore', oid)
    refused('wrong count', TypeError, server_call, storage, 'loadBefore', oid, oid, oid)
    refused('no such storage', ValueError, server_call, storage, 'register', 'nonesuch', False)
    refused('no transaction', Exception, server_call, storage, 'vote', 17)

    # an abort, and a transaction that is begun with a tid and a status
    root['n'] = -1
    transaction.abort()
    from ZODB.Connection import TransactionMetaData as Transaction
    meta = Transaction()
    storage.tpc_begin(meta, p64(2 ** 62), 'p')
    storage.tpc_abort(meta)

    # a reconnect: quick verification
    connection.close()
    db.close()
    storage = ClientStorage(address, wait=1)
    DB(storage).open().root()
    storage.close()
    other_connection.close()
    other_db.close()


if __name__ == '__main__':
    try:
        from ZODB.Connection import TransactionMetaData
    except ImportError:
        import ZODB.Connection
        ZODB.Connection.TransactionMetaData = transaction.Transaction
    main()
