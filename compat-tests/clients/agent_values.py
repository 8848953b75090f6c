"""What `agent.py` answers and what it stores: values as JSON, object records, transactions, logs, errors.

Runs on Python 2.7 and 3, with any ZODB from ZODB3 3.8 on.
"""
import binascii
import hashlib
import logging
import struct
import sys

import transaction

try:
    from ZODB.Connection import TransactionMetaData
except ImportError:
    TransactionMetaData = None

PY3 = sys.version_info[0] >= 3
MAX_TID = b"\x7f" + b"\xff" * 7
Z64 = b"\0" * 8
BLOB_RECORD = b"cZODB.blob\nBlob\nq\x01.N."

if PY3:
    # What a Python 3 client writes here, a Python 2 client is to read: no protocol 3 pickles in records.
    import ZODB.serialize
    ZODB.serialize._protocol = 1


def to_hex(data):
    return None if data is None else binascii.hexlify(data).decode("ascii")


def from_hex(text):
    return None if text is None else binascii.unhexlify(text.encode("ascii"))


def text(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def record(value, size=0):
    """An object record that every generation reads: a PersistentMapping with an integer and some padding."""
    pad = hashlib.sha1(str(value).encode("ascii")).hexdigest().encode("ascii")
    pad = (pad * (size // len(pad) + 1))[:size]
    return (b"cpersistent.mapping\nPersistentMapping\nq\x01."
            b"}q\x01(U\x04dataq\x02}q\x03(U\x05valueJ" + struct.pack("<i", value)
            + b"U\x03padT" + struct.pack("<i", size) + pad + b"uu.")


def blob_parts(size, seed):
    block = b"".join(hashlib.sha1(("%s %s" % (seed, n)).encode("ascii")).digest() for n in range(3277))
    while size > 0:
        yield block[:size]
        size -= len(block)


def record_value(data):
    at = data.find(b"U\x05valueJ")
    return struct.unpack("<i", data[at + 8:at + 12])[0] if at >= 0 else None


def describe_record(data):
    return {"value": record_value(data), "len": len(data), "sha": hashlib.sha1(data).hexdigest()}


def bootstrap_records():
    """A root with two counters, in opcodes that all read: oid 0, 1 and 2.

    A counter is a bucket {0: count}. (Not a BTrees.Length: its `_p_independent` lets old clients read it outside of
    their snapshot.)
    """
    root = (b"cpersistent.mapping\nPersistentMapping\nq\x01."
            b"}q\x01U\x04dataq\x02}q\x03(U\x01x(U\x08\0\0\0\0\0\0\0\x01cBTrees.IIBTree\nIIBucket\nq\x04tQ"
            b"U\x01y(U\x08\0\0\0\0\0\0\0\x02cBTrees.IIBTree\nIIBucket\nq\x05tQus.")
    counter = b"cBTrees.IIBTree\nIIBucket\nq\x01.((K\x00K\x00tt."
    return [(Z64, root), (b"\0" * 7 + b"\1", counter), (b"\0" * 7 + b"\2", counter)]


class Watcher(object):
    """Stands where a DB stands and writes down the invalidations."""

    def __init__(self):
        self.seen = []
        self.resets = 0

    def invalidate(self, tid, oids, *args, **kw):
        self.seen.append((to_hex(tid), sorted(to_hex(oid if isinstance(oid, bytes) else oid[0]) for oid in oids)))

    def invalidateCache(self):
        self.resets += 1

    def references(self, record, oids=None):
        return []

    def transform_record_data(self, data):
        return data

    untransform_record_data = transform_record_data


class LogLines(logging.Handler):
    def __init__(self):
        logging.Handler.__init__(self)
        self.lines = []

    def emit(self, line):
        try:
            # With the exception, which a reader of the log sees too.
            what = line.exc_info and line.exc_info[1]
            self.lines.append(line.getMessage() + (" %s" % (what,) if what else ""))
        except Exception:
            self.lines.append(str(line.msg))


def describe_undo(d, kind=bytes):
    """An entry of undoLog, whose texts must be of this kind."""
    own = ("id", "time", "user_name", "description", "size")
    if not (isinstance(d["id"], bytes) and isinstance(d["user_name"], kind) and isinstance(d["description"], kind)):
        raise TypeError("wrong kinds of strings: %r" % d)
    return {"id": text(d["id"]), "tid": to_hex(binascii.a2b_base64(d["id"])), "time": d["time"], "size": d["size"],
            "user": text(d["user_name"]), "description": text(d["description"]),
            "more": dict((text(k), text(v) if isinstance(v, (bytes, type(u""))) else v)
                         for k, v in d.items() if k not in own),
            "text_keys": all(isinstance(k, (str, type(u""))) for k in d)}


def prefix_class(new_style):
    """ZopeUndo's Prefix as clients pickle it: by name, with its state. In Python 2 there are two kinds."""
    import types

    def __init__(self, path):
        self.path = path.split("/")
        self.length = len(self.path)

    bases = (object,) if PY3 or new_style else ()
    made = (types.ClassType if not PY3 and not bases else type)(
        "Prefix", bases, {"__init__": __init__, "__module__": "ZopeUndo.Prefix"})
    for name in ("ZopeUndo", "ZopeUndo.Prefix"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["ZopeUndo"].Prefix = sys.modules["ZopeUndo.Prefix"]
    sys.modules["ZopeUndo.Prefix"].Prefix = made
    return made


def make_transaction(user, description, extension):
    if TransactionMetaData is not None:
        return TransactionMetaData(user, description, extension or {})
    result = transaction.Transaction()
    if PY3:
        user = user.encode("ascii", "replace").decode("ascii")  # ZODB 4 on Python 3 stores nothing else
    result.user = user if PY3 else user.encode("utf-8")
    if PY3:
        description = description.encode("ascii", "replace").decode("ascii")
    result.description = description if PY3 else description.encode("utf-8")
    for key, value in (extension or {}).items():
        result._extension[key] = value
    return result


def client_context(ssl_options):
    """What `<ssl>` in a client's configuration would make of the server's certificate and its own."""
    import ssl
    context = ssl.create_default_context(cafile=ssl_options["server"])
    context.check_hostname = False
    if ssl_options["certificate"]:
        context.load_cert_chain(ssl_options["certificate"], ssl_options["key"])
    return context


def describe_error(error):
    answer = {"error": type(error).__name__, "classes": [c.__name__ for c in type(error).__mro__],
              "text": text(str(error))}
    oid = getattr(error, "oid", None)
    if isinstance(oid, bytes):
        answer["oid"] = to_hex(oid)
    serials = getattr(error, "serials", None)
    if serials:
        answer["serials"] = [to_hex(s) for s in serials]
    class_name = getattr(error, "class_name", None)
    if class_name:
        answer["class_name"] = text(class_name)
    if error.args and isinstance(error.args[0], bytes) and len(error.args[0]) == 8:
        answer["arg"] = to_hex(error.args[0])
    return answer
