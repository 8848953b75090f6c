"""A real ZODB client that does what its standard input says, in any generation from ZODB3 3.8 to ZEO 6.

Runs on Python 2.7 and 3. Each input line is a JSON list [command, arguments]; each answer is one JSON line,
{"ok": value} or {"error": class, ...}. Byte strings travel as hex. The driver is `harness/agents.py`.
Commands never catch what the client library raises: the class and attributes of an error are the result.
"""
from __future__ import print_function

import hashlib
import json
import logging
import os
import sys
import tempfile
import time
import traceback

# Some libraries print; only answers may reach the driver.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from ZEO.ClientStorage import ClientStorage  # noqa: E402

from agent_loops import LongCommands  # noqa: E402
from agent_steady import SteadyCommands  # noqa: E402
from agent_values import (  # noqa: E402
    BLOB_RECORD, LogLines, PY3, Watcher, blob_parts, client_context, describe_error, describe_record,
    describe_undo, from_hex, make_transaction, prefix_class, record, record_value, text, to_hex)


class Agent(LongCommands, SteadyCommands):
    def __init__(self):
        self.storages = {}
        self.watchers = {}
        self.dbs = {}
        self.open_transactions = {}
        self.log = LogLines()
        logging.getLogger().addHandler(self.log)
        logging.getLogger().setLevel(logging.DEBUG)

    # -- connections

    def open(self, h, addr, storage="1", read_only=False, read_only_fallback=False, wait=True, wait_timeout=60,
             client=None, var=None, cache_size=20 * 1024 * 1024, watch=True, blob_dir=None, shared_blob_dir=False,
             username=None, password=None, realm=None, ssl=None, poll=1, label=None):
        if isinstance(addr, list):
            addr = [tuple(one) for one in addr] if isinstance(addr[0], list) else tuple(addr)
        if not PY3:
            storage = str(storage)
            several = isinstance(addr, list)
            addr = [(str(one[0]), one[1]) if isinstance(one, tuple) else str(one) for one in (addr if several else [addr])]
            addr = addr if several else addr[0]
            client, var = client and str(client), var and str(var)
        options = {}
        if username is not None:
            options = {"username": username, "password": password, "realm": realm}
            if not PY3:
                options = dict((k, v and v.encode("utf-8")) for k, v in options.items())
        if label:
            options["client_label"] = label  # from ZEO 5 on
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

    def is_settled(self, h):
        """The storage is connected, and so is its connection manager.

        Before ZEO 5 the manager notes a connection last. If the server is lost before that, the manager does not look for
        it again: the end of a connection that it does not know does not concern it.
        """
        manager = getattr(self.storages[h], "_rpc_mgr", None)
        return self.is_connected(h) and (manager is None or manager.is_connected())

    def wait_connected(self, h, wanted=True, timeout=60):
        deadline = time.time() + timeout
        while not (self.is_settled(h) if wanted else not self.is_connected(h)):
            if time.time() > deadline:
                raise RuntimeError("still %sconnected after %s s; the client's last log lines:\n%s" % (
                    "not " if wanted else "", timeout, "\n".join(self.log.lines[-20:])))
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

    def wait_invalidated(self, h, oid, tid, timeout=60):
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
