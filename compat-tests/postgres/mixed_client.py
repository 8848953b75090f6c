"""One client of the case `mixed`: does random work, and writes down what it has seen and done, a line of JSON each.

    mixed_client.py OPTIONS     JSON, see `mixed.py`

What counts as an error ends the program: everything but conflicts, and refusals of packs and undos.
"""
import base64
import json
import random
import sys
import time

import transaction
import ZODB
from BTrees.Length import Length
from persistent.mapping import PersistentMapping
from relstorage_agent import storage as relstorage
from ZEO.ClientStorage import ClientStorage
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import ConflictError, POSKeyError, StorageError, UndoError
from ZODB.utils import p64, u64


def setup(options):
    """Makes the objects; returns their oids, and the first transaction with its values."""
    storage = ClientStorage(tuple(options["addresses"][0]), wait_timeout=30)
    db = ZODB.DB(storage)
    with db.transaction("setup") as conn:
        root = conn.root()
        root["cells"] = [PersistentMapping(v=f"v-setup-{number}-") for number in range(options["cells"])]
        root["lengths"] = [Length(0) for _ in range(2)]
        root["bins"] = [PersistentMapping() for _ in range(options["clients"])]
    conn = db.open()
    root = conn.root()
    oids = {kind: [u64(one._p_oid) for one in root[kind]] for kind in ("cells", "lengths", "bins")}
    values = {u64(one._p_oid): one["v"] for one in root["cells"]}
    values.update({u64(one._p_oid): one() for one in root["lengths"]})
    for one in root["cells"]:
        one._p_activate()
    result = {"oids": oids, "tid": u64(root["cells"][0]._p_serial), "values": values}
    conn.close()
    db.close()
    return result


