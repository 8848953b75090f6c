"""Object records: written and read with the pickle modules that the ZODB of this Python uses, and compared."""
import struct
import sys
from io import BytesIO

from ZODB import ConflictResolution

PY3 = sys.version_info[0] >= 3
try:
    from ZODB._compat import PersistentPickler, PersistentUnpickler
    from zodbpickle import binary
except ImportError:
    binary = str
    import cPickle

    def PersistentPickler(persistent_id, file, protocol):
        pickler = cPickle.Pickler(file, protocol)
        pickler.persistent_id = persistent_id
        return pickler

    def PersistentUnpickler(find_global, load, file):
        unpickler = cPickle.Unpickler(file)
        unpickler.find_global = find_global
        unpickler.persistent_load = load
        return unpickler

if PY3:
    long = int
    reader = writer = BytesIO
else:
    from cStringIO import StringIO as reader
    binary, writer = str, reader


class Ref(object):
    """Stands for a persistent object."""

    def __init__(self, data):
        self.data = data


def oid(number):
    return binary(struct.pack('>Q', number))


def persistent_id(obj):
    return obj.data if isinstance(obj, Ref) else None


def make_record(meta, state, protocol):
    out = writer()
    pickler = PersistentPickler(persistent_id, out, protocol)
    pickler.dump(meta)
    pickler.dump(state)
    return out.getvalue()


class Loaded(object):
    def __init__(self, *args):
        self.args = args


def load_record(record):
    """Class and state, with references and instances as what they were made of."""
    file = reader(record)
    unpickler = PersistentUnpickler(ConflictResolution.find_global, lambda data: Loaded('ref', data), file)
    return unpickler.load(), unpickler.load(), file.read()


def canonical(value, seen=None):
    seen = {} if seen is None else seen
    if isinstance(value, (list, dict)):
        if id(value) in seen:
            return 'again', seen[id(value)]  # the same object must be the same again
        seen[id(value)] = len(seen)
    if isinstance(value, tuple):
        return 'tuple', [canonical(item, seen) for item in value]
    if isinstance(value, list):
        return 'list', [canonical(item, seen) for item in value]
    if isinstance(value, dict):
        return 'dict', sorted([repr(key), canonical(value[key], seen)] for key in value)
    if isinstance(value, Loaded):
        return 'loaded', canonical(list(value.args))
    if type(value).__name__ == 'BadClass':
        return 'class', [str(arg) for arg in value.args]
    if isinstance(value, float):
        return 'float', repr(value)
    if isinstance(value, bool):
        return 'bool', value
    if isinstance(value, (int, long)):
        return 'int', int(value)
    return type(value).__name__, repr(value)


def same_state(ours, theirs):
    (_, state1, rest1), (_, state2, rest2) = load_record(ours), load_record(theirs)
    return not rest1 and not rest2 and canonical(state1) == canonical(state2)


def with_equal_keys(record):
    """The state, with one type for equal keys."""
    _, state, _ = load_record(record)
    pairs = tuple([int(item) if isinstance(item, float) and item == item // 1 else item for item in state[0]])
    return canonical((pairs,) + state[1:])
