"""Judges what clients have seen and done beside a cluster, by the files of its servers at the end.

All transactions that were ever in a file are a tree: the file of the primary is its trunk, and each file of lost
transactions a branch, which grows where its server and the new primary had parted. Then

- what was answered is in the trunk, or, without synchronous replicas, in a branch, with the objects that it has changed;
- what a client was told to have failed is nowhere; what has no outcome is there as a whole, once, or nowhere;
- where branches part, at most one goes on without the mark of a promotion, and what was answered was answered by the
  server whose promotion was the last one before it: no two servers have answered on one timeline;
- the primary knows the promotions of the trunk, in their order, and all servers know the same;
- the servers' logs list what is in the files of lost transactions;
- what a transaction has changed it had read as it was before: no update is lost;
- what a client reads in one transaction is the state at some place of the tree, which is never before what it has seen,
  except that a client whose place was taken back begins anew.
"""
import json
import re
from collections import Counter
from itertools import groupby

from agreement import content, transactions

MARK = re.compile(r"runzeo: (?P<name>\w+) was promoted$")
# The second is missing if the server was killed in between.
KEPT = re.compile(r" (?P<count>\d+) transactions after (?P<common>[0-9a-f]{16}) [a-z]+ taken back\. They are kept in .{0,200}?"
                  r"(?P<file>Data\.fs\.lost-[0-9a-f.]+)$", re.MULTILINE)
LISTED = re.compile(r"does not have the last (?P<count>\d+) transactions, (?P<first>[0-9a-f]{16}) of \S+ to "
                    r"(?P<last>[0-9a-f]{16}) of \S+ They .{1,200}?(?P<file>Data\.fs\.lost-[0-9a-f.]+),")
# The address of a server, as clients of all versions write it.
PORT = re.compile(r", (\d+)\)$")


class Broken(Exception):
    pass


def require(condition, *message):
    if not condition:
        raise Broken(" ".join(str(one) for one in message))


