"""Makes one fixture: `python make.py DIR` lets Python's FileStorage undo at random, and writes down what it did.

`base.fs` is what it begins with: packed, so that some transactions cannot be undone. `steps.txt` has what was asked
for and what came out, `Data.fs` the file at the end. Run it with each Python: `./make.sh` does. A line of steps is

    T tid               a transaction begins
    S oid serial data   store
    D oid serial        deleteObject
    U tid               undo, by tid
    ok                  it was committed, or
    error CLASS reason [oid:reason ...]
    L tid size description
                        in the end: what undoLog says
"""
import base64
import logging
import os
import random
import shutil
import struct
import sys

from ZODB import POSException
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, u64, z64

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import counter  # noqa: E402,F401

try:
    from ZODB.Connection import TransactionMetaData
except ImportError:
    from transaction import Transaction as TransactionMetaData

PLAIN, COUNTERS, FRESH = range(1, 6), range(20, 25), 100
PACKED, STEPS = 12, 220
PROTOCOL = 3 if sys.version_info[0] > 2 else 1


def record(oid, number):
    """Class and state, as ZODB pickles them."""
    # Exactly as a merged state is pickled, where the memo of Python 2 begins with 1.
    head, memo = (b'\x80\x03', b'\x00') if PROTOCOL == 3 else (b'', b'\x01')
    if oid in COUNTERS or oid >= FRESH and oid % 2:
        return head + b'ccounter\nCounter\nq' + memo + b'.' + head + b'J' + struct.pack('<i', 100000 + number) + b'.'
    return b'cpersistent.mapping\nPersistentMapping\nq\x01.}q\x02U\x04dataq\x03}q\x04K\x01J' + struct.pack(
        '<i', number) + b'ss.'


def hexed(data):
    return ''.join('%02x' % byte for byte in bytearray(data)) or '-'


class Maker(object):

    def __init__(self, directory):
        os.makedirs(directory)
        self.directory = directory
        self.path = os.path.join(directory, 'Data.fs')
        self.storage = FileStorage(self.path)
        self.random = random.Random(7)
        self.now = 0x03c0000000000000
        self.lines = []
        self.tids = []
        self.fresh = FRESH
        self.failures = {}

    def transaction(self, operations):
        """Does operations, functions of storage and transaction; whether it was committed."""
        self.now += self.random.randrange(1, 1 << 34)
        tid = p64(self.now)
        txn = TransactionMetaData()
        txn.description = b'number %d' % len(self.tids)
        self.lines.append('T %s' % hexed(tid))
        self.storage.tpc_begin(txn, tid, ' ')
        try:
            for operation in operations:
                operation(txn)
            self.storage.tpc_vote(txn)
        except (POSException.UndoError, POSException.ConflictError, KeyError) as error:
            self.storage.tpc_abort(txn)
            self.note(error)
            return False
        self.storage.tpc_finish(txn)
        self.tids.append(tid)
        self.lines.append('ok')
        return True

    def note(self, error):
        if isinstance(error, POSException.MultipleUndoErrors):
            # Sorted: a dict of Python 2 gave them.
            text = ' '.join(sorted('%s:%s' % (hexed(oid), e._reason.replace(' ', '_')) for oid, e in error._errs))
            for _, e in error._errs:
                self.failures[e._reason] = self.failures.get(e._reason, 0) + 1
        elif isinstance(error, POSException.UndoError):
            text = error._reason.replace(' ', '_')
            self.failures[error._reason] = self.failures.get(error._reason, 0) + 1
        else:
            text = '-'
        self.lines.append('error %s %s' % (error.__class__.__name__, text))

    def serial(self, oid):
        storage = self.storage
        pos = storage._index.get(p64(oid), 0)
        return storage._read_data_header(pos, p64(oid)).tid if pos else z64

    def store(self, oid):
        serial, data = self.serial(oid), record(oid, self.random.randrange(40000))
        self.lines.append('S %s %s %s' % (hexed(p64(oid)), hexed(serial), hexed(data)))
        return lambda txn: self.storage.store(p64(oid), serial, data, '', txn)

    def delete(self, oid):
        serial = self.serial(oid)
        self.lines.append('D %s %s' % (hexed(p64(oid)), hexed(serial)))
        return lambda txn: self.storage.deleteObject(p64(oid), serial, txn)

    def undo(self, tid):
        self.lines.append('U %s' % hexed(tid))
        return lambda txn: self.storage.undo(base64.b64encode(tid), txn)

    def stores(self):
        fresh = list(range(FRESH, self.fresh))[-3:]
        oids = self.random.sample(list(PLAIN) + list(COUNTERS) + fresh, self.random.randrange(1, 5))
        if self.random.random() < 0.4:
            oids.append(self.fresh)
            self.fresh += 1
        return [(self.store, oid) for oid in oids]

    def undos(self, recent):
        count = self.random.choice([1, 1, 1, 2, 2, 3, 4])
        tids = self.random.sample(self.tids[-recent:], min(count, recent))
        if self.random.random() < 0.7:
            tids.sort(reverse=True)
        return [(self.undo, tid) for tid in tids]

    def step(self):
        """One transaction, of some kind."""
        kind = self.random.random()
        if kind < 0.35:
            plan = self.stores()
        elif kind < 0.40:
            plan = [(self.delete, self.random.choice(list(PLAIN)))]
        elif kind < 0.75:
            plan = self.undos(3)
        elif kind < 0.88:
            plan = self.undos(12)
        elif kind < 0.96:
            plan = self.stores() + self.undos(6)
            self.random.shuffle(plan)
        else:
            plan = [(self.undo, self.random.choice([self.tids[0], self.tids[3], z64, p64(self.now + 1)]))]
        # Lines of operations follow that of their transaction, though they are made before.
        mark = len(self.lines)
        operations = [make(argument) for make, argument in plan]
        described = self.lines[mark:]
        del self.lines[mark:]
        self.lines.append(None)
        at = len(self.lines)
        self.transaction(operations)
        begin = self.lines.pop(at)
        self.lines[at - 1:at] = [begin] + described

    def make(self):
        for _ in range(PACKED):
            self.transaction([make(argument) for make, argument in self.stores()])
        middle = (u64(self.tids[-5]) + u64(self.tids[-4])) // 2
        from persistent.TimeStamp import TimeStamp
        self.storage.pack(TimeStamp(p64(middle)).timeTime(), lambda data, oids=None: [] if oids is None else oids,
                          gc=False)
        self.storage._save_index()
        shutil.copy(self.path, os.path.join(self.directory, 'base.fs'))
        del self.lines[:]
        for _ in range(STEPS):
            self.step()
        for entry in self.storage.undoLog(0, 10000):
            self.lines.append('L %s %d %s' % (hexed(base64.b64decode(entry['id'])), entry['size'],
                                              hexed(entry['description'])))
        self.storage.close()
        with open(os.path.join(self.directory, 'steps.txt'), 'w') as out:
            out.write('\n'.join(self.lines) + '\n')
        for name in os.listdir(self.directory):
            if name not in ('base.fs', 'steps.txt', 'Data.fs'):
                os.remove(os.path.join(self.directory, name))
        for reason, count in sorted(self.failures.items()):
            print('%4d %s' % (count, reason))
        print('%4d committed' % sum(line == 'ok' for line in self.lines))


if __name__ == '__main__':
    logging.disable(logging.CRITICAL)
    Maker(sys.argv[1]).make()
