"""Checks that one order of transactions explains all that the clients of the case `mixed` have seen and done.

Each commit has named what it had read, so in the order of transaction ids

- each change and each readCurrent must be of the revision that was current at its place: otherwise an update was lost;
- counters that are merged must be the sum of what was added;
- each undo must have found what it undid;
- each view must be the state after one transaction, which is never before that of the client's view before, nor before
  the client's own commits; where the client may expect it, nor before any commit that was acknowledged earlier;
- a commit that begins after another one was acknowledged comes after it;
- the tables have exactly these transactions, with these values.

    mixed_check.py      tests the checker itself
"""
import bisect
import copy

NEVER = 1 << 63


class History:
    def __init__(self, start, logs, rows, transactions, keep_history):
        """`start`: tid and values. `logs`: the records of each client. `rows`: (oid, tid, is deleted, value or None).
        `transactions`: tids, with history."""
        self.start, self.logs, self.rows = start, logs, rows
        self.transactions, self.keep_history = transactions, keep_history


class Broken(Exception):
    pass


class Order:
    def __init__(self):
        self.tids, self.values, self.changed = {}, {}, {}

    def add(self, tid, changes):
        self.changed[tid] = changes
        for oid, value in changes.items():
            self.tids.setdefault(oid, []).append(tid)
            self.values.setdefault(oid, []).append(value)

    def current(self, oid):
        """Tid and value; of an object that does not exist 0 and None."""
        return (self.tids[oid][-1], self.values[oid][-1]) if oid in self.tids else (0, None)

    def before(self, oid, tid):
        place = bisect.bisect_left(self.tids[oid], tid)
        return self.values[oid][place - 1] if place else None

    def at(self, oid, tid):
        """The value of a revision, and the tid of the next one."""
        tids = self.tids.get(oid, [])
        place = bisect.bisect_left(tids, tid)
        if place == len(tids) or tids[place] != tid:
            return None
        return self.values[oid][place], tids[place + 1] if place + 1 < len(tids) else NEVER


def require(condition, *message):
    if not condition:
        raise Broken(" ".join(str(one) for one in message))


def commits_of(history):
    """The commits by tid. One whose outcome was not told is found by its values."""
    found, unknown = {}, []
    for name, log in history.logs.items():
        for record in log:
            tid = record.get("tid")
            if tid is not None:
                require(tid not in found, name, "got", tid, "which another transaction has")
                found[tid] = (name, record)
            elif record.get("outcome") == "unknown":
                unknown.append((name, record))
    visible = {}
    seen = [(value, tid) for _, tid, _, value in history.rows if value is not None]
    for log in history.logs.values():
        for record in log:
            seen += [(value, tid) for tid, value in record.get("reads", {}).values()]
    for value, tid in seen if unknown else ():
        visible[value] = min(tid, visible.get(value, NEVER))
    for name, record in unknown:
        tids = {visible[value] for value in record["writes"].values() if value in visible}
        require(len(tids) <= 1, name, "is there in parts:", record["writes"])
        for tid in tids:
            found[tid] = (name, dict(record, tid=tid, ended=NEVER))
    return dict(sorted(found.items()))


def replay(history, commits):
    order = Order()
    order.add(history.start[0], history.start[1])
    for tid, (name, record) in commits.items():
        require(tid > history.start[0], tid, "is before the first transaction")
        changes = {}
        if record["what"] == "undo":
            undone = order.changed.get(record["undone"])
            require(undone is not None, name, "undid", record["undone"], "which is not there")
            for oid, value in undone.items():
                require(order.current(oid)[1] == value, name, "undid", record["undone"], "but", oid, "was changed since")
                changes[oid] = order.before(oid, record["undone"])
        elif record["what"] == "delete":
            changes[record["oid"]] = None
        else:
            for oid in [*record["writes"], *record["checks"]]:
                # New objects were not read.
                serial = record["reads"].get(oid, [0])[0]
                require(order.current(oid)[0] == serial, "lost update:", name, "has", oid, "of", serial, "for", tid,
                        "but it was", order.current(oid))
            changes.update(record["writes"])
            for oid, delta in record["deltas"].items():
                changes[oid] = order.current(oid)[1] + delta
        order.add(tid, changes)
    return order


