"""A small file with one byte damaged, for each byte of its data records, and how many objects Python's pack leaves in it.

    python pack_damaged.py DIRECTORY

DIRECTORY/Data.fs is the file. Prints lines `POSITION BYTE OUTCOME OBJECTS`; the outcome is the class of the exception, `ok`, or
`unreadable` if the file cannot be opened. Runs on Python 2.7 and 3.
"""
from __future__ import print_function

import logging
import os
import shutil
import struct
import sys
import time

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf


def data_records(data):
    """Positions and lengths of the data in a file."""
    pos = 4
    while pos < len(data):
        length, _, user, description, extension = struct.unpack(">QcHHH", data[pos + 8:pos + 23])
        record = pos + 23 + user + description + extension
        while record < pos + length:
            size = struct.unpack(">Q", data[record + 34:record + 42])[0]
            yield record + 42, size
            record += 42 + (size or 8)
        pos += length + 8


def main(directory):
    logging.disable(logging.CRITICAL)
    path = os.path.join(directory, "Data.fs")
    db = ZODB.DB(FileStorage(path))
    root = db.open().root()
    root["a"] = PersistentMapping(text=u"x", leaf=PersistentMapping(number=1))
    root["b"] = PersistentMapping(number=2, more=[root["a"]])
    transaction.commit()
    root["a"]["leaf"]["float"] = .5
    transaction.commit()
    db.close()
    with open(path, "rb") as f:
        good = f.read()
    damaged = os.path.join(directory, "damaged.fs")
    for start, size in data_records(good):
        for pos in range(start, start + size):
            old = good[pos:pos + 1]
            for byte in {b"\0", b"\xff", struct.pack("B", struct.unpack("B", old)[0] ^ 1)} - {old}:
                with open(damaged, "wb") as f:
                    f.write(good[:pos] + byte + good[pos + 1:])
                if os.path.exists(damaged + ".index"):
                    os.remove(damaged + ".index")
                try:
                    storage = FileStorage(damaged)
                except Exception:
                    print(pos, ord(byte), "unreadable", 0)
                    continue
                try:
                    storage.pack(time.time() + 10, referencesf)
                    outcome = "ok"
                except Exception as error:
                    outcome = type(error).__name__
                print(pos, ord(byte), outcome, len(storage))
                storage.close()


main(*sys.argv[1:])
