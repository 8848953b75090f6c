"""Records that ZODB has written, and whether two files of records mean the same. Python 2.7 and 3.

    records_driver.py sample FILE       objects of all kinds
    records_driver.py zope FILE         a small site of Zope with a catalog
    records_driver.py compare A B       every record of A loads like that of B

A file of records has for each its length in four bytes, and its bytes.
"""
from __future__ import print_function

import datetime
import decimal
import struct
import sys

PY2 = sys.version_info[0] == 2
if PY2:
    from pickle import Unpickler  # the one in Python, whose find_class is called
    text, long_ = unicode, long  # noqa: F821
else:
    from zodbpickle import pickle as zodbpickle
    Unpickler = getattr(zodbpickle, "_Unpickler", zodbpickle.Unpickler)
    text, long_ = str, int

import persistent
import transaction
import ZODB
from BTrees.IIBTree import IITreeSet
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from ZODB.FileStorage import FileStorage


class Plain(object):
    pass


class Classic:
    pass


class Slotted(object):
    __slots__ = ("a", "b")

    def __getstate__(self):
        return (None, {"a": self.a, "b": self.b})

    def __setstate__(self, state):
        self.a, self.b = state[1]["a"], state[1]["b"]


class DictLike(dict):
    pass


class ListLike(list):
    pass


class WithArguments(persistent.Persistent):
    def __new__(cls, *args):
        self = persistent.Persistent.__new__(cls)
        self.args = args
        return self

    def __getnewargs__(self):
        return getattr(self, "args", ())


def values():
    shared = [1, 2]
    plain = Plain()
    plain.name, plain.shared = "plain", shared
    classic = Classic()
    classic.x = 1
    slotted = Slotted()
    slotted.a, slotted.b = shared, plain
    dict_like = DictLike(a=1)
    dict_like.attribute = "x"
    list_like = ListLike([1, 2, 3])
    found = [
        None, True, False, 0, 1, -1, 255, 256, 65535, 65536, 2 ** 31 - 1, -2 ** 31, 2 ** 31, 2 ** 62, -2 ** 63, 2 ** 63,
        2 ** 200, -2 ** 200, long_(5), long_(-1), 0.0, -1.5, 1e300, float("inf"),
        "native", "n" * 300, u"text", u"t\xe4xt \u20ac \U0001f600", u"\ud800", b"bytes", b"\x00\xff" * 200, b"", u"",
        (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], list(range(3000)), {}, {"a": 1},
        dict((i, str(i)) for i in range(2000)), set([1, 2]), frozenset([3]), bytearray(b"abc"), complex(1, 2),
        datetime.datetime(2026, 11, 28, 23, 59, 58, 123456), datetime.date(2026, 1, 2), datetime.timedelta(1, 2, 3),
        decimal.Decimal("1.25"), shared, (shared, shared), {"again": shared}, plain, [plain, plain], classic, slotted,
        dict_like, list_like, Plain, len, [[[[[[[[[[1]]]]]]]]]],
    ]
    return found


def sample_objects(root):
    root["values"] = PersistentList(values())
    root["mapping"] = PersistentMapping({"a": 1, u"b": u"text"})
    root["tree"] = OOBTree(dict(("key%03d" % i, i) for i in range(100)))
    root["set"] = IITreeSet(range(1000))
    root["length"] = Length(7)
    root["arguments"] = WithArguments("one", 2)
    root["weak"] = WeakRef(root["mapping"])
    root["same"] = root["mapping"]
    transaction.commit()
    transaction.begin()
    # Weak references and objects with arguments again, once their targets have object ids.
    root["later"] = PersistentList([WeakRef(root["tree"]), root["arguments"], root["tree"], root["length"]])
    transaction.commit()


def site(app):
    from Products.ZCatalog.ZCatalog import ZCatalog
    from OFS.Folder import Folder
    from OFS.DTMLMethod import DTMLMethod

    app._setObject("folder", Folder("folder"))
    app._setObject("catalog", ZCatalog("catalog", "A catalog"))
    transaction.savepoint(optimistic=True)
    catalog = app.catalog
    from Products.PluginIndexes.FieldIndex.FieldIndex import FieldIndex
    catalog._catalog.addIndex("id", FieldIndex("id"))
    catalog._catalog.addIndex("title", FieldIndex("title"))
    catalog.addColumn("id")
    for number in range(120):
        name = "page%03d" % number
        app.folder._setObject(name, DTMLMethod("text %d" % number, __name__=name))
        page = app.folder[name]
        page.title = "Title %d" % (number % 7)
        catalog.catalog_object(page, "/folder/" + name)
    transaction.commit()


