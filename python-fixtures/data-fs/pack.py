"""Random files, and what Python's FileStorage makes of them when it packs them.

    python pack.py DIRECTORY SEED COUNT

For each file, and each of a few pack times in it, DIRECTORY/N.before is the file, N.after what it is after the pack, and
a line `N TIME GC OUTCOME` is printed; the outcome is the class of the exception, or `ok`. Runs on Python 2.7 and 3.
"""
from __future__ import print_function

import os
import random
import shutil
import struct
import sys
import time

import transaction
from persistent.TimeStamp import TimeStamp
from ZODB import POSException
from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf

try:
    from ZODB.Connection import TransactionMetaData
except ImportError:
    TransactionMetaData = transaction.Transaction


def oid_of(n):
    return struct.pack(">Q", n)


def record(rng, oids):
    """A record with references to these, in different forms, and with some that do not count."""
    state = b"("
    for oid in oids:
        form = rng.randrange(3)
        string = (b"U\x08" if rng.random() < .5 or sys.version_info[0] == 2 else b"C\x08") + oid
        if form == 0:
            state += string + b"Q"
        elif form == 1:
            state += b"(" + string + b"cm\nC\ntQ"
        else:
            state += string + b"cm\nC\n\x86Q"
    if rng.random() < .3:
        # Weak, to nowhere.
        state += b"](U\x01w(U\x08\0\0\0\0\0\0\x7f\x7fteQ"
    length = rng.randrange(200)
    state += b"T" + struct.pack("<I", length) + b"P" * length + b"t."
    return b"\x80\x02cm\nC\n." + state


class Maker(object):

    def __init__(self, path, rng):
        self.storage = FileStorage(path, create=True)
        self.rng = rng
        self.serials = {}
        self.undoable = []

    def commit(self, work):
        txn = TransactionMetaData()
        if self.rng.random() < .3:
            txn.description = u"description %d" % self.rng.randrange(1000)
        self.storage.tpc_begin(txn)
        try:
            work(txn)
            self.storage.tpc_vote(txn)
        except (POSException.POSError, KeyError):
            self.storage.tpc_abort(txn)
            return False
        self.storage.tpc_finish(txn)
        return True

    def refresh(self, oid):
        try:
            self.serials[oid] = self.storage.getTid(oid)
        except KeyError:
            self.serials.pop(oid, None)

    def store(self):
        rng = self.rng
        count = min(1 + int(rng.expovariate(.5)), 6)
        chosen = set(oid_of(rng.randrange(12)) for _ in range(count))
        if not self.serials:
            chosen = set([oid_of(0)])
        # Nothing may refer to what is not there: now and then something does, all the same.
        known = list(set(self.serials) | chosen)
        if rng.random() < .02:
            known.append(oid_of(99))

        def work(txn):
            for oid in chosen:
                data = record(rng, rng.sample(known, min(len(known), rng.randrange(4))))
                self.storage.store(oid, self.serials.get(oid, b"\0" * 8), data, "", txn)
        if self.commit(work):
            for oid in chosen:
                self.refresh(oid)

    def undo(self):
        log = self.storage.undoLog(0, 6)
        if not log:
            return
        entries = self.rng.sample(log, min(len(log), self.rng.choice([1, 1, 1, 2])))

        def work(txn):
            for entry in entries:
                self.storage.undo(entry["id"], txn)
        if self.commit(work):
            for oid in [oid_of(n) for n in range(100)]:
                self.refresh(oid)

    def delete(self):
        candidates = [oid for oid in self.serials if oid != oid_of(0)]
        if not candidates or not hasattr(self.storage, "deleteObject"):
            return
        oid = self.rng.choice(candidates)

        def work(txn):
            self.storage.deleteObject(oid, self.serials[oid], txn)
        if self.commit(work):
            self.refresh(oid)

    def pack(self):
        try:
            self.storage.pack(time.time(), referencesf)
        except KeyError:
            return
        self.serials = {}
        for oid in [oid_of(n) for n in range(100)]:
            self.refresh(oid)

    def run(self):
        for _ in range(self.rng.randrange(1, 25)):
            what = self.rng.random()
            if what < .6:
                self.store()
            elif what < .85:
                self.undo()
            elif what < .93:
                self.delete()
            elif what < .96:
                self.pack()
        if self.rng.random() < .1:
            self.commit(lambda txn: None)


def main(directory, seed, count):
    rng = random.Random(int(seed))
    number = 0
    for _ in range(int(count)):
        path = os.path.join(directory, "Data.fs")
        maker = Maker(path, rng)
        maker.run()
        times = [TimeStamp(txn.tid).timeTime() for txn in maker.storage.iterator()]
        maker.storage.close()
        times = rng.sample(times, min(len(times), 3)) + [time.time(), time.time() + 1000, 1e9]
        for when in times:
            when = when + rng.choice([0, 1e-5, -1e-5])
            gc = rng.random() < .8
            name = os.path.join(directory, str(number))
            shutil.copy(path, name + ".before")
            shutil.copy(path, name + ".after")
            storage = FileStorage(name + ".after")
            try:
                storage.pack(when, referencesf, gc)
                outcome = "ok"
            except Exception as error:
                outcome = type(error).__name__
            storage.close()
            print(number, repr(when), int(gc), outcome)
            number += 1


main(*sys.argv[1:])
