"""Commands of `agent.py` that go on after errors: commits and reads beside a database or a network that fails.

Each ends soon after a file appears, and only after it has succeeded once more. Runs on Python 2.7 and 3.
"""
import os
import time

from agent_values import from_hex, make_transaction, record, record_value, text, to_hex

# A client that has no success for this time is stuck.
PATIENCE = 150


class Steady(object):
    """Success and failure over time."""

    def __init__(self, end):
        self.end = end
        self.last = time.time()
        self.successes = self.longest = 0
        self.errors = {}

    def is_over(self):
        """Once there was a success after the end has come."""
        return self.successes > 0 and os.path.exists(self.end) and self.last > os.stat(self.end).st_mtime

    def succeeded(self):
        now = time.time()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        self.successes += 1

    def failed(self, error, where=""):
        name = "%s %s" % (type(error).__name__, where) if where else type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1
        if time.time() > self.last + PATIENCE:
            raise RuntimeError("no success for %s s, the last error: %s: %s" % (PATIENCE, name, text(str(error))))
        time.sleep(0.05)

    def result(self, **more):
        return dict(more, errors=self.errors, longest=round(self.longest, 1))


class SteadyCommands(object):
    """A part of the agent; another one has `storages`."""

    def steady_commits(self, h, oids, serial, end):
        """Gives all its objects the values 1, 2, 3, ..., one transaction for each. After an error it looks.

        Nobody else changes them: what is found is the last value that was acknowledged, or the next one if the finish
        of that one has failed. `doubtful`: such a value was not seen, and no later commit has shown that it is not there.
        """
        storage = self.storages[h]
        steady = Steady(end)
        serial = from_hex(serial)
        value = commits = found_there = 0
        doubtful = False
        while not steady.is_over():
            txn = make_transaction("agent", "value %d" % (value + 1), None)
            where, tids = "before the finish", []
            try:
                storage.tpc_begin(txn)
                for number, oid in enumerate(oids):
                    storage.store(from_hex(oid), serial, record(value + 1, 100 * number), "", txn)
                storage.tpc_vote(txn)
                where = "in the finish"
                storage.tpc_finish(txn, tids.append)
            except Exception as error:
                steady.failed(error, where)
                doubtful = doubtful or where == "in the finish"
                try:
                    storage.tpc_abort(txn)
                except Exception as again:
                    steady.failed(again, "in the abort")
                found, serial = self.find_again(storage, oids, steady)
                if found != value and not (doubtful and found == value + 1):
                    raise RuntimeError("%d was acknowledged and there is %d, after %r %s" % (
                        value, found, error, where))
                if found != value:
                    found_there += 1
                    doubtful = False
                value = found
                continue
            serial = tids[0]
            value += 1
            commits += 1
            doubtful = False
            steady.succeeded()
        return steady.result(value=value, doubtful=doubtful, commits=commits, found=found_there)

    def find_again(self, storage, oids, steady):
        """The value of all objects, which must be one, and its serial."""
        while True:
            try:
                found = set()
                for oid in oids:
                    data, tid = storage.load(from_hex(oid), "")[:2]
                    found.add((record_value(data), tid))
            except Exception as error:
                steady.failed(error, "in a look")
                continue
            if len(found) == 1:
                return found.pop()
            # The cache may have one of them as it was before the connection was lost.
            steady.failed(RuntimeError("two states: %s" % sorted((v, to_hex(t)) for v, t in found)), "in a look")

    def steady_reads(self, h, groups, end):
        """Reads the objects of each group as of one moment: all have one value, and none goes back."""
        storage = self.storages[h]
        steady = Steady(end)
        reads = unknown = 0
        seen = [0] * len(groups)
        while not steady.is_over():
            for number, oids in enumerate(groups):
                try:
                    last = storage.lastTransaction()
                    # While a client of ZEO 4 verifies its whole cache, it has the new last transaction already and the
                    # old objects still, with Python's server as well.
                    if not storage.is_connected():
                        raise RuntimeError("not connected")
                    before = from_hex("%016x" % (int(to_hex(last), 16) + 1))
                    found = [storage.loadBefore(from_hex(oid), before) for oid in oids]
                except Exception as error:
                    steady.failed(error)
                    continue
                if None in found:
                    # Without history a state that was replaced is a conflict.
                    unknown += 1
                    continue
                values = [record_value(data) for data, _, _ in found]
                if len(set(values)) != 1 or values[0] < seen[number]:
                    raise RuntimeError("after %d: %s as of %s, with the serials %s" % (
                        seen[number], values, to_hex(last), [to_hex(tid) for _, tid, _ in found]))
                seen[number] = values[0]
                reads += 1
                steady.succeeded()
        return steady.result(reads=reads, unknown=unknown)

    def steady_tree(self, h, slots, end, known, number):
        """Replaces the nodes of a tree, which leaves garbage, and moves nodes.

        `known`: the numbers that each slot may have (None: it may be free). Answers the same, and the last number: it begins
        behind `number`.
        """
        from persistent.mapping import PersistentMapping
        import random
        dice = random.Random(len(end))
        db, conn, tm = self.dbs[h]
        steady = Steady(end)
        commits = 0
        while not steady.is_over():
            number += 1
            slot = "slot%d" % dice.randrange(slots)
            where = "before the commit"
            try:
                tm.begin()
                tree = conn.root()["tree"]
                node = PersistentMapping(number=number)
                node["below"] = [PersistentMapping(number=number, filler="x" * dice.choice((10, 3000))) for _ in range(5)]
                # A node of the former tree lives on below the new one.
                node["kept"] = tree[slot]["below"][0] if slot in tree else None
                tree[slot] = node
                where = "in the commit"
                tm.commit()
            except Exception as error:
                tm.abort()
                steady.failed(error, where)
                if where == "in the commit":
                    known.setdefault(slot, [None]).append(number)
                continue
            known[slot] = [number]
            commits += 1
            steady.succeeded()
        return steady.result(commits=commits, known=known, number=number)

    def write_modern_records(self):
        """What a Python 3 client writes of itself. (Otherwise the agent writes what Python 2 reads, and no pack.)"""
        import ZODB.serialize
        ZODB.serialize._protocol = 3

    def plant_tree(self, h):
        from persistent.mapping import PersistentMapping
        _, conn, tm = self.dbs[h]
        tm.begin()
        conn.root()["tree"] = PersistentMapping()
        tm.commit()

    def walk(self, h, known):
        """Follows all references from the root; the number of objects. Each slot of the tree is as it must be."""
        from ZODB.serialize import referencesf
        storage = self.storages[h]
        seen, left = set(), [b"\0" * 8]
        while left:
            oid = left.pop()
            if oid in seen:
                continue
            seen.add(oid)
            data = storage.load(oid, "")[0]
            left.extend(referencesf(data))
        _, conn, tm = self.dbs[h]
        tm.begin()
        conn.sync()
        tree = conn.root()["tree"]
        for slot, numbers in known.items():
            node = tree.get(slot)
            found = node and node["number"]
            if found not in numbers:
                raise RuntimeError("%s has %s, and not one of %s" % (slot, found, numbers))
            if node is None:
                continue
            if [below["number"] for below in node["below"]] != [found] * 5:
                raise RuntimeError("what is below %s is of another commit" % slot)
            if node["kept"] is not None and not node["kept"]["number"]:
                raise RuntimeError("what %s has kept is not whole" % slot)
        return len(seen)
