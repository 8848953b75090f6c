"""Applies changes to BTrees, and prints what is in them. Python 2.7 and 3.

    btrees_driver.py PORT create NAMES           root['rust'][name], root['python'][name]: an empty tree of each class
    btrees_driver.py PORT apply FILE WHOSE SEED  the lines of FILE: ["name", "+", key, value], ["name", "-", key],
                                                 ["commit"]
    btrees_driver.py PORT dump                   checks each tree; a line for each: name, its buckets, its shape
"""
from __future__ import print_function

import json
import sys

import transaction
import ZODB
from BTrees.check import check, display
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage

PY2 = sys.version_info[0] == 2
PROBES = {}


def from_json(value):
    if isinstance(value, dict):
        if "b" in value:
            data = bytearray(int(value["b"][i:i + 2], 16) for i in range(0, len(value["b"]), 2))
            return str(data) if PY2 else bytes(data)
        return value["u"]
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if PY2 and not isinstance(value, (int, float, bool, type(None))) and not type(value).__name__ == "long":
        return value.encode("ascii")
    return value


def to_json(value):
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if PY2 and type(value).__name__ == "unicode":
        return {"u": value}
    if isinstance(value, bytes) and (not PY2 or any(ord(c) > 127 or ord(c) < 32 for c in value)):
        return {"b": "".join("%02x" % c for c in bytearray(value))}
    return value


def new(name):
    module = __import__("BTrees.%sBTree" % name[:2], fromlist=["x"])
    return getattr(module, name.split("-")[0])()


def apply(root, path):
    # Changes that fail in Python must fail in the other program, too: there are none here.
    with open(path) as lines:
        for line in lines:
            line = json.loads(line)
            if line == ["commit"]:
                transaction.commit()
                continue
            tree, change, key = root[line[0]], line[1], from_json(line[2])
            if change == "+" and len(line) == 4:
                tree[key] = from_json(line[3])
            elif change == "+":
                tree.insert(key)
            elif len(line) == 3 and hasattr(tree, "remove"):
                tree.remove(key)
            else:
                del tree[key]
    transaction.commit()


def buckets(tree):
    """The keys and values bucket by bucket, by the references from one to the next."""
    state = tree.__getstate__()
    if state is None:
        return []
    found, with_values = [], hasattr(tree, "values")
    if len(state) == 1:
        states = [state[0][0]]
    else:
        states, bucket = [], state[1]
        while bucket is not None:
            states.append(bucket.__getstate__())
            bucket = states[-1][1] if len(states[-1]) > 1 else None
    for state in states:
        items = state[0]
        if with_values:
            found.append([[to_json(k), to_json(v)] for k, v in zip(items[::2], items[1::2])])
        else:
            found.append([to_json(k) for k in items])
    return found


def shape(tree):
    """The number of children of each node, and the keys between them."""
    state = tree.__getstate__()
    if state is None or len(state) == 1 or not hasattr(tree, "_firstbucket") and "Bucket" in type(tree).__name__:
        return None
    if type(tree).__name__.endswith(("Bucket", "Set")) and not type(tree).__name__.endswith("TreeSet"):
        return None
    children, keys = state[0][::2], state[0][1::2]
    return [[shape(child) for child in children], [to_json(key) for key in keys]]


class Null(object):
    def write(self, text):
        pass


def dump(root):
    for whose in ("rust", "python"):
        for name in sorted(root[whose]):
            tree = root[whose][name]
            tree._check()
            check(tree)
            stdout, sys.stdout = sys.stdout, Null()
            try:
                display(tree)
            finally:
                sys.stdout = stdout
            by_links = [item for bucket in buckets(tree) for item in bucket]
            if hasattr(tree, "values"):
                assert by_links == [[to_json(k), to_json(v)] for k, v in tree.items()], name
                for key, value in tree.items():
                    assert tree[key] == value, (name, key)
            else:
                assert by_links == [to_json(k) for k in tree.keys()], name
                assert all(key in tree for key in tree.keys()), name
            print(json.dumps([whose, name, buckets(tree), shape(tree)]))


def main(port, command, *arguments):
    storage = ClientStorage(("127.0.0.1", int(port)), wait=1, wait_timeout=60)
    db = ZODB.DB(storage)
    root = db.open().root()
    if command == "create":
        for whose in ("rust", "python"):
            trees = root[whose] = PersistentMapping()
            for name in arguments:
                trees[name] = new(name)
        transaction.commit()
    elif command == "apply":
        apply(root[arguments[1]], arguments[0])
    else:
        dump(root)
    transaction.abort()
    db.close()


main(*sys.argv[1:])
