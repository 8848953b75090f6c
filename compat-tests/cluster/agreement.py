"""Whether the files of a cluster's servers agree, as Python's FileStorage reads them."""
import json
import subprocess
from pathlib import Path

from harness import generations

FILESTORAGE = Path(__file__).resolve().parent.parent / "clients" / "filestorage.py"


def transactions(path):
    """By tid, in the order of the file."""
    environment = "zeo4-py27" if path.read_bytes()[:4] == b"FS21" else "zeo6-py311"
    python = generations.VENVS / environment / "bin" / "python"
    done = subprocess.run([str(python), str(FILESTORAGE), "dump", str(path)], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=300)
    return {txn["tid"]: txn for txn in map(json.loads, done.stdout.splitlines())}


def content(transaction):
    """Where the data of a record is may differ, and what a pack has left is marked as packed."""
    records = sorted(record[:3] for record in transaction["records"])
    return {**transaction, "records": records, "status": None}


def compare_all(cluster):
    """All servers have the same transactions and records."""
    files = {member.name: transactions(member.directory / "Data.fs") for member in cluster}
    (first, base), *others = files.items()
    for name, other in others:
        same("transactions", first, list(base), name, list(other))
        for tid, txn in base.items():
            same(f"transaction {tid}", first, content(txn), name, content(other[tid]))
    return f"{len(files)} files with the same {len(base)} transactions"


def same(what, first, one, name, other):
    if one != other:
        differing = [pair for pair in zip(one, other) if pair[0] != pair[1]][:3] if isinstance(one, list) else ()
        raise AssertionError(f"{what}: {first} has {str(one)[:500]} and {name} has {str(other)[:500]} {differing}")
