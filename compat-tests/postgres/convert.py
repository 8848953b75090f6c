"""Copies of a Data.fs into databases and out of them, by `zeofs copy` and by RelStorage's `zodbconvert`."""
import subprocess
from pathlib import Path

from harness import generations
from harness.server import Program, Server, clean_environment

BIN = generations.VENVS / "relstorage-py311" / "bin"
TABLES = ["transaction order by tid", "object_state order by zoid, tid", "current_object order by zoid",
          "commit_row_lock", "object_ref order by zoid", "object_refs_added order by tid", "pack_object order by zoid"]
# Large objects have other numbers.
BLOBS = "select zoid, tid, chunk_num, md5(lo_get(chunk)) from blob_chunk order by zoid, tid"
# Not their names, which RelStorage gives to some.
KEYS = "select conrelid::regclass::text, convalidated, pg_get_constraintdef(oid) from pg_constraint where contype = 'f' order by 1, 3"

MAKE = r"""
import random, sys, transaction, ZODB, ZODB.blob
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
random.seed(int(sys.argv[2]))
storage = FileStorage(sys.argv[1], create=True, blob_dir=sys.argv[1] + ".blobs")
db = ZODB.DB(storage)
root = db.open().root()
for number in range(300):
    key = "k%d" % random.randrange(40)
    what = random.choice(["new", "new", "change", "blob", "undo", "empty"])
    if what == "undo":
        entries = db.undoLog(0, 5)
        if not entries:
            continue
        db.undo(random.choice(entries)["id"])
    elif what == "blob":
        root[key] = ZODB.blob.Blob(random.randbytes(random.choice([0, 10, 5000, 300000])))
    elif what == "change" and isinstance(root.get(key), PersistentMapping):
        root[key]["text"] = "x" * random.randrange(20000)
    elif what == "new":
        root[key] = PersistentMapping({"text": random.randbytes(random.randrange(3000))})
    else:
        root["number"] = number
    txn = transaction.get()
    txn.note("transaction %d \u20ac" % number)
    txn.setUser("user")
    if number % 3 == 0:
        txn.setExtendedInfo("answer", {"number": number})
    try:
        transaction.commit()
    except Exception:
        transaction.abort()
db.close()
"""

# Prints what a file has: transactions, and records by object.
LIST = r"""
import hashlib, sys
from ZODB.FileStorage import FileStorage
from ZODB.blob import is_blob_record
storage = FileStorage(sys.argv[1], read_only=True, blob_dir=sys.argv[1] + ".blobs")
for txn in storage.iterator():
    print(txn.tid.hex(), txn.status, txn.user, txn.description, txn.extension)
    last = {}
    for record in txn:
        last[record.oid] = record
    for oid, record in sorted(last.items()):
        blob = ""
        if record.data and is_blob_record(record.data):
            with open(storage.loadBlob(oid, record.tid), "rb") as file:
                blob = hashlib.md5(file.read()).hexdigest()
        print(" ", oid.hex(), record.tid.hex(), record.data and hashlib.md5(record.data).hexdigest(), blob)
"""


def python(script, *arguments):
    done = subprocess.run([str(BIN / "python"), "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, check=True,
                          env=clean_environment())
    return done.stdout.decode()


def relstorage(name, dsn, blob_dir):
    return f"<relstorage {name}>\n<postgresql>\ndsn {dsn}\n</postgresql>\nblob-dir {blob_dir}\nshared-blob-dir false\n" \
           f"</relstorage>\n"


def filestorage(name, path):
    return f"<filestorage {name}>\npath {path}\nblob-dir {path}.blobs\n</filestorage>\n"


def theirs(top, source, destination):
    config = top / "zodbconvert.conf"
    config.write_text("%import relstorage\n" + source + destination)
    subprocess.run([str(BIN / "zodbconvert"), str(config)], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, env=clean_environment())


def ours(top, sections, source, destination):
    config = top / "zeofs.conf"
    config.write_text("%import relstorage\n<zeo>\naddress 127.0.0.1:1\n</zeo>\n" + sections)
    zeofs = Path(Program.ours().command[0]).with_name("zeofs")
    done = subprocess.run([str(zeofs), "copy", "-C", str(config), source, destination], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"zeofs copy: {done.stdout.decode()}")
    print(f"  {done.stdout.decode().strip()}", flush=True)


def tables(database, name):
    found = {table: database.sql(f"copy (select * from {table}) to stdout", name) for table in TABLES}
    found["blobs"] = database.sql(BLOBS, name)
    found["foreign keys"] = database.sql(KEYS, name)
    return found


def compare(what, a, b, failures):
    if a != b:
        lines = [f"{x[:200]!r} and {y[:200]!r}" for x, y in zip(a.splitlines(), b.splitlines()) if x != y]
        failures.append(f"{what}: {len(a)} and {len(b)} bytes; {lines[:1]}")


def run(top, database, clients, pool, failures):
    """Every way there and back; `clients`: one of them reads through a server of ours."""
    source = top / "source.fs"
    python(MAKE, source, 7)
    wanted = python(LIST, source)
    print(f"  {len(wanted.splitlines())} lines about transactions and records", flush=True)
    dsns = {name: database.create(name) for name in ("convert_theirs", "convert_ours")}
    theirs(top, filestorage("source", source), relstorage("destination", dsns["convert_theirs"], top / "cache1"))
    sections = filestorage("file", source) + relstorage("db", dsns["convert_ours"], top / "cache2")
    ours(top, sections, "file", "db")
    by_them, by_us = tables(database, "convert_theirs"), tables(database, "convert_ours")
    for table, rows in by_them.items():
        compare(f"the table {table} of zodbconvert and of zeofs copy", rows, by_us[table], failures)
    if not by_us["blobs"]:
        failures.append("there are no blobs")
    # Each reads what the other one has written.
    theirs(top, relstorage("source", dsns["convert_ours"], top / "cache3"),
           filestorage("destination", top / "theirs.fs"))
    compare("what zodbconvert reads of our copy", wanted, python(LIST, top / "theirs.fs"), failures)
    sections = filestorage("file", top / "ours.fs") + relstorage("db", dsns["convert_theirs"], top / "cache4")
    ours(top, sections, "db", "file")
    compare("what zeofs copy reads of their copy", wanted, python(LIST, top / "ours.fs"), failures)
    fstest = subprocess.run([str(BIN / "python"), "-m", "ZODB.scripts.fstest", str(top / "ours.fs")],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if fstest.returncode or fstest.stdout:
        failures.append(f"fstest: {fstest.stdout.decode()}")
    # Copied by RelStorage, and served by us.
    server = Server(Program.ours(), top / "server", sections="%import relstorage\n" +
                    relstorage("1", dsns["convert_theirs"], top / "cache5")).start()
    try:
        agent = pool.get(clients[-1])
        agent.open(h="c", addr=list(server.address), watch=False)
        last = max(line.split()[0] for line in wanted.splitlines() if not line.startswith(" "))
        found = agent.last_transaction(h="c")
        if found != last:
            failures.append(f"a server says that the last transaction is {found}, and it is {last}")
    finally:
        if server.stop():
            failures.append("the server has ended with an error")