def check_time(commits):
    """In the order of tids, none was acknowledged before an earlier one began to finish."""
    earliest = NEVER
    for tid, (name, record) in reversed(commits.items()):
        require(earliest >= record["finishing"], name, "has", tid, "but a later one was acknowledged before it began")
        earliest = min(earliest, record["ended"])


def check_views(history, commits, order):
    acknowledged = sorted((record["ended"], tid) for tid, (_, record) in commits.items())
    times, newest = [], []
    for ended, tid in acknowledged:
        times.append(ended)
        newest.append(max(tid, newest[-1] if newest else 0))
    count = 0
    for name, log in history.logs.items():
        least = history.start[0]
        for number, record in enumerate(log):
            if record["what"] == "transaction":
                count += 1
                where = f"{name}, line {number + 1}:"
                if record["strict"]:
                    place = bisect.bisect_left(times, record["begin"])
                    least = max(least, newest[place - 1] if place else 0)
                # Undos and deletions have a connection of their own.
                least = max(check_view(where, record, order, least), record["tid"] or 0)
    return count


def check_view(where, record, order, least):
    """Returns the earliest transaction that the view can be of."""
    end = NEVER
    for oid, (serial, value) in record["reads"].items():
        revision = order.at(oid, serial)
        require(revision is not None, where, "read", oid, "of", serial, "which is no revision of it")
        require(revision[0] == value, where, "read", oid, "of", serial, "as", value, "but it is", revision[0])
        least, end = max(least, serial), min(end, revision[1])
    require(least < end, where, "is not the state after", least, "or a later one; it ended with", end, record["reads"])
    at = record["snapshot"]
    if at is not None:
        require(at < end, where, "is said to be of", at, "but ended with", end)
        require(all(serial <= at for serial, _ in record["reads"].values()), where, "is said to be of", at, "and is later")
    return least


def check_tables(history, commits, order):
    packed = max((record["at"] for log in history.logs.values() for record in log if record["what"] == "pack"), default=0)
    unlinked = {record["oid"] for log in history.logs.values() for record in log if record["what"] == "unlink"}
    rows = {}
    for oid, tid, is_deleted, value in history.rows:
        if oid not in order.tids:
            continue
        found = order.at(oid, tid)
        require(found is not None, "the tables have", oid, "of", tid, "which nobody has committed")
        require(is_deleted == (found[0] is None), oid, "of", tid, "is deleted, or is not:", found)
        require(value is None or value == found[0], "the tables have", oid, "of", tid, "as", value, "not", found)
        rows.setdefault(oid, set()).add(tid)
    for oid, tids in order.tids.items():
        there = rows.get(oid, set())
        is_gone = order.current(oid)[1] is None
        if not is_gone and oid not in unlinked:
            require(tids[-1] in there, oid, "of", tids[-1], "was committed, and is not in the tables")
        if not history.keep_history:
            require(there <= ({tids[-1]} if not is_gone else set()), oid, "is there as of", there, "not", tids[-1])
            continue
        for tid, following in zip(tids, [*tids[1:], NEVER]):
            is_needed = following > packed and not (oid in unlinked or is_gone)
            require(tid in there or not is_needed, oid, "of", tid, "was committed, and is not in the tables")
    if history.keep_history:
        strange = history.transactions - set(commits) - {0}
        require(not {tid for tid in strange if tid > history.start[0]}, "nobody has committed", strange)
        missing = {tid for tid in commits if tid > packed} - history.transactions
        require(not missing, "committed, and not in the tables:", missing)


def check(history):
    """Returns a summary; raises `Broken`."""
    commits = commits_of(history)
    order = replay(history, commits)
    check_time(commits)
    views = check_views(history, commits, order)
    check_tables(history, commits, order)
    kinds = {}
    for log in history.logs.values():
        for record in log:
            what = record.get("outcome") or record["what"]
            if what == "refused":
                what = f"{record['call']} refused"
            kinds[what] = kinds.get(what, 0) + 1
    return f"{len(commits)} commits, {views} views: {', '.join(f'{k} {v}' for k, v in sorted(kinds.items()))}"


