"""A real ZODB client that does what its standard input says, in any generation from ZODB3 3.8 to ZEO 6.

Runs on Python 2.7 and 3. Each input line is a JSON list [command, arguments]; each answer is one JSON line,
{"ok": value} or {"error": class, ...}. Byte strings travel as hex. The driver is `harness/agents.py`.
Commands never catch what the client library raises: the class and attributes of an error are the result.
"""
from __future__ import print_function

import base64
import binascii
import hashlib
import json
import logging
import os
import struct
import sys
import tempfile
import threading
import time
import traceback

# Some libraries print; only answers may reach the driver.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import transaction  # noqa: E402
import ZODB  # noqa: E402,F401
from ZEO.ClientStorage import ClientStorage  # noqa: E402
from ZODB.DB import DB  # noqa: E402

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


BLOB_RECORD = b"cZODB.blob\nBlob\nq\x01.N."


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


class Agent(object):
    def __init__(self):
        self.storages = {}
        self.watchers = {}
        self.dbs = {}
        self.open_transactions = {}
        self.log = LogLines()
        logging.getLogger().addHandler(self.log)
        logging.getLogger().setLevel(logging.DEBUG)

    # -- connections

    def open(self, h, addr, storage="1", read_only=False, read_only_fallback=False, wait=True, wait_timeout=10,
             client=None, var=None, cache_size=20 * 1024 * 1024, watch=True, blob_dir=None, shared_blob_dir=False,
             username=None, password=None, realm=None, ssl=None, poll=1):
        addr = tuple(addr) if isinstance(addr, list) else addr
        if not PY3:
            storage = str(storage)
            addr = (str(addr[0]), addr[1]) if isinstance(addr, tuple) else str(addr)
            client, var = client and str(client), var and str(var)
        options = {}
        if username is not None:
            options = {"username": username, "password": password, "realm": realm}
            if not PY3:
                options = dict((k, v and v.encode("utf-8")) for k, v in options.items())
        if ssl:
            options["ssl"] = client_context(ssl)
        if blob_dir:
            # As text of its own kind: old clients join it with bytes.
            options.update(blob_dir=str(blob_dir), shared_blob_dir=shared_blob_dir)
        self.storages[h] = ClientStorage(
            addr, storage=storage, cache_size=cache_size, client=client, var=var, min_disconnect_poll=poll,
            max_disconnect_poll=poll, wait=wait, wait_timeout=wait_timeout, read_only=read_only,
            read_only_fallback=read_only_fallback, **options)
        if watch:
            self.watchers[h] = Watcher()
            try:
                self.storages[h].registerDB(self.watchers[h])
            except TypeError:
                self.storages[h].registerDB(self.watchers[h], None)

    def close(self, h):
        self.watchers.pop(h, None)
        self.open_transactions.pop(h, None)
        if h in self.dbs:
            db, conn, tm = self.dbs.pop(h)
            tm.abort()
            conn.close()
            db.close()
            self.storages.pop(h, None)
        else:
            self.storages.pop(h).close()

    def reset(self):
        for h in list(self.storages):
            try:
                self.close(h)
            except Exception:
                traceback.print_exc()
        self.storages.clear()
        self.dbs.clear()
        self.watchers.clear()
        self.open_transactions.clear()
        del self.log.lines[:]

    def is_connected(self, h):
        return bool(self.storages[h].is_connected())

    def wait_connected(self, h, wanted=True, timeout=60):
        deadline = time.time() + timeout
        while bool(self.storages[h].is_connected()) != wanted:
            if time.time() > deadline:
                raise RuntimeError("still %sconnected after %s s" % ("not " if wanted else "", timeout))
            time.sleep(0.02)

    def logged(self, part):
        return [line for line in self.log.lines if part in line]

    def forget_log(self):
        del self.log.lines[:]

    def verification(self, h):
        """How the cache was verified, where the client remembers it."""
        server = getattr(self.storages[h], "_server", None)
        return getattr(getattr(server, "client", None), "verify_result", None)

    # -- reading

    def load(self, h, oid):
        data, tid = self.storages[h].load(from_hex(oid), "")[:2]
        return dict(describe_record(data), tid=to_hex(tid))

    def load_before(self, h, oid, before):
        found = self.storages[h].loadBefore(from_hex(oid), from_hex(before))
        if found is None:
            return None
        data, tid, end = found
        return dict(describe_record(data), tid=to_hex(tid), end=to_hex(end))

    def load_serial(self, h, oid, serial):
        return describe_record(self.storages[h].loadSerial(from_hex(oid), from_hex(serial)))

    def get_tid(self, h, oid):
        return to_hex(self.storages[h].getTid(from_hex(oid)))

    def history(self, h, oid, size):
        storage = self.storages[h]
        try:
            entries = storage.history(from_hex(oid), size=size)
        except TypeError:
            entries = storage.history(from_hex(oid), "", size)
        return [{"tid": to_hex(e["tid"]), "size": e["size"], "time": e["time"], "user": text(e["user_name"]),
                 "description": text(e["description"])} for e in entries]

    def last_transaction(self, h):
        return to_hex(self.storages[h].lastTransaction())

    def new_oids(self, h, count):
        return [to_hex(self.storages[h].new_oid()) for _ in range(count)]

    def reserved_oids(self, h):
        """What the client was given and has not used yet."""
        return [to_hex(oid) for oid in self.storages[h]._oids]

    def about(self, h):
        storage = self.storages[h]
        read_only = storage.isReadOnly()
        return {"len": len(storage), "size": storage.getSize(), "name": storage.getName(),
                "read_only": bool(read_only), "sort_key": text(storage.sortKey())}

    def status(self, h):
        return dict((text(k), text(v)) for k, v in self.storages[h].server_status().items())

    def record_iternext(self, h, limit):
        found, cursor = [], None
        while len(found) < limit:
            oid, tid, data, cursor = self.storages[h].record_iternext(cursor)
            found.append([to_hex(oid), to_hex(tid), hashlib.sha1(data).hexdigest()])
            if cursor is None:
                break
        return found

    def iterate(self, h, start=None, stop=None):
        found = []
        for txn in self.storages[h].iterator(from_hex(start), from_hex(stop)):
            records = [[to_hex(r.oid), to_hex(r.tid), record_value(r.data)] for r in txn]
            found.append({"tid": to_hex(txn.tid), "user": text(txn.user), "description": text(txn.description),
                          "records": records})
        return found

    def invalidations(self, h):
        return [[tid, oids] for tid, oids in self.watchers[h].seen]

    def wait_invalidated(self, h, oid, tid, timeout=10):
        """Until the invalidation of that object by that transaction has come."""
        deadline = time.time() + timeout
        while not any(seen == tid and oid in oids for seen, oids in self.watchers[h].seen):
            if time.time() > deadline:
                raise RuntimeError("no invalidation of %s by %s in %s" % (oid, tid, self.watchers[h].seen[-5:]))
            time.sleep(0.005)

    # -- transactions, step by step

    def begin(self, h, user="", description="", extension=None):
        txn = make_transaction(user, description, extension)
        self.storages[h].tpc_begin(txn)
        self.open_transactions[h] = txn

    def store(self, h, oid, serial, value, size=0):
        self.storages[h].store(from_hex(oid), from_hex(serial), record(value, size), "", self.open_transactions[h])

    def check_current(self, h, oid, serial):
        self.storages[h].checkCurrentSerialInTransaction(from_hex(oid), from_hex(serial), self.open_transactions[h])

    def delete(self, h, oid, serial):
        self.storages[h].deleteObject(from_hex(oid), from_hex(serial), self.open_transactions[h])

    def vote(self, h):
        self.storages[h].tpc_vote(self.open_transactions[h])

    def finish(self, h):
        tids = []
        txn = self.open_transactions.pop(h)
        self.storages[h].tpc_finish(txn, tids.append)
        return to_hex(tids[0])

    def abort(self, h):
        self.storages[h].tpc_abort(self.open_transactions.pop(h))

    def commit(self, h, changes, user="", description="", extension=None):
        """Changes are [oid, serial, value, size] lists; answers the tid."""
        self.begin(h, user, description, extension)
        try:
            for change in changes:
                self.store(h, *change)
            self.vote(h)
        except Exception:
            self.abort(h)
            raise
        return self.finish(h)

    def store_bytes(self, h, oid, serial, data):
        self.storages[h].store(from_hex(oid), from_hex(serial), from_hex(data), "", self.open_transactions[h])

    def load_bytes(self, h, oid):
        return to_hex(self.storages[h].load(from_hex(oid), "")[0])

    def pack(self, h, at=None, wait=True):
        self.storages[h].pack(time.time() if at is None else at, None, wait)

    # -- blobs

    def store_blob(self, h, oid, serial, size, seed):
        """A blob of so many bytes that the seed decides."""
        fd, path = tempfile.mkstemp(dir=self.storages[h].temporaryDirectory())
        with os.fdopen(fd, "wb") as f:
            for part in blob_parts(size, seed):
                f.write(part)
        storage = self.storages[h]
        storage.storeBlob(from_hex(oid), from_hex(serial), BLOB_RECORD, path, "", self.open_transactions[h])
        if hasattr(storage, "_server") and hasattr(storage._server, "get_info"):
            # Clients before ZEO 5 read the file in another thread while they send it; if an abort removes it under
            # them they lose the connection, whatever the server. The answer to this comes behind the whole blob.
            storage._server.get_info()

    def commit_blobs(self, h, blobs):
        """Blobs are [oid, serial, size, seed] lists; answers the tid."""
        self.begin(h)
        try:
            for blob in blobs:
                self.store_blob(h, *blob)
            self.vote(h)
        except Exception:
            self.abort(h)
            raise
        return self.finish(h)

    def load_blob(self, h, oid, serial):
        """Whether it was fetched, its length and hash."""
        path = self.storages[h].loadBlob(from_hex(oid), from_hex(serial))
        digest, size = hashlib.sha1(), 0
        with open(path, "rb") as f:
            for part in iter(lambda: f.read(1 << 20), b""):
                digest.update(part)
                size += len(part)
        return [size, digest.hexdigest()]

    def blob_sum(self, size, seed):
        """What load_blob answers for such a blob."""
        digest = hashlib.sha1()
        for part in blob_parts(size, seed):
            digest.update(part)
        return [size, digest.hexdigest()]

    # -- undo

    def undo_log(self, h, first=0, last=-20):
        return [describe_undo(d) for d in self.storages[h].undoLog(first, last)]

    def undo_info(self, h, first=0, last=-20, equal_to=None, prefixes=None, new_style=True):
        """What has these values and path prefixes."""
        wanted = dict((str(key), value.encode("utf-8")) for key, value in (equal_to or {}).items())
        kind = prefix_class(new_style)
        wanted.update((str(key), kind(str(path))) for key, path in (prefixes or {}).items())
        return [describe_undo(d) for d in self.storages[h].undoInfo(first, last, wanted or None)]

    def undo(self, h, id):
        """In the open transaction; what the client library returns, if anything."""
        result = self.storages[h].undo(id.encode("ascii"), self.open_transactions[h])
        return [to_hex(result[0]), sorted(to_hex(oid) for oid in result[1])] if result else None

    def vote_changes(self, h):
        """Votes; the objects whose data is not what the client has stored."""
        changed = set()
        for item in self.storages[h].tpc_vote(self.open_transactions[h]) or ():
            if isinstance(item, bytes):
                changed.add(to_hex(item))
            elif item[1] == b"rs":
                changed.add(to_hex(item[0]))
        return sorted(changed)

    def db_undo_log(self, h):
        # Newer databases make texts of them.
        return [describe_undo(d, (bytes, str)) for d in self.dbs[h][0].undoLog(0, 20)]

    def db_undo(self, h, ids):
        """As an undo page does it: all in one transaction."""
        db, conn, tm = self.dbs[h]
        ids = [id.encode("ascii") for id in ids]
        txn = tm.begin()
        try:
            if hasattr(db, "undoMultiple"):
                db.undoMultiple(ids, txn)
            else:
                for id in ids:
                    db.undo(id, txn)
            tm.commit()
        except Exception:
            tm.abort()
            raise

    def copy_from(self, h, path):
        """Every transaction of a file, with the tids that it has there."""
        from ZODB.FileStorage import FileStorage
        source = FileStorage(str(path), read_only=True)
        self.storages[h].copyTransactionsFrom(source)
        source.close()

    def read_file(self, path):
        """What the FileStorage of this generation finds in a file, all transactions and all current values."""
        from ZODB.FileStorage import FileStorage
        storage = FileStorage(str(path), read_only=True)
        try:
            listed, current = [], {}
            for txn in storage.iterator():
                listed.append([to_hex(txn.tid), text(txn.description), [to_hex(r.oid) for r in txn]])
            for oid in sorted(set(oid for _, _, oids in listed for oid in oids)):
                data, tid = storage.load(from_hex(oid), "")[:2]
                current[oid] = [record_value(data), to_hex(tid)]
            undo = [text(entry["description"]) for entry in storage.undoLog(0, 100)]
            return {"transactions": listed, "current": current, "undo": undo}
        finally:
            storage.close()

    def copy_to(self, h, path):
        """Every transaction of the storage, into a new file."""
        from ZODB.FileStorage import FileStorage
        destination = FileStorage(str(path), create=True)
        try:
            destination.copyTransactionsFrom(self.storages[h])
        finally:
            destination.close()

    def copy_between(self, h, to):
        self.storages[to].copyTransactionsFrom(self.storages[h])

    def transactions(self, h, start=None, stop=None):
        """All that an iterator hands out, byte for byte."""
        found = []
        for txn in self.storages[h].iterator(from_hex(start), from_hex(stop)):
            extension = getattr(txn, "extension", None)
            if extension is None:
                extension = txn._extension
            records = [[to_hex(r.oid), to_hex(r.tid), to_hex(r.data), r.version, to_hex(r.data_txn)] for r in txn]
            found.append([to_hex(txn.tid), text(txn.status), type(txn.user).__name__, repr(txn.user),
                          repr(txn.description), sorted(map(repr, (extension or {}).items())), records])
        return found

    def iterators_start(self, h, count):
        """So many iterators, each with one transaction and one record of it read; all are kept."""
        self.kept = []
        for _ in range(count):
            transactions = self.storages[h].iterator()
            records = iter(next(transactions))
            next(records)
            self.kept.append((transactions, records))

    def iterators_next(self, h):
        """One more of each that is kept."""
        return [to_hex(next(transactions).tid) for transactions, _ in self.kept]

    def iterators_drop(self, h):
        import gc
        self.kept = []
        gc.collect()
        self.storages[h]._iterator_gc()
        self.storages[h].server_status()  # the call before wanted no answer

    def iterator_call(self, h, method, *arguments, **kw):
        """One of the iterator calls as it goes over the wire."""
        storage = self.storages[h]
        arguments = [from_hex(a["hex"]) if isinstance(a, dict) else a for a in kw["args"]]
        if hasattr(storage, "_call"):
            answer = storage._call(str(method), *arguments)
        else:
            answer = getattr(storage._server, str(method))(*arguments)
        return repr(answer)

    def commit_loop(self, h, oids, blob_oids, seconds, record_to, seed):
        """Commits to its own objects until the time or the server is over: stores, blobs, and undoes of its last one.

        Every transaction is written down before its vote, and its tid as soon as tpc_finish has returned.
        """
        import random
        dice = random.Random(seed)
        storage = self.storages[h]
        serials = dict((oid, Z64) for oid in oids + blob_oids)
        now = {}  # oid -> what it holds: [hash of the record, hash of the blob or None]
        last = None  # what the last transaction changed, for its undo
        count = undone = 0
        started = time.time()
        with open(record_to, "a") as out:
            def note(**entry):
                out.write(json.dumps(entry) + "\n")
                out.flush()

            while time.time() < started + seconds:
                count += 1
                txn = make_transaction("agent", "commit %d" % count, None)
                is_undo = last is not None and dice.random() < 0.15
                tids = []
                try:
                    storage.tpc_begin(txn)
                    if is_undo:
                        changed = last["before"]
                        note(attempt=changed)
                        storage.undo(base64.b64encode(serials[min(changed)]), txn)
                    else:
                        changed = self.store_some(storage, txn, dice, oids, blob_oids, serials)
                        note(attempt=changed)
                    storage.tpc_vote(txn)
                    storage.tpc_finish(txn, tids.append)
                except Exception as error:
                    if not is_undo or "Undo" not in type(error).__name__:
                        # The server was killed, which is the point.
                        return {"commits": count - 1, "undone": undone, "stopped": type(error).__name__}
                    storage.tpc_abort(txn)  # a pack goes on, or has taken away what was before
                    last = None
                    continue
                note(tid=to_hex(tids[0]), records=changed)
                before = dict((oid, now.get(oid)) for oid in changed)
                last = {"before": before} if not is_undo and None not in before.values() else None
                undone += is_undo
                now.update(changed)
                for oid in changed:
                    serials[oid] = tids[0]
        return {"commits": count, "undone": undone, "stopped": None}

    def store_some(self, storage, txn, dice, oids, blob_oids, serials):
        changed = {}
        for oid in sorted(dice.sample(oids, dice.randint(1, len(oids)))):
            data = record(dice.randint(0, 2 ** 31 - 1), dice.choice((0, 100, 3000, 70000)))
            storage.store(from_hex(oid), serials[oid], data, "", txn)
            changed[oid] = [hashlib.sha1(data).hexdigest(), None]
        for oid in blob_oids if dice.random() < 0.4 else ():
            blob = struct.pack("<i", dice.randint(0, 2 ** 31 - 1)) * dice.choice((0, 10, 20000, 300000))
            # In a shared directory it stays there if the server is killed before it has heard of it.
            handle, path = tempfile.mkstemp(suffix=".tmp", dir=storage.temporaryDirectory())
            with os.fdopen(handle, "wb") as stored:
                stored.write(blob)
            storage.storeBlob(from_hex(oid), serials[oid], BLOB_RECORD, path, "", txn)
            changed[oid] = [hashlib.sha1(BLOB_RECORD).hexdigest(), hashlib.sha1(blob).hexdigest()]
        return changed

    def pack_loop(self, h, seconds, seed):
        import random
        dice = random.Random(seed)
        count = 0
        started = time.time()
        while time.time() < started + seconds:
            time.sleep(dice.choice((0, 0.05, 0.3)))
            try:
                self.storages[h].pack(time.time() - dice.choice((0, 0, 0.2)))
            except Exception as error:
                return {"packs": count, "stopped": type(error).__name__}
            count += 1
        return {"packs": count, "stopped": None}

    # -- databases

    def bootstrap(self, h):
        storage = self.storages[h]
        txn = make_transaction("", "initial database creation", None)
        storage.tpc_begin(txn)
        for oid, data in bootstrap_records():
            storage.store(oid, Z64, data, "", txn)
        storage.tpc_vote(txn)
        storage.tpc_finish(txn)

    def db_open(self, h):
        db = DB(self.storages[h])
        tm = transaction.TransactionManager()
        try:
            conn = db.open(transaction_manager=tm)
        except TypeError:
            conn = db.open(txn_mgr=tm)
        self.dbs[h] = (db, conn, tm)

    def db_counters(self, h):
        _, conn, tm = self.dbs[h]
        tm.begin()
        conn.sync()
        root = conn.root()
        return [root["x"][0], root["y"][0]]

    def db_wait_counters(self, h, wanted, timeout=10):
        deadline = time.time() + timeout
        while self.db_counters(h) != wanted:
            if time.time() > deadline:
                raise RuntimeError("still %s" % self.db_counters(h))
            time.sleep(0.01)

    def db_count(self, h, times, seconds=60):
        """Adds one to both counters, so often, each time in one transaction, repeating after conflicts.

        Whatever it reads must have both equal: nobody ever commits anything else.
        """
        _, conn, tm = self.dbs[h]
        conflicts = torn = done = 0
        deadline = time.time() + seconds
        while done < times and time.time() < deadline:
            tm.begin()
            try:
                root = conn.root()
                x, y = root["x"][0], root["y"][0]
                if x != y:
                    torn += 1
                    tm.abort()
                    continue
                root["x"][0] = x + 1
                root["y"][0] = y + 1
                tm.commit()
                done += 1
            except (ZODB.POSException.ConflictError, SystemError):
                # BTrees of ZODB3 3.10 lose the ReadConflictError of a revision that was packed away, whoever serves.
                conflicts += 1
                tm.abort()
                conn.sync()
        return {"done": done, "conflicts": conflicts, "torn": torn}

    def db_watch(self, h, seconds):
        """Reads both counters all the time; a difference, or a step back, is an error of the server."""
        _, conn, tm = self.dbs[h]
        reads = torn = back = conflicts = last = 0
        deadline = time.time() + seconds
        while time.time() < deadline:
            tm.begin()
            conn.sync()
            try:
                root = conn.root()
                if reads % 2:
                    root["x"]._p_deactivate()
                else:
                    root["y"]._p_deactivate()
                x, y = root["x"][0], root["y"][0]
            except ZODB.POSException.ConflictError:
                conflicts += 1
                tm.abort()
                continue
            reads += 1
            torn += x != y
            back += x < last
            last = x
            tm.abort()
        return {"reads": reads, "torn": torn, "back": back, "conflicts": conflicts, "last": last}

    def work(self, h, oid, serial, value, seconds):
        """Changes an object of its own and asks for what it has stored, again and again: nothing else may come back."""
        storage = self.storages[h]
        longest = 0
        deadline = time.time() + seconds
        while True:
            started = time.time()
            if started >= deadline:
                return {"tid": serial, "value": value, "longest": longest}
            serial = self.commit(h, [[oid, serial, value + 1, 100]])
            value += 1
            for _ in range(5):
                found = record_value(storage.loadSerial(from_hex(oid), from_hex(serial)))
                if found != value:
                    raise RuntimeError("stored %s and got %s" % (value, found))
            longest = max(longest, time.time() - started)

    def db_visit(self, addr, seconds):
        """Connects, reads both counters, and goes again."""
        reads = torn = back = last = 0
        deadline = time.time() + seconds
        while time.time() < deadline:
            self.open("visit", addr, watch=False)
            self.db_open("visit")
            try:
                x, y = self.db_counters("visit")
                reads += 1
                torn += x != y
                back += x < last
                last = x
            except ZODB.POSException.ConflictError:
                pass
            self.close("visit")
        return {"reads": reads, "torn": torn, "back": back, "last": last}


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


def main():
    agent = Agent()
    # A client library that hangs is a result too: SIGUSR1 shows where.
    if PY3:
        import faulthandler
        import signal
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    print(json.dumps({"ok": "ready"}), file=ANSWERS)
    ANSWERS.flush()
    while True:
        line = sys.stdin.readline()
        if not line:
            break
        command, arguments = json.loads(line)
        if not PY3:
            arguments = dict((str(k), v) for k, v in arguments.items())
        try:
            answer = {"ok": getattr(agent, command)(**arguments)}
        except Exception as error:
            traceback.print_exc()
            answer = describe_error(error)
        print(json.dumps(answer), file=ANSWERS)
        ANSWERS.flush()
    os._exit(0)  # clients of dead servers would wait for ever in their threads


if __name__ == "__main__":
    main()
