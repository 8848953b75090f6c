"""ZEO's own client on a server and a cache of blobs, which other processes may share.

blob_cache.py store HOST PORT DIR COUNT UNDO  makes blobs, prints a line for each: oid, tid, length; UNDO 1: changes
                                              one of them, undoes that, and packs
blob_cache.py load HOST PORT DIR SIZE ROUNDS  reads blobs of such lines on stdin, in random order, in a cache of SIZE
                                              bytes; ROUNDS 0: each of them once
blob_cache.py load-for HOST PORT DIR SIZE MS  the same, for this time

A further argument `shared`: DIR is the server's own. `registered`: the same, in a process that has had a cache before.
"""
import binascii
import os
import random
import sys
import time

import transaction
import ZODB
from ZEO.ClientStorage import ClientStorage
from ZODB.blob import Blob


def content(oid, length):
    return (bytearray([oid[-1] if isinstance(oid[-1], int) else ord(oid[-1])]) * length)


def write(blob, length):
    with blob.open('w') as file:
        file.write(bytes(content(blob._p_oid, length)))
    transaction.commit()


def undo(database, connection, blob, length):
    write(blob, length + 1000)
    database.undo(database.undoLog(0, 1)[0]['id'])
    transaction.commit()
    for attempt in ('undo', 'pack'):
        connection.sync()
        connection.cacheMinimize()
        with blob.open('r') as file:
            data = file.read()
        if data != content(blob._p_oid, length):
            sys.exit('after %s: %d bytes' % (attempt, len(data)))
        database.pack()


def store(storage, count, must_undo):
    database = ZODB.DB(storage)
    connection = database.open()
    root = connection.root()
    blobs = []
    for index in range(count):
        blob = root['blob%d of %d' % (index, os.getpid())] = Blob()
        connection.add(blob)
        length = index * 7919 % 150000
        with blob.open('w') as file:
            file.write(bytes(content(blob._p_oid, length)))
        blobs.append((blob, length))
    transaction.commit()
    if must_undo:
        undo(database, connection, *blobs[count // 2])
    for blob, length in blobs:
        blob._p_activate()
        ids = [binascii.hexlify(each).decode() for each in (blob._p_oid, blob._p_serial)]
        print('%s %s %d' % (ids[0], ids[1], length))
    database.close()


def load(storage, rounds, milliseconds=0):
    known = [line.split() for line in sys.stdin]
    if milliseconds:
        end = time.time() + milliseconds / 1000.0
        chosen = iter(lambda: random.choice(known) if time.time() < end else None, None)
    elif rounds:
        chosen = (random.choice(known) for _ in range(rounds))
    else:
        chosen = iter(known)
    for oid, tid, length in chosen:
        oid, tid = binascii.unhexlify(oid), binascii.unhexlify(tid)
        with storage.openCommittedBlobFile(oid, tid) as file:
            data = file.read()
        if data != content(oid, int(length)):
            sys.exit('blob %r of %s bytes has %d bytes' % (oid, length, len(data)))
    storage.close()


def main(what, host, port, directory, number, rounds='0', mode=''):
    size = None if what == 'store' else int(number)
    address = (host, int(port))
    if mode == 'registered':
        ClientStorage(address, blob_dir=directory + '-other', wait=True).close()
    storage = ClientStorage(address, blob_dir=directory, shared_blob_dir=bool(mode), blob_cache_size=size, wait=True)
    if what == 'store':
        store(storage, int(number), rounds == '1')
    elif what == 'load':
        load(storage, int(rounds))
    else:
        load(storage, 0, int(rounds))


main(*sys.argv[1:])
sys.stdout.flush()
# Threads of Python 2 may fail while the interpreter takes itself apart.
os._exit(0)
