"""How many transactions Python's FileStorage finds in each file of a directory, opened for writing as a server would.

    python count.py DIRECTORY

Prints "NAME COUNT" for files that end with .left, and "NAME COUNT LAST-TID" for those that end with .ours, whose index
must be accepted too.
"""
import binascii
import logging
import os
import sys

from ZODB.FileStorage import FileStorage

LINES = []


class Lines(logging.Handler):
    def emit(self, line):
        LINES.append(line.getMessage())


logging.getLogger().addHandler(Lines())
for name in sorted(os.listdir(sys.argv[1])):
    if not name.endswith((".left", ".ours")):
        continue
    path = os.path.join(sys.argv[1], name)
    del LINES[:]
    storage = FileStorage(path)
    last = binascii.hexlify(storage.lastTransaction()).decode()
    count = 0
    for transaction in storage.iterator():
        count += 1
        for record in transaction:
            assert record.tid == transaction.tid
    index = dict(storage._index.items())
    storage.close()
    if name.endswith(".left"):
        print(name, count)
        continue
    print(name, count, last)
    # Python ignores the index of a nearly empty file, whoever saved it.
    assert count < 10 or not any("Ignoring index" in line for line in LINES), LINES
    os.remove(path + ".index")
    storage = FileStorage(path)
    assert index == dict(storage._index.items()), "%s: the index is not what a scan finds" % name
    storage.close()
