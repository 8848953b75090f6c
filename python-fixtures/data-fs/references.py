"""Random records, and what ZODB.serialize.referencesf finds in them.

    python references.py SEED COUNT

Prints lines `HEX OID,OID,...`, or `HEX !ExceptionClass`. Pickles are made by the pickler of this Python (2.7 or 3) in every
protocol it has, with references in every form, and memo entries, frames and strings of all kinds around them. Some are cut
off, and in some one byte is damaged.
"""
from __future__ import print_function

import binascii
import io
import pickle
import random
import struct
import sys

from ZODB.serialize import referencesf

PY3 = sys.version_info[0] == 3
picklers = [pickle.Pickler]
if PY3:
    picklers.append(pickle._Pickler)
    import zodbpickle
    import zodbpickle.pickle
    picklers.append(zodbpickle.pickle.Pickler)
    BYTES = [bytes, zodbpickle.binary]
else:
    import cPickle
    picklers.append(cPickle.Pickler)
    BYTES = [bytes]


class Reference(object):
    def __init__(self, pid):
        self.pid = pid


class Thing(object):
    pass


class Slotted(object):
    __slots__ = ("a", "b")

    def __reduce__(self):
        return Slotted, (), (self.a, self.b)

    def __setstate__(self, state):
        self.a, self.b = state


class Old:
    def __init__(self, *args):
        self.args = args

    def __getinitargs__(self):
        return self.args


class MyList(list):
    pass


class MyDict(dict):
    pass


def oid(rng):
    kind = rng.randrange(4)
    if kind == 0:
        n = rng.randrange(128)
    elif kind == 1:
        n = rng.getrandbits(63)
    elif kind == 2:
        # Printable, as a protocol 0 that writes the persistent id into a line needs it.
        return bytes(bytearray(rng.randrange(97, 123) for _ in range(8)))
    else:
        n = rng.randrange(1 << 20)
    return struct.pack(">Q", n)


def reference(rng, shared):
    one = oid(rng) if rng.random() < .8 or not shared else rng.choice(shared)
    shared.append(one)
    form = rng.randrange(8)
    one = rng.choice(BYTES)(one)
    if form < 2:
        return Reference(one)
    if form < 5:
        return Reference((one, Thing))
    if form == 5:
        return Reference(["w", (one,)])
    if form == 6:
        return Reference(["m", ("other", one, Thing)])
    return Reference(rng.choice([["n", ("other", one)], [one]]))


def value(rng, depth, shared):
    kind = rng.randrange(24) if depth else rng.randrange(12)
    if kind < 4:
        return reference(rng, shared)
    if kind == 4:
        return rng.choice([None, True, False, 0, -1, 255, 256, 65536, -70000, 2 ** 31, 2 ** 40, -2 ** 70, 2 ** 3000])
    if kind == 5:
        return rng.choice([1.5, -0.0, 1e300])
    if kind == 6:
        return rng.choice([u"", u"PQ", u"caf\xe9 \u20ac Q\n\\u0041'", u"x" * 300])
    if kind == 7:
        return rng.choice([b"", b"PQ", b"\0\xffQ\n'\\", b"Q" * 300, b"abcdefgh"])
    if kind == 8:
        return rng.choice(shared) if shared else None
    if kind < 12:
        return rng.choice([Thing, len, Reference])
    items = [value(rng, depth - 1, shared) for _ in range(rng.choice([0, 1, 2, 3, 5]))]
    if items and rng.random() < .3:
        items.append(items[0])
    if kind < 14:
        return items
    if kind < 16:
        return tuple(items)
    if kind < 18:
        return dict((rng.choice([n, str(n), (n, "Q")]), item) for n, item in enumerate(items))
    if kind == 18:
        thing = Thing()
        thing.__dict__ = dict(("a%d" % n, item) for n, item in enumerate(items))
        return thing
    if kind == 19:
        slotted = Slotted()
        slotted.a, slotted.b = items, len(items)
        return slotted
    if kind == 20:
        return set(["a", 1]) if rng.random() < .5 else frozenset([b"Q", 2])
    if kind == 21:
        return MyList(items)
    if kind == 22:
        return MyDict(enumerate(items))
    return Old(*items) if not PY3 else bytearray(b"Q" * len(items))


def record(rng):
    protocols = range((5 if PY3 else 2) + 1)
    pickler = rng.choice(picklers)
    out = io.BytesIO()
    protocol = rng.choice([p for p in protocols if p <= (3 if "zodbpickle" in pickler.__module__ else 5)])
    pid = lambda thing: thing.pid if isinstance(thing, Reference) else None
    try:
        p = pickler(out, protocol)
        p.persistent_id = pid
        if hasattr(p, "inst_persistent_id"):
            p.persistent_id = pid
    except (AttributeError, TypeError):
        class Own(pickler):
            def persistent_id(self, thing):
                return pid(thing)
        p = Own(out, protocol)
    shared = []
    p.dump(rng.choice([Thing, (Thing, None), ((u"module", u"Class"), (1, 2))]))
    p.dump(value(rng, 4, shared))
    return out.getvalue()


class Dummy(object):
    """Takes whatever an unpickler does to an instance."""

    def __new__(cls, *args, **kw):
        return object.__new__(cls)

    def __init__(self, *args, **kw):
        pass

    def __setstate__(self, state):
        pass

    def extend(self, items):
        pass

    def __setitem__(self, key, value):
        pass

    append = add = update = extend


def references(data):
    try:
        return referencesf(data)
    except ValueError as error:
        # zodbpickle's noload ends with protocol 3: the pickle module then, with all classes replaced.
        if "unsupported pickle protocol" not in str(error) or not PY3:
            raise
    found = []

    class Finder(pickle.Unpickler):
        def find_class(self, module, name):
            return Dummy

        def persistent_load(self, pid):
            pid = pid[0] if isinstance(pid, tuple) else pid
            if not isinstance(pid, list):
                assert isinstance(pid, (bytes, str)), pid
                found.append(pid if isinstance(pid, bytes) else pid.encode("latin-1"))

    finder = Finder(io.BytesIO(data))
    finder.load()
    finder.load()
    return found


def main(seed, count):
    rng = random.Random(int(seed))
    done = 0
    while done < int(count):
        try:
            data = record(rng)
        except Exception:
            # Some values have no pickle in some protocol.
            continue
        done += 1
        if rng.random() < .05:
            data = data[:rng.randrange(len(data))]
        elif rng.random() < .3 and data[:2] not in (b"\x80\x04", b"\x80\x05"):
            # Not those that only pickle can read, which also looks at types; and no number of a protocol, which would
            # make one of them.
            at = rng.randrange(2, len(data))
            damaged = bytearray(data)
            byte = rng.choice([0, 0xff, damaged[at] ^ 1 << rng.randrange(8), rng.randrange(256)])
            # Opcodes of protocols that this Python may not know, but are read here.
            damaged[at] = 0xff if byte >= 0x80 or byte in (0x42, 0x43) else byte
            data = bytes(damaged)
        try:
            found = ",".join(binascii.hexlify(o).decode() for o in references(data))
        except Exception as error:
            found = "!" + type(error).__name__
        print(binascii.hexlify(data).decode(), found)


main(*sys.argv[1:])
