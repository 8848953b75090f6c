"""RelStorage and a client of our server over one database: each reads, changes and packs what the other has written.

    exchange.py DSN HOST PORT DIRECTORY [history-free]
"""
import contextlib
import sys
import time
from pathlib import Path

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from relstorage_agent import storage
from ZEO.ClientStorage import ClientStorage
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError
from ZODB.serialize import referencesf
from ZODB.utils import p64

ROUNDS = 6
BLOB = b"a blob " * 50_000


class Side:
    def __init__(self, name, opened):
        self.name, self.storage = name, opened
        self.db = ZODB.DB(opened)

    def run(self, work, *args):
        """Does `work` with the root, and commits. Conflicts are tried again, as applications do."""
        for attempt in range(5):
            transaction.begin()
            connection = self.db.open()
            try:
                result = work(connection.root(), *args)
                transaction.commit()
                return result
            except ConflictError:
                if attempt == 4:
                    raise
            finally:
                transaction.abort()
                connection.close()
        return None


def blob_of(side, number):
    return f"{side.name} {number} ".encode() + BLOB


def write(side, number):
    def work(root):
        tree = root.setdefault("tree", PersistentMapping())
        tree["blob"] = blob = tree.get("blob") or Blob()
        with blob.open("w") as file:
            file.write(blob_of(side, number))
        tree["value"] = PersistentMapping(number=number, by=side.name)
        root["count"] = root.get("count", 0) + 1

    side.run(work)


def check_read(side, writer, number):
    def work(root):
        value = root["tree"]["value"]
        assert (value["number"], value["by"]) == (number, writer.name), dict(value)
        with root["tree"]["blob"].open() as file:
            assert file.read() == blob_of(writer, number)

    side.run(work)


def make_garbage(side):
    """Returns the oids."""
    def add(root):
        root["gone"] = PersistentMapping(inner=PersistentMapping())

    def remove(root):
        garbage = [root["gone"]._p_oid, root["gone"]["inner"]._p_oid]
        del root["gone"]
        return garbage

    side.run(add)
    return side.run(remove)


def states(opened):
    """The object's state and serial, of all objects."""
    found, cookie = {}, None
    while True:
        oid, tid, data, cookie = opened.record_iternext(cookie)
        found[oid] = (tid, bytes(data))
        if cookie is None:
            return found


def transactions(opened):
    """Tid, metadata, and the records by oid, of all transactions."""
    return [(t.tid, t.status, t.user, t.description, dict(t.extension),
             sorted((r.oid, r.tid, bytes(r.data or b"")) for r in t)) for t in opened.iterator()]


def same(dsn, zeo, keep_history, is_packed):
    """A new storage of RelStorage answers as the server does. Returns the number of objects."""
    beside = storage(dsn, keep_history)
    try:
        zeo.storage.sync()
        expected = states(beside)
        assert states(zeo.storage) == expected
        assert transactions(zeo.storage) == transactions(beside)
        for oid, (tid, data) in expected.items():
            assert zeo.storage.loadSerial(oid, tid) == data
            entries = [[dict(tid=e["tid"], size=e["size"], user=e["user_name"], description=e["description"])
                        for e in one.history(oid, size=10)] for one in (beside, zeo.storage)]
            if keep_history and is_packed:
                # RelStorage leaves out what is in packed transactions, also if it is still there; FileStorage does not.
                assert entries[1][:len(entries[0])] == entries[0], entries
            else:
                assert entries[0] == entries[1], entries
                assert keep_history or len(entries[0]) == 1
        assert zeo.storage.supportsUndo() is keep_history
        assert hasattr(beside, "undo") is keep_history
        return len(expected)
    finally:
        beside.close()


def pack(side, garbage):
    time.sleep(0.01)
    side.db.pack(time.time() + 1)
    left = states(side.storage)
    assert not any(one in left for one in garbage), "garbage is still there"


def check_references(side):
    """All that can be reached from the root is there."""
    found, seen = states(side.storage), set()
    todo = [p64(0)]
    while todo:
        oid = todo.pop()
        if oid not in seen:
            seen.add(oid)
            todo.extend(referencesf(found[oid][1]))
    return len(found), len(seen)


def main(dsn, host, port, directory, keep_history):
    directory = Path(directory)
    relstorage = Side("RelStorage", storage(dsn, keep_history, blob_dir=str(directory / "relstorage-blobs")))
    zeo = Side("ZEO", ClientStorage((host, int(port)), wait_timeout=30, server_sync=True,
                                    blob_dir=str(directory / "zeo-blobs")))
    for number in range(ROUNDS):
        writer, reader = (relstorage, zeo) if number % 2 else (zeo, relstorage)
        write(writer, number)
        check_read(reader, writer, number)
        check_read(writer, writer, number)
    print(same(dsn, zeo, keep_history, False), "objects are the same on both sides,", end=" ")
    for packer, other in ((zeo, relstorage), (relstorage, zeo)):
        garbage = make_garbage(packer)
        write(other, number + 1)
        pack(packer, garbage)
        check_read(other, other, number + 1)
        check_read(packer, other, number + 1)
        count, reachable = check_references(packer)
        assert count == reachable, (count, reachable)
        same(dsn, zeo, keep_history, True)
    print(same(dsn, zeo, keep_history, True), "after a pack by each")
    assert zeo.run(lambda root: root["count"]) == ROUNDS + 2
    with contextlib.closing(FileStorage(str(directory / "copy.fs"))) as copy:
        copy.copyTransactionsFrom(zeo.storage)
        assert states(copy) == states(zeo.storage)
    relstorage.db.close()
    zeo.db.close()


if __name__ == "__main__":
    main(*sys.argv[1:5], "history-free" not in sys.argv[5:])