class Client:
    def __init__(self, options):
        self.options = options
        self.name, self.kind = options["name"], options["kind"]
        self.dice = random.Random(options["seed"])
        self.log = open(options["log"], "w", buffering=1)
        oids = options["oids"]
        half = len(oids["cells"]) // 2
        # The second half only one client changes.
        self.cells, self.special = oids["cells"][:half], oids["cells"][half:]
        self.lengths, self.bin = oids["lengths"], oids["bins"][options["number"]]
        self.count = 0
        self.unlinked = []
        self.where = None

    # Connections

    def open(self):
        """At the same place again, or at another one."""
        places = ["relstorage", *self.options["addresses"]]
        if self.kind == "wander":
            self.where = self.dice.choice([one for one in places if one != self.where])
        else:
            self.where = "relstorage" if self.kind == "relstorage" else self.options["addresses"][self.options["at"]]
        self.opened = time.monotonic()
        self.storage, self.raw = self.connect(), self.connect()
        self.db = ZODB.DB(self.storage)
        self.tm = transaction.TransactionManager()
        self.conn = self.db.open(self.tm)
        inner = self.conn._storage.tpc_finish

        def finish(*args, **kw):
            self.finishing = time.monotonic()
            tid = inner(*args, **kw)
            self.committed = u64(tid), time.monotonic()
            return tid

        self.conn._storage.tpc_finish = finish

    def connect(self):
        if self.where == "relstorage":
            return relstorage(self.options["dsn"], self.options["keep_history"])
        return ClientStorage(tuple(self.where), wait_timeout=30, server_sync=self.options["sync"], cache_size=1 << 20)

    def close(self):
        self.tm.abort()
        self.conn.close()
        self.db.close()
        self.raw.close()

    def write(self, **record):
        self.log.write(json.dumps(record) + "\n")

    # Transactions of a ZODB connection

    def begin(self):
        self.began, self.reads, self.finishing, self.committed = time.monotonic(), {}, None, None
        self.checks, self.writes, self.deltas = [], {}, {}
        # What was acknowledged before is in the view of RelStorage, of a client that asks its server, and of a new one.
        self.strict = self.where == "relstorage" or self.options["sync"] or self.opened is not None
        if self.opened is not None:
            self.began, self.opened = self.opened, None
        self.tm.begin()

    def snapshot(self):
        """The last transaction of this view."""
        storage = self.conn._storage
        return u64(storage.lastTransaction()) if self.where == "relstorage" else u64(storage._start) - 1

    def read(self, oid):
        found = self.conn.get(p64(oid))
        value = found() if isinstance(found, Length) else found["v"].split(" ")[0]
        self.reads[oid] = [u64(found._p_serial), value]
        return found

    def new_value(self):
        self.count += 1
        return f"v-{self.name}-{self.count}-"

    def work(self, what):
        """Does `what` in a transaction. Returns whether it is committed."""
        self.begin()
        outcome, snapshot = "read", None
        try:
            description = what()
            snapshot = self.snapshot()
            if description is None:
                self.tm.abort()
            else:
                self.tm.get().note(description)
                outcome = "conflict"
                self.tm.commit()
                outcome = "committed"
        except ConflictError as error:
            if type(error).__name__ == "CacheConsistencyError":
                raise
            outcome = "conflict"
            self.tm.abort()
        except Exception:
            outcome = "unknown"
            raise
        finally:
            self.write_transaction(outcome, snapshot)
        return outcome == "committed"

    def write_transaction(self, outcome, snapshot):
        tid, ended = self.committed or (None, None)
        self.write(what="transaction", begin=self.began, strict=self.strict, snapshot=snapshot, reads=self.reads,
                   checks=self.checks, writes=self.writes, deltas=self.deltas, outcome=outcome, tid=tid,
                   finishing=self.finishing, ended=ended)

    def change(self):
        dice, with_length = self.dice, False
        cells = self.special if self.options["is_special"] else self.cells
        chosen = [self.read(oid) for oid in dice.sample(cells, dice.randrange(1, 5))]
        # Objects of both halves are seen together.
        for oid in dice.sample(self.cells + self.special, 3):
            self.read(oid)
        if dice.random() < 0.3:
            return None
        count = dice.randrange(1, len(chosen) + 1)
        for one in chosen[:count]:
            value = self.new_value()
            self.writes[u64(one._p_oid)] = value
            one["v"] = value + " " + "x" * dice.choice([0, 10, 3000])
        if cells is self.cells:
            for one in chosen[count:]:
                self.conn.readCurrent(one)
                self.checks.append(u64(one._p_oid))
            with_length = dice.random() < 0.4
        if with_length:
            oid = dice.choice(self.lengths)
            delta = self.deltas[oid] = dice.choice([1, 2, 5])
            self.read(oid).change(delta)
        return "length" if with_length else "special" if cells is self.special else "cells"

    def read_all(self):
        for oid in self.cells + self.special + self.lengths:
            self.read(oid)

    def fill_bin(self):
        added = PersistentMapping(v=self.new_value())
        mapping = self.conn.get(p64(self.bin))
        mapping[str(self.count)] = added
        self.conn.add(added)
        self.writes[u64(added._p_oid)] = added["v"]
        return "bin"

    def look_into_bin(self):
        for added in self.conn.get(p64(self.bin)).values():
            self.read(u64(added._p_oid))

    def empty_bin(self):
        mapping = self.conn.get(p64(self.bin))
        if not mapping:
            return None
        key = self.dice.choice(sorted(mapping))
        self.read(u64(mapping[key]._p_oid))
        self.gone = u64(mapping[key]._p_oid), u64(mapping[key]._p_serial)
        del mapping[key]
        # From here on a pack may remove it.
        self.write(what="unlink", oid=self.gone[0])
        return "bin"

    # Calls of the storage itself

    def call(self, what, doing, **record):
        began = time.monotonic()
        data = TransactionMetaData("", what)
        try:
            self.raw.tpc_begin(data)
            doing(data)
            self.raw.tpc_vote(data)
            finishing = time.monotonic()
            tid = self.raw.tpc_finish(data)
        except Exception as error:
            self.raw.tpc_abort(data)
            # RelStorage does not look whether an object that it deletes is still there.
            is_gone = what == "delete" and type(error).__name__ == "ForeignKeyViolation"
            if not (is_gone or is_refusal(error) or isinstance(error, (ConflictError, UndoError, POSKeyError))):
                raise
            self.write(what="refused", call=what, error=type(error).__name__)
            return
        self.write(what=what, begin=began, finishing=finishing, ended=time.monotonic(), tid=u64(tid), **record)

    def undo(self):
        wanted = self.options["undo"]
        entries = [one for one in self.raw.undoLog(0, 30) if text(one["description"]) in wanted]
        if entries:
            # Others are changing the same objects, so the newest can be undone most often.
            undone = entries[min(int(self.dice.expovariate(1)), len(entries) - 1)]["id"]
            self.call("undo", lambda data: self.raw.undo(undone, data), undone=u64(base64.decodebytes(undone + b"\n")))

    def delete(self):
        if self.unlinked:
            oid, serial = self.unlinked.pop()
            self.call("delete", lambda data: self.raw.deleteObject(p64(oid), p64(serial), data), oid=oid)

    def pack(self):
        at = time.time() - 1
        try:
            self.raw.pack(at, ZODB.serialize.referencesf)
        except StorageError as error:
            if not is_refusal(error):
                raise
            self.write(what="refused", call="pack", error=str(error)[:100])
        else:
            self.write(what="pack", at=at)

    def run(self):
        self.open()
        until = time.monotonic() + self.options["seconds"]
        while time.monotonic() < until:
            choice = self.dice.random()
            if choice < 0.02:
                self.work(self.fill_bin)
            elif choice < 0.03:
                self.work(self.look_into_bin)
            elif choice < 0.05:
                if self.work(self.empty_bin):
                    self.unlinked.append(self.gone)
            elif choice < 0.07 and self.options["deletes"]:
                self.delete()
            elif choice < 0.10 and self.options["undo"]:
                self.undo()
            elif choice < 0.11 and self.options["pack"]:
                self.pack()
            elif choice < 0.16 and self.kind == "wander":
                self.close()
                self.open()
            else:
                self.work(self.change)
        self.close()
        self.open()
        while not self.work_once(self.read_all):
            pass
        self.close()
        self.write(what="end")

    def work_once(self, what):
        """Returns whether all could be read."""
        self.work(what)
        return len(self.reads) == len(self.cells + self.special + self.lengths)


def is_refusal(error):
    """Another pack is under way."""
    return isinstance(error, StorageError) and "pack" in str(error).lower()


def text(description):
    return description.decode() if isinstance(description, bytes) else description


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["kind"] == "setup":
        print(json.dumps(setup(given)))
    else:
        Client(given).run()