# The checker's own tests: a history that is right, and what must not pass.

def transaction(begin, reads, writes=None, tid=None, **more):
    record = {"what": "transaction", "begin": begin, "strict": False, "snapshot": None, "reads": reads, "checks": [],
              "writes": writes or {}, "deltas": {}, "outcome": "committed" if tid else "read", "tid": tid,
              "finishing": begin if tid else None, "ended": begin + 1 if tid else None}
    record.update(more)
    return record


def example():
    start = (10, {1: "a", 2: "b", 3: 0})
    logs = {
        "x": [transaction(1, {1: [10, "a"], 2: [10, "b"]}, {1: "a1"}, 20, checks=[2]),
              transaction(5, {1: [20, "a1"], 2: [30, "b1"]}, snapshot=30),
              {"what": "undo", "begin": 6, "finishing": 6, "ended": 7, "tid": 40, "undone": 30},
              transaction(20, {3: [50, 7]}, deltas={3: 1}, tid=60)],
        "y": [transaction(3, {1: [20, "a1"], 2: [10, "b"]}, {2: "b1"}, 30, strict=True),
              transaction(9, {3: [10, 0]}, deltas={3: 7}, tid=50)],
    }
    rows = [(1, 10, False, "a"), (2, 10, False, "b"), (3, 10, False, None), (1, 20, False, "a1"), (2, 30, False, "b1"),
            (2, 40, False, "b"), (3, 50, False, None), (3, 60, False, None)]
    return History(start, logs, rows, {0, 10, 20, 30, 40, 50, 60}, True)


def test():
    check(example())
    broken = {
        "a lost update": lambda h: h.logs["y"][0].update(reads={1: [20, "a1"], 2: [10, "b"]}, tid=15),
        "a wrong check": lambda h: h.logs["x"][0].update(checks=[1, 2], reads={1: [10, "a"], 2: [9, "b"]}),
        "a torn view": lambda h: h.logs["x"][1].update(reads={1: [10, "a"], 2: [30, "b1"]}),
        "a view that went back": lambda h: h.logs["x"][1].update(reads={1: [10, "a"], 2: [10, "b"]}, snapshot=None),
        "a stale view": lambda h: h.logs["y"].insert(0, transaction(2.5, {1: [10, "a"]}, strict=True)),
        "a view before its time": lambda h: h.logs["x"][1].update(snapshot=20),
        "a view after its time": lambda h: h.logs["x"][1].update(snapshot=40),
        "a wrong value": lambda h: h.logs["x"][1].update(reads={1: [20, "a2"]}),
        "an undo of what was changed": lambda h: h.logs["x"][2].update(undone=20, tid=25),
        "an undo too many": lambda h: h.logs["x"][2].update(undone=31),
        "a wrong sum": lambda h: h.logs["x"][3].update(reads={3: [50, 8]}),
        "time that went back": lambda h: h.logs["y"][1].update(finishing=100),
        "a commit that is missing": lambda h: h.rows.pop(3),
        "a transaction that is missing": lambda h: h.transactions.remove(30),
        "one that nobody has committed": lambda h: h.transactions.add(35),
        "another value in the tables": lambda h: h.rows.__setitem__(3, (1, 20, False, "a9")),
        "a refusal that is committed": lambda h: h.logs["x"][0].update(tid=None, outcome="conflict"),
        "half a commit": lambda h: h.logs["x"][0].update(tid=None, outcome="unknown", writes={1: "a1", 2: "b1"}),
    }
    for what, breaks in broken.items():
        history = copy.deepcopy(example())
        breaks(history)
        try:
            check(history)
        except Broken:
            continue
        raise AssertionError(f"not found: {what}")
    history = copy.deepcopy(example())
    history.logs["x"][0].update(tid=None, ended=None, outcome="unknown")
    check(history)


if __name__ == "__main__":
    test()
    print("the checker finds what it must")
