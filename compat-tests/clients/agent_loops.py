"""Commands of `agent.py` that take their time: copies, iterators, endless commits and packs, and whole databases.

Runs on Python 2.7 and 3, with any ZODB from ZODB3 3.8 on.
"""
import base64
import hashlib
import json
import os
import struct
import tempfile
import time

import transaction
import ZODB
from ZODB.DB import DB

from agent_values import (
    BLOB_RECORD, Z64, bootstrap_records, from_hex, make_transaction, record, record_value, text, to_hex)


class LongCommands(object):
    """Half of the agent; the other half has `storages` and `dbs`."""

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

    def db_wait_counters(self, h, wanted, timeout=60):
        deadline = time.time() + timeout
        while True:
            try:
                found = self.db_counters(h)
            except ZODB.POSException.ConflictError as error:
                # Of a database without history, before the last invalidation has come.
                found = error
            if found == wanted:
                return
            if time.time() > deadline:
                raise RuntimeError("still %s" % (found,))
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
        """Connects, reads both counters, and goes again. Of several addresses another one each time."""
        reads = torn = back = last = 0
        addresses = addr if isinstance(addr[0], list) else [addr]
        deadline = time.time() + seconds
        while time.time() < deadline:
            self.open("visit", addresses[reads % len(addresses)], watch=False)
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
