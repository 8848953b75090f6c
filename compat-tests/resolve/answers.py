"""What becomes of a conflict: the answer of the ZODB of this Python, ours, and whether they agree."""
import struct
import subprocess

from ZODB import ConflictResolution
from ZODB.POSException import ConflictError

from pickles import PersistentUnpickler, reader, same_state


class Storage(ConflictResolution.ConflictResolvingStorage):
    def __init__(self, revisions):
        self.revisions = revisions

    def loadSerial(self, oid, serial):
        return self.revisions[serial]


def python_answer(old, committed, new):
    """('R', record), ('B', positions and reason) or ('E', exception)"""
    storage = Storage({b'old': old, b'committed': committed})
    try:
        record = storage.tryToResolveConflict(b'oid', b'committed', b'old', new)
    except ConflictError:
        return python_reason(storage, new)
    if record is None:  # as ZODB before 3.10 says it
        return python_reason(storage, new)
    return 'R', record


def python_reason(storage, new):
    factory = ConflictResolution.PersistentReferenceFactory()
    unpickler = PersistentUnpickler(ConflictResolution.find_global, factory.persistent_load, reader(new))
    try:
        meta = unpickler.load()
        klass = meta[0] if isinstance(meta, tuple) else meta
        if isinstance(klass, tuple):
            klass = ConflictResolution.find_global(*klass)
        state = unpickler.load()
        states = [ConflictResolution.state(storage, b'oid', serial, factory) for serial in (b'old', b'committed')]
        klass.__new__(klass)._p_resolveConflict(states[0], states[1], state)
    except Exception as error:
        if type(error).__name__ == 'BTreesConflictError':
            return 'B', ' '.join(str(x) for x in (error.p1, error.p2, error.p3, error.reason))
        return 'E', '%s: %s' % (type(error).__name__, error)
    return 'E', 'no error the second time'


class OpenMindedReference(ConflictResolution.PersistentReference):
    """Knows that it is not None, as the C code of BTrees does, and itself under any name, as ZODB since 3.9 does."""

    def __cmp__(self, other):
        if other is None:
            return 1
        if isinstance(other, OpenMindedReference) and self.data == other.data:
            return 0
        return ConflictResolution.PersistentReference.__cmp__(self, other)

    __hash__ = None


def python_answer_with_open_mind(*records):
    """BTrees' two implementations stumble over different things. What each of them decides when neither stumbles over a
    reference beside None is no other merge than ours."""
    known, ConflictResolution.PersistentReference = ConflictResolution.PersistentReference, OpenMindedReference
    try:
        return python_answer(*records)
    finally:
        ConflictResolution.PersistentReference = known


class Program(object):
    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def answer(self, *records):
        for record in records:
            self.process.stdin.write(struct.pack('<I', len(record)) + record)
        self.process.stdin.flush()
        letter, length = struct.unpack('<cI', self.process.stdout.read(5))
        payload = self.process.stdout.read(length)
        letter = letter.decode('ascii')
        return letter, payload if letter == 'R' else payload.decode('utf-8')


def agree(ours, theirs, old_btrees=False):
    letter, what = ours
    if old_btrees and (letter == 'E' or letter == 'B' and what.endswith(' 13')):
        return True  # BTrees of ZODB3 goes on after comparing references, and before 3.9 it did not know reason 13.
    if letter != theirs[0]:
        # Some types refuse to be compared with others. Ours does not ask them if it does not matter.
        refused = "can't compare datetime", 'UnicodeDecodeError'
        return letter == 'R' and theirs[0] == 'E' and any(word in theirs[1] for word in refused)
    if letter == 'R':
        return same_state(what, theirs[1])
    return letter == 'E' or what == theirs[1]