def log_of(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    require(found and found.pop()["outcome"] == "end", path.name, "has no end")
    for record in found:
        record["reads"] = {f"{int(oid):016x}": tuple(read) for oid, read in record["reads"].items()}
        record["writes"] = [f"{oid:016x}" for oid in record["writes"]]
    return found


def longest_pause(log):
    """Seconds without success of a client."""
    times = [record["ended"] for record in log if record["outcome"] in ("committed", "read")]
    return max((after - before for before, after in zip(times, times[1:])), default=0)


class Node:
    def __init__(self, tid, parent, transaction, is_trunk):
        self.tid, self.parent, self.is_trunk = tid, parent, is_trunk
        self.text = transaction["description"] if transaction else ""
        self.oids = {record[0] for record in transaction["records"]} if transaction else set()
        self.content = content(transaction) if transaction else None
        self.depth = parent.depth + 1 if parent else 0
        mark = MARK.match(self.text)
        # The server whose timeline it is in; None: the first one's.
        self.by = mark["name"] if mark else parent and parent.by
        self.children = []
        if parent:
            parent.children.append(self)

    def is_mark(self):
        return bool(MARK.match(self.text))

    def before(self, other):
        """Whether the other one is the same, or grows out of this."""
        while other.depth > self.depth:
            other = other.parent
        return other is self


class Tree:
    def __init__(self, cluster, primary):
        self.nodes = {}
        self.root = Node("0" * 16, None, None, True)
        self.grow(self.root, transactions(primary.directory / "Data.fs"), True)
        # Packs have removed some of what was before, and are not the same everywhere.
        begin = max((node.tid for node in self.nodes.values() if node.text.startswith("setup ")), default=self.root.tid)
        left = {}
        for member in cluster:
            parted = parted_at(member)
            for path in member.directory.glob("Data.fs.lost-*"):
                if not re.fullmatch(r"Data\.fs\.lost-[0-9a-f]{16}(\.\d+)?", path.name):
                    continue
                found = transactions(path)
                require(path.name in parted, member.name, "does not list", path.name)
                common, what = parted[path.name]
                there = [len(found), min(found), max(found)]
                require(what == there[:len(what)], member.name, "lists", what, "and in", path.name, "are", there)
                left[path] = max(common, begin), {tid: txn for tid, txn in found.items() if tid > begin}
        self.lost_files = len(left)
        while left:
            # What parted from a branch grows behind it.
            ready = [path for path, (common, _) in left.items() if common in self.nodes or common == self.root.tid]
            require(ready, "these begin nowhere:", sorted(map(str, left)))
            for path in ready:
                common, found = left.pop(path)
                self.grow(self.nodes.get(common, self.root), found, False)

    def grow(self, node, found, is_trunk):
        for tid, transaction in found.items():
            known = self.nodes.get(tid)
            if known is None:
                known = self.nodes[tid] = Node(tid, node, transaction, is_trunk)
            require(known.content == content(transaction), tid, "is there twice:", known.content, content(transaction))
            node = known

    def place_of(self, oid, node):
        """The place of the revision of an object that is current at this one."""
        while node.parent and oid not in node.oids:
            node = node.parent
        return node

    def explained(self, reads):
        """The last places of a view, with which it begins, or None: no place explains it."""
        nodes = [self.nodes.get(tid) for tid, _ in reads.values()]
        if None in nodes:
            return None
        latest = max(nodes, key=lambda node: node.depth)
        for oid, (tid, _) in reads.items():
            if self.place_of(oid, latest).tid != tid:
                return None
        return latest

    def reach(self, first, oids):
        """All places from `first` on with the same revisions of these."""
        found, left = [], [first]
        while left:
            node = left.pop()
            found.append(node)
            left += [child for child in node.children if not child.oids & oids]
        return found


def parted_at(member):
    """By the file of lost transactions: the last one that the new primary had as well, and what is listed, their number and
    mostly also the first and the last one."""
    log = member.server.log_text()
    found = {match["file"]: (match["common"], [int(match["count"])]) for match in KEPT.finditer(log)}
    for match in LISTED.finditer(log):
        found[match["file"]][1][:] = int(match["count"]), match["first"], match["last"]
    return found


def check(cluster, primary, logs, is_synchronous):
    """Returns a summary; raises `Broken`."""
    tree = Tree(cluster, primary)
    texts = {}
    for node in tree.nodes.values():
        require(node.is_mark() or node.text not in texts or not node.text, node.tid, "and", texts.get(node.text),
                "are both", node.text)
        texts[node.text] = node.tid
    counts = Counter()
    answered = check_commits(tree, logs, texts, is_synchronous, counts)
    check_parting(tree, answered)
    check_answerers(tree, cluster, logs, counts)
    check_timelines(tree, cluster, primary)
    for name, log in logs.items():
        check_views(tree, name, log, counts)
    trunk = sum(node.is_trunk for node in tree.nodes.values())
    marks = sum(node.is_mark() for node in tree.nodes.values())
    return (f"{trunk} transactions and {len(tree.nodes) - trunk} lost in {tree.lost_files} files, {marks} promotions; "
            + ", ".join(f"{what} {count}" for what, count in sorted(counts.items())))


def check_commits(tree, logs, texts, is_synchronous, counts):
    """Returns the tids of what was answered."""
    answered = set()
    for name, log in logs.items():
        for number, record in enumerate(log):
            counts[record["outcome"]] += 1
            if not record["writes"]:
                continue
            text, where = f"{name} {record['number']}", f"{name}, line {number + 1}:"
            tid = texts.get(text)
            if record["outcome"] == "committed":
                require(tid is not None, where, record["tid"], "was answered and is nowhere")
                require(tid == record["tid"], where, "was answered", record["tid"], "and is", tid)
                node = tree.nodes[tid]
                require(node.is_trunk or not is_synchronous, where, tid, "was answered and is lost")
                counts["answered and lost"] += not node.is_trunk
                answered.add(tid)
            elif record["outcome"] != "unknown":
                require(tid is None, where, record["error"], "is there, as", tid)
            if tid is not None:
                node = tree.nodes[tid]
                require(node.oids == set(record["writes"]), where, tid, "has", node.oids, "not", record["writes"])
                for oid in record["writes"]:
                    found = tree.place_of(oid, node.parent).tid
                    require(found == record["reads"][oid][0], where, "lost update:", tid, "of", oid, "has read",
                            record["reads"][oid], "and there was", found)
    return answered


def check_parting(tree, answered):
    for node in [tree.root, *tree.nodes.values()]:
        unmarked = [child for child in node.children if not child.is_mark()]
        # With a client that was answered.
        owned = [child.tid for child in unmarked if has_answer(child, answered)]
        require(len(owned) < 2, "two servers have answered on one timeline, behind", node.tid, owned)


def check_answerers(tree, cluster, logs, counts):
    """Only the server whose promotion began a timeline has answered on it."""
    servers = {str(port): member.name for member in cluster for port in member.address[1:]}
    first = next(iter(cluster)).name
    for name, log in logs.items():
        for number, record in enumerate(log):
            if record["outcome"] == "committed" and record["server"]:
                server = servers[PORT.search(record["server"])[1]]
                owner = tree.nodes[record["tid"]].by or first
                require(server == owner, f"{name}, line {number + 1}:", record["tid"], "was answered by", server,
                        "in the timeline of", owner)
                counts["by the timeline's server"] += 1


def check_timelines(tree, cluster, primary):
    known = primary.timelines()
    for member in cluster:
        require(member.timelines() == known, member.name, "knows", member.timelines(), "and", primary.name, known)
    # A promotion can be known to a server that has not got its mark when it is promoted itself. One that was interrupted can
    # have two marks; so promotions of one server in a row count as one.
    left = (by for by, _ in groupby(by for _, _, by in known))
    names = [by for by, _ in groupby(node.by for node in tree.nodes.values() if node.is_trunk and node.is_mark())]
    require(all(name in left for name in names), "promotions of", names, "are in the file, and not all in", known)
    require(not names or names[-1] == primary.name, names[-1:], "was promoted last, and the primary is", primary.name)


def has_answer(node, answered):
    """Whether anything was answered before the next promotion."""
    left = [node]
    while left:
        one = left.pop()
        if one.tid in answered:
            return True
        left += [child for child in one.children if not child.is_mark()]
    return False


def check_views(tree, name, log, counts):
    seen = [tree.root]
    for number, record in enumerate(log):
        reads = record["reads"]
        if not reads:
            continue
        where = f"{name}, line {number + 1}:"
        for oid, (tid, value) in reads.items():
            node = tree.nodes.get(tid)
            require(node is not None and oid in node.oids, where, "read", oid, "of", tid, "which is no revision of it")
            require(node.text == value, where, "read", oid, "of", tid, "as", value, "but it is", node.text)
        is_lost = any(not tree.nodes[tid].is_trunk for tid, _ in reads.values())
        counts["views of lost ones"] += is_lost
        was_lost = all(not node.is_trunk for node in seen)
        latest = tree.explained(reads)
        if latest is None and (is_lost or was_lost):
            # Its server took them back while it read.
            seen = [tree.root]
            continue
        require(latest is not None, where, "is the state at no place:", reads)
        places = tree.reach(latest, set(reads))
        if not was_lost:
            kept = [place for place in places
                    if any(not place.before(one) or place is one for one in seen)]
            require(kept or is_lost, where, "is before what it had seen:", latest.tid, seen[0].tid, record)
            places = kept or places
        if record["tid"]:
            places = [tree.nodes[record["tid"]]]
        seen = places
