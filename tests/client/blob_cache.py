"""ZEO's own client on a server and a cache of blobs, which other processes may share.

blob_cache.py store HOST PORT DIR COUNT       makes blobs, prints a line for each: oid, tid, length
blob_cache.py load HOST PORT DIR SIZE ROUNDS  reads blobs of such lines on stdin, in random order, in a cache of SIZE
                                              bytes; ROUNDS 0: each of them once
"""
import binascii
import random
import sys

import transaction
import ZODB
from ZEO.ClientStorage import ClientStorage
from ZODB.blob import Blob


def content(oid, length):
    return (bytearray([oid[-1] if isinstance(oid[-1], int) else ord(oid[-1])]) * length)


def store(storage, count):
    database = ZODB.DB(storage)
    connection = database.open()
    root = connection.root()
    blobs = []
    for index in range(count):
        blob = root['blob%d' % index] = Blob()
        connection.add(blob)
        length = index * 7919 % 150000
        with blob.open('w') as file:
            file.write(bytes(content(blob._p_oid, length)))
        blobs.append((blob, length))
    transaction.commit()
    for blob, length in blobs:
        blob._p_activate()
        ids = [binascii.hexlify(each).decode() for each in (blob._p_oid, blob._p_serial)]
        print('%s %s %d' % (ids[0], ids[1], length))
    database.close()


def load(storage, rounds):
    known = [line.split() for line in sys.stdin]
    if rounds:
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


def main(what, host, port, directory, number, rounds='0'):
    size = int(number) if what == 'load' else None
    storage = ClientStorage((host, int(port)), blob_dir=directory, blob_cache_size=size, wait=True)
    if what == 'store':
        store(storage, int(number))
    else:
        load(storage, int(rounds))


main(*sys.argv[1:])
