"""Makes a database of BTrees for the tests of zeofs, some of them damaged: `python make_trees.py DIR` writes
DIR/trees.fs and prints a line for each tree: name, oid, and `whole` or what Python's checks say. Runs on Python 2.7 and 3.
"""
import datetime
import os
import sys

import transaction
from BTrees import IIBTree
from BTrees import IOBTree
from BTrees import LFBTree
from BTrees import LOBTree
from BTrees import OIBTree
from BTrees import OOBTree
from BTrees import OOBTree as OO
from BTrees import fsBTree
from BTrees.check import check
from BTrees.Length import Length
from persistent.mapping import PersistentMapping

import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.utils import u64

PYTHON2 = sys.version_info[0] == 2


def text(number):
    return u'key %05d' % number


def two_bytes(number):
    return chr(number // 256) + chr(number % 256) if PYTHON2 else bytes([number // 256, number % 256])


def six_bytes(number):
    return '%06d' % number if PYTHON2 else b'%06d' % number


def number(number):
    return number


def mixed(number):
    return (number // 10, u'part', number)


# Class, key and value of a number, count of keys.
KINDS = [
    ('oo', OOBTree.OOBTree, text, text, 500),
    ('oo-small', OOBTree.OOBTree, number, text, 20),
    ('oo-tuples', OOBTree.OOBTree, mixed, number, 500),
    ('oo-set', OOBTree.OOTreeSet, text, None, 500),
    ('io', IOBTree.IOBTree, number, text, 500),
    ('ii', IIBTree.IIBTree, number, number, 1000),
    ('ii-set', IIBTree.IITreeSet, number, None, 1000),
    ('lo', LOBTree.LOBTree, lambda n: n - 2 ** 40, text, 500),
    ('oi', OIBTree.OIBTree, text, number, 500),
    ('lf', LFBTree.LFBTree, number, float, 1000),
    ('fs', fsBTree.fsBTree, two_bytes, six_bytes, 2000),
    ('oo-large', OOBTree.OOBTree, number, number, 9000),
]


def fill(tree, key, value, count):
    for n in range(count):
        # Not in order, so that buckets in the middle of a tree are split, too; but in order for a tree of three levels.
        n = n * 7919 % count if count < 5000 else n
        if value is None:
            tree.add(key(n))
        else:
            tree[key(n)] = value(n)
    return tree


def node(tree):
    """The lowest inner node on the left: its state has buckets."""
    child = tree.__getstate__()[0][0]
    return node(child) if type(child) is type(tree) else tree


def change(obj, state):
    obj.__setstate__(state)
    obj._p_changed = True


def items_of(bucket):
    state = bucket.__getstate__()
    return list(state[0]), list(state[1:])


def swap_keys(tree, width):
    bucket = node(tree).__getstate__()[0][4]
    items, following = items_of(bucket)
    items[0], items[2 * width] = items[2 * width], items[0]
    change(bucket, tuple([tuple(items)] + following))


def same_key(tree, width):
    bucket = node(tree).__getstate__()[0][4]
    items, following = items_of(bucket)
    items[width] = items[0]
    change(bucket, tuple([tuple(items)] + following))


def empty_bucket(tree, width):
    bucket = node(tree).__getstate__()[0][4]
    change(bucket, tuple([()] + items_of(bucket)[1]))


def cut_chain(tree, width):
    bucket = node(tree).__getstate__()[0][4]
    change(bucket, (tuple(items_of(bucket)[0]),))


def skip_in_chain(tree, width):
    children = node(tree).__getstate__()[0]
    change(children[2], (tuple(items_of(children[2])[0]), children[6]))


def back_in_chain(tree, width):
    children = node(tree).__getstate__()[0]
    change(children[4], (tuple(items_of(children[4])[0]), children[2]))


def beyond_the_end(tree, width):
    at = tree
    while type(at.__getstate__()[0][-1]) is type(tree):
        at = at.__getstate__()[0][-1]
    children = at.__getstate__()[0]
    extra = type(children[0])()
    extra.__setstate__(children[-1].__getstate__())
    change(children[-1], (tuple(items_of(children[-1])[0]), extra))


def change_node(tree, edit):
    parent = node(tree)
    children, first = parent.__getstate__()
    children = list(children)
    first = edit(children) or first
    change(parent, (tuple(children), first))


def separator_too_low(tree, width):
    change_node(tree, lambda children: children.__setitem__(3, items_of(children[2])[0][width]))


def separator_too_high(tree, width):
    change_node(tree, lambda children: children.__setitem__(3, items_of(children[4])[0][width]))


def swap_separators(tree, width):
    def edit(children):
        children[3], children[5] = children[5], children[3]
    change_node(tree, edit)


def swap_buckets(tree, width):
    def edit(children):
        children[2], children[4] = children[4], children[2]
    change_node(tree, edit)


def node_twice(tree, width):
    change_node(tree, lambda children: children.__setitem__(4, children[2]))


def bucket_left_out(tree, width):
    def edit(children):
        del children[3:5]
    change_node(tree, edit)


def first_bucket(tree, width):
    change_node(tree, lambda children: children[2])


DAMAGES = [
    swap_keys, same_key, empty_bucket, cut_chain, skip_in_chain, back_in_chain, beyond_the_end, separator_too_low,
    separator_too_high, swap_separators, swap_buckets, node_twice, bucket_left_out, first_bucket,
]


def verdict(tree):
    try:
        tree._check()
        check(tree)
    except Exception as error:
        return '%s: %s' % (type(error).__name__, str(error).split('\n')[0])
    return 'whole'


def make(db):
    connection = db.open()
    root = connection.root()
    trees = root['trees'] = PersistentMapping()
    widths = {}
    for name, cls, key, value, count in KINDS:
        names = [name] if count < 100 else [name] + ['%s %s' % (name, damage.__name__) for damage in DAMAGES + [
            missing_bucket]]
        for full in names:
            trees[full] = fill(cls(), key, value, count)
            widths[full] = 1 if value is None else 2
    trees['empty'] = OO.OOBTree()
    trees['of trees'] = OO.OOBTree([(i, OO.OOTreeSet(range(100))) for i in range(5)])
    trees['dates'] = OO.OOTreeSet([datetime.date(2026, 1, 1) + datetime.timedelta(n) for n in range(100)])
    trees['cleared'] = fill(OO.OOBTree(), number, number, 9000)
    trees['shrunk'] = fill(OO.OOBTree(), number, number, 9000)
    trees['bucket'] = OO.OOBucket([(i, i) for i in range(10)])
    trees['set'] = OO.OOSet(range(10))
    trees['circle'] = fill(OO.OOBTree(), number, number, 9000)
    trees['first owner'] = fill(OO.OOBTree(), number, number, 100)
    transaction.commit()
    trees['second owner'] = OO.OOBTree()
    trees['second owner'].__setstate__(trees['first owner'].__getstate__())
    root['length'] = Length(5)
    transaction.commit()
    children, first = trees['circle'].__getstate__()
    change(trees['circle'], (children[:2] + (trees['circle'],) + children[3:], first))
    trees['cleared'].clear()
    for n in range(20, 8900):
        del trees['shrunk'][n]
    transaction.commit()
    for name in sorted(widths):
        damage = name.split(' ')[1:]
        if damage and damage != ['missing_bucket']:
            globals()[damage[0]](trees[name], widths[name])
    transaction.commit()
    connection.close()


def missing_bucket(storage, oid, serial):
    txn = transaction.Transaction()
    try:
        from ZODB.Connection import TransactionMetaData
        txn = TransactionMetaData()
    except ImportError:
        pass
    storage.tpc_begin(txn)
    storage.deleteObject(oid, serial, txn)
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)


def main(directory):
    db = ZODB.DB(FileStorage(os.path.join(directory, 'trees.fs')))
    make(db)
    connection = db.open()
    trees = connection.root()['trees']
    gone = []
    for name in sorted(trees):
        if name.endswith('missing_bucket'):
            bucket = node(trees[name]).__getstate__()[0][4]
            bucket._p_activate()
            gone.append((bucket._p_oid, bucket._p_serial))
    connection.close()
    for oid, serial in gone:
        missing_bucket(db.storage, oid, serial)
    db.close()
    db = ZODB.DB(FileStorage(os.path.join(directory, 'trees.fs'), read_only=True))
    connection = db.open()
    trees = connection.root()['trees']
    for name in sorted(trees):
        tree = trees[name]
        # In a circle Python's checks end by a crash.
        found = verdict(tree) if hasattr(tree, '_check') and name != 'circle' else 'whole'
        print('%s\t%016x\t%s' % (name, u64(tree._p_oid), found))
    db.close()


if __name__ == '__main__':
    main(sys.argv[1])
