"""The client's side of scripts/demo: an ordinary ZODB application.

    demo-client.py write|read|inspect HOST:PORT Data.fs
"""
import sys
import time
from importlib.metadata import version

import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from ZEO import ClientStorage
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

COMMITS = 100


def connect(address):
    host, port = address.rsplit(":", 1)
    return ZODB.DB(ClientStorage.ClientStorage((host, int(port)), wait_timeout=10))


def show(root):
    guests = root["guests"]
    print(f"  {len(guests)} guests, the last is {guests[max(guests)]!r}")
    if len(guests) != COMMITS:
        sys.exit(f"expected {COMMITS} guests")


def write(address):
    print(f"  client: ZEO {version('ZEO')}, Python {sys.version.split()[0]}")
    writer, reader = connect(address), connect(address)
    with writer.transaction() as connection:
        connection.root()["guests"] = OOBTree()
    seen = reader.open(transaction.TransactionManager())
    started = time.perf_counter()
    for number in range(COMMITS):
        with writer.transaction(f"guest {number}") as connection:
            connection.root()["guests"][number] = f"guest number {number}"
    took = time.perf_counter() - started
    print(f"  {COMMITS} transactions committed and synced, {took / COMMITS * 1000:.1f} ms each")
    deadline = time.time() + 5
    while len(seen.root().get("guests", ())) < COMMITS and time.time() < deadline:
        seen.transaction_manager.begin()
    print("  the other client, told by invalidations:")
    show(seen.root())

    # Two that change the same object: the second is told.
    seen.root()["winner"] = "reader"
    with writer.transaction() as connection:
        connection.root()["winner"] = "writer"
    try:
        seen.transaction_manager.commit()
    except ConflictError as error:
        print(f"  a conflict is a {type(error).__name__}, and nothing was lost")
        seen.transaction_manager.abort()
    else:
        sys.exit("expected a conflict")
    seen.close()
    writer.close()
    reader.close()


def read(address):
    db = connect(address)
    with db.transaction() as connection:
        show(connection.root())
    db.close()


def inspect(path):
    storage = FileStorage(path, read_only=True)
    transactions = list(storage.iterator())
    print(f"  {len(transactions)} transactions, {len(storage)} objects, {storage.getSize()} bytes")
    print(f"  the last but one says {transactions[-2].description.decode()!r}")
    db = ZODB.DB(storage)
    with db.transaction() as connection:
        show(connection.root())
    db.close()


if __name__ == "__main__":
    command, address, path = sys.argv[1:]
    {"write": write, "read": read}[command](address) if command != "inspect" else inspect(path)
