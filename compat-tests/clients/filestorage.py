"""What Python's FileStorage sees in a file: prints it as JSON. Runs on Python 2.7 and 3 in an environment.

    python filestorage.py dump Data.fs        every transaction and record, read only
    python filestorage.py index Data.fs       does Python accept Data.fs.index, and is it what a scan gives?
    python filestorage.py append Data.fs N    N more transactions, written by Python
    python filestorage.py current Data.fs     oid -> (tid, hash) as a client would load it
    python filestorage.py blobs Data.fs DIR   oid and tid -> length and hash of each blob that has a record
    python filestorage.py everything Data.fs  opened for writing first (which cuts a torn tail), then all of the above
"""
from __future__ import print_function

import binascii
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile

from ZODB.FileStorage import FileStorage

Z64 = b"\0" * 8


class LogLines(logging.Handler):
    lines = []

    def emit(self, line):
        self.lines.append(line.getMessage())


def to_hex(data):
    return None if data is None else binascii.hexlify(data).decode("ascii")


def text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value


def dump(path):
    for txn in transactions(path):
        print(json.dumps(txn))


def transactions(path):
    storage = FileStorage(path, read_only=True)
    for txn in storage.iterator():
        extension = getattr(txn, "extension", None) or getattr(txn, "_extension", None) or {}
        yield {
            "tid": to_hex(txn.tid), "status": text(txn.status), "user": text(txn.user),
            "description": text(txn.description),
            "extension": sorted((text(k), repr(v).lstrip("u")) for k, v in extension.items()),
            "records": [[to_hex(r.oid), to_hex(r.tid), r.data and hashlib.sha1(r.data).hexdigest(),
                         to_hex(r.data_txn)] for r in txn]}
    storage.close()


def index(path):
    print(json.dumps(about_index(path)))


def about_index(path):
    storage = FileStorage(path, read_only=True)
    with_index = dict(storage._index.items())
    length = storage.getSize()
    storage.close()
    directory = tempfile.mkdtemp()
    try:
        scanned_path = os.path.join(directory, "scan.fs")
        os.symlink(os.path.abspath(path), scanned_path)
        storage = FileStorage(scanned_path, read_only=True)
        scanned = dict(storage._index.items())
        storage.close()
    finally:
        shutil.rmtree(directory)
    saved_end = None
    if os.path.exists(path + ".index"):
        from ZODB.fsIndex import fsIndex
        try:
            saved_end = fsIndex.load(path + ".index")["pos"]
        except (AttributeError, KeyError):
            pass
    return {"objects": len(with_index), "same": with_index == scanned, "end": length, "saved_end": saved_end,
            "index_warnings": [line for line in LogLines.lines if "index" in line.lower()]}


def append(path, count):
    import transaction
    try:
        from ZODB.Connection import TransactionMetaData as Transaction
    except ImportError:
        Transaction = transaction.Transaction
    storage = FileStorage(path)
    for n in range(count):
        txn = Transaction()
        storage.tpc_begin(txn)
        oid = storage.new_oid()
        storage.store(oid, Z64, b"cpersistent.mapping\nPersistentMapping\nq\x01.}q\x01.", "", txn)
        storage.tpc_vote(txn)
        storage.tpc_finish(txn)
        print(json.dumps(to_hex(oid)))
    storage.close()


def current(path):
    print(json.dumps(current_records(path)))


def everything(path):
    FileStorage(path).close()
    print(json.dumps({"transactions": list(transactions(path)), "current": current_records(path),
                      "index": about_index(path)}))


def current_records(path):
    storage = FileStorage(path, read_only=True)
    found = {}
    cursor = None
    while len(storage._index):
        oid, tid, data, cursor = storage.record_iternext(cursor)
        found[to_hex(oid)] = [to_hex(tid), hashlib.sha1(data).hexdigest()]
        if cursor is None:
            break
    storage.close()
    return found


def blobs(path, directory):
    storage = FileStorage(path, blob_dir=directory)
    for txn in storage.iterator():
        for r in txn:
            try:
                with open(storage.loadBlob(r.oid, r.tid), "rb") as f:
                    data = f.read()
            except KeyError:
                continue
            print(json.dumps([to_hex(r.oid), to_hex(r.tid), len(data), hashlib.sha1(data).hexdigest()]))
    storage.close()


if __name__ == "__main__":
    logging.getLogger().addHandler(LogLines())
    logging.getLogger().setLevel(logging.DEBUG)
    command, path = sys.argv[1:3]
    if command == "append":
        append(path, int(sys.argv[3]))
    elif command == "blobs":
        blobs(path, sys.argv[3])
    else:
        {"dump": dump, "index": index, "current": current, "everything": everything}[command](path)
