"""The servers with `<zrs>`, and whether two of them have the same."""
import json
import subprocess
import time
from pathlib import Path

from harness import generations
from harness.server import Program

HERE = Path(__file__).resolve().parent
FILESTORAGE = HERE.parent / "clients" / "filestorage.py"


class Peer:
    """`client`: the generation of clients that work with it. `packs`: whether it can pack what they write."""

    def __init__(self, environment, client, packs):
        self.environment, self.client, self.packs = environment, client, packs

    def program(self):
        if self.environment is None:
            return Program.ours()
        python = generations.VENVS / self.environment / "bin" / "python"
        return Program([str(python), str(HERE / "python_runzeo.py")], True, f"zc.zrs of {self.environment}")

    def missing(self):
        return (self.environment and not (generations.VENVS / self.environment / "complete").exists()
                or generations.BY_NAME[self.client].missing())


PYTHONS = {
    "ours": Peer(None, "zeo6-py311", True),
    "py27": Peer("zrs-py27", "zeo4-py27", True),
    "py38": Peer("zrs-py38", "zeo5-py38", True),
    "py311": Peer("zrs-py311", "zeo6-py311", True),
}
AS_PRIMARY = ["ours", "py27", "py38", "py311"]
AS_SECONDARY = ["ours", "py27", "py38"]


def section(replicate_to=None, replicate_from=None, keep_alive=None):
    """A file with blobs, replicated or not. (Nothing refers to the objects of the tests.)"""
    file = "<filestorage 1>\n  path Data.fs\n  blob-dir blobs\n  pack-gc false\n</filestorage>"
    if not replicate_to and not replicate_from:
        return file
    keys = [f"  {key} {address[0]}:{address[1]}"
            for key, address in (("replicate-to", replicate_to), ("replicate-from", replicate_from)) if address]
    if keep_alive is not None:
        keys.append(f"  keep-alive-delay {keep_alive}")
    return "\n".join(["%import zc.zrs", "<zrs 1>", *keys, file.replace(" 1>", ">"), "</zrs>"])


def wait_for(pool, name, server, tid, timeout=90):
    """Until a client of the secondary sees this transaction as the last one."""
    agent = pool.get(generations.BY_NAME[PYTHONS[name].client])
    agent.open(h="wait", addr=list(server.address), read_only=True, watch=False)
    deadline = time.time() + timeout
    while agent.last_transaction(h="wait") != tid:
        if time.time() > deadline:
            raise AssertionError(f"after {timeout} s the secondary has {agent.last_transaction(h='wait')}, not {tid}:\n"
                                 f"{server.log_text()[-2000:]}")
        time.sleep(0.05)
    agent.close(h="wait")


def python_for(path):
    """One that opens the file: Python 3 does not open those of Python 2."""
    environment = "zeo4-py27" if path.read_bytes()[:4] == b"FS21" else "zeo6-py311"
    return str(generations.VENVS / environment / "bin" / "python")


def lines(command, path, *more):
    done = subprocess.run([python_for(path), str(FILESTORAGE), command, str(path), *map(str, more)], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def without_links(transaction):
    """Where the data of a record is may differ: a pack may have moved it."""
    records = [record[:3] for record in transaction["records"]]
    return {**transaction, "records": records, "status": None}


def compare(first, second, is_packed):
    """Both have the same transactions; of those before a pack the primary has fewer, with fewer records."""
    has, copied = ({txn["tid"]: without_links(txn) for txn in lines("dump", directory / "Data.fs")}
                   for directory in (first, second))
    for tid, txn in has.items():
        other = copied.get(tid)
        if other is None:
            raise AssertionError(f"the secondary lacks {tid}")
        if is_packed:
            # Python's pack also orders them, and leaves out those that a later one of the transaction replaces.
            kept = sorted(txn["records"])
            txn = {**txn, "records": kept}
            other = {**other, "records": [one for one in kept if one in other["records"]]}
        if other != txn:
            raise AssertionError(f"{tid} differs: {txn} and {other}")
    if set(copied) != set(has) and not is_packed:
        raise AssertionError(f"the secondary has more: {sorted(set(copied) - set(has))}")
    blobs, copies = ({(oid, tid): what for oid, tid, *what in lines("blobs", directory / "Data.fs", directory / "blobs")}
                     for directory in (first, second))
    wrong = [key for key, what in blobs.items() if copies.get(key) != what]
    if wrong:
        raise AssertionError(f"blobs differ: {[(key, blobs[key], copies.get(key)) for key in wrong[:5]]}")
    return f"{len(has)} of {len(copied)} transactions and {len(blobs)} blobs are the same"