def records(storage):
    found = {}
    for txn in storage.iterator():
        for record in txn:
            if record.data:
                found[record.oid] = record.data
    storage.close()
    return [found[oid] for oid in sorted(found)]


def dump(path, all_records):
    with open(path, "wb") as out:
        for record in all_records:
            out.write(struct.pack(">I", len(record)) + record)


def read(path):
    with open(path, "rb") as source:
        data = source.read()
    found, pos = [], 0
    while pos < len(data):
        (size,) = struct.unpack(">I", data[pos:pos + 4])
        found.append(data[pos + 4:pos + 4 + size])
        pos += 4 + size
    return found


class Stub(object):
    """An instance of any class: what it was made of."""

    def __new__(cls, *args, **keywords):
        self = object.__new__(cls)
        self.parts = [("new", args, sorted(keywords.items()))]
        return self

    def __init__(self, *args, **keywords):
        pass

    def __setstate__(self, state):
        self.parts.append(("state", state))

    def append(self, item):
        self.parts.append(("item", item))

    def extend(self, items):
        for item in items:
            self.append(item)

    def __setitem__(self, key, value):
        self.parts.append(("pair", key, value))


class Reference(object):
    def __init__(self, id):
        self.id = id


class Loader(Unpickler):
    def __init__(self, source):
        if PY2:
            Unpickler.__init__(self, source)
        else:
            Unpickler.__init__(self, source, encoding="latin-1")
        self.stubs = {}

    def find_class(self, module, name):
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        name = str(name)
        if (module, name) not in self.stubs:
            self.stubs[module, name] = type(name, (Stub,), {"stub": (module, name)})
        return self.stubs[module, name]

    def persistent_load(self, id):
        return Reference(id)


def described(value, numbers, out):
    """Appends a description that is equal for values that mean the same: types, contents, and which are one object."""
    if isinstance(value, type) and issubclass(value, Stub):
        out.append("class %s.%s" % value.stub)
        return
    if isinstance(value, (Stub, list, dict, set, frozenset, tuple)) and value != ():
        if id(value) in numbers:
            out.append("again %d" % numbers[id(value)])
            return
        numbers[id(value)] = len(numbers)
    if isinstance(value, Stub):
        # A set is of a list that only its constructor knows; its order does not matter.
        out.append("instance %s.%s" % type(value).stub)
        for part in value.parts:
            out.append("part %s" % part[0])
            if type(value).stub in (("builtins", "set"), ("builtins", "frozenset")):
                out.append(repr(sorted(part[1][0])))
                continue
            for item in part[1:]:
                # Tuples that only this description has.
                if isinstance(item, tuple) and part[0] == "new":
                    out.append("args %d" % len(item))
                    for argument in item:
                        described(argument, numbers, out)
                else:
                    described(item, numbers, out)
    elif isinstance(value, Reference):
        out.append("reference")
        described(value.id, {}, out)
    elif isinstance(value, dict):
        out.append("dict %d" % len(value))
        for key, item in value.items() if not PY2 else sorted(value.items(), key=lambda pair: repr(pair[0])):
            described(key, numbers, out)
            described(item, numbers, out)
    elif isinstance(value, (list, tuple)):
        out.append("%s %d" % (type(value).__name__, len(value)))
        for item in value:
            described(item, numbers, out)
    else:
        out.append("%s %r" % (type(value).__name__, value))


def description(record):
    import io
    if PY2:
        from StringIO import StringIO as source
    else:
        source = io.BytesIO
    loader = Loader(source(record))
    out, numbers = [], {}
    # Everything stays alive, so that no two objects have the same address.
    both = (loader.load(), loader.load())
    for value in both:
        described(value, numbers, out)
    return out


def compare(a, b):
    a, b = read(a), read(b)
    assert len(a) == len(b), (len(a), len(b))
    for number, (one, two) in enumerate(zip(a, b)):
        first, second = description(one), description(two)
        if first != second:
            place = [x == y for x, y in zip(first, second)].index(False) if len(first) == len(second) else -1
            print("record %d: %r\n%r\n%r\n%r" % (number, place, first[:40], second[:40], (one[:300], two[:300])))
            sys.exit(1)
    print("%d records" % len(a))


def main(command, *arguments):
    if command == "compare":
        return compare(*arguments)
    path = arguments[0] + ".fs"
    db = ZODB.DB(FileStorage(path))
    if command == "sample":
        sample_objects(db.open().root())
    else:
        import os
        import tempfile
        os.environ["TMPDIR"] = tempfile.gettempdir()
        from OFS.Application import Application
        root = db.open().root()
        root["Application"] = app = Application()
        transaction.commit()
        site(app)
    db.close()
    dump(arguments[0], records(FileStorage(path, read_only=True)))


main(*sys.argv[1:])
