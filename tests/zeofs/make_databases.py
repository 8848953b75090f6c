"""Makes three databases that refer to each other, for the tests of `zeofs gc`: `python make_databases.py DIR SEED [plain]`
writes DIR/one.fs, two.fs and three.fs, a history of ten days at random. Prints a line for each object that is garbage if
what was written in the last two days is kept: the database and the oid. Runs on Python 2.7 and 3. `plain`: no references
without a class, on which zc.zodbdgc ends with an AssertionError on Python 3.
"""
import os
import random
import sys
import time

import transaction
from persistent import Persistent
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef

import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.TimeStamp import TimeStamp
from ZODB.utils import u64

NAMES = ['one', 'two', 'three']
NOW = time.time()
clock = NOW - 10 * 86400


def later():
    global clock
    clock += 60
    return clock


class WithArguments(Persistent):
    """References to it have no class."""

    def __new__(cls, *arguments):
        return Persistent.__new__(cls)

    def __getnewargs__(self):
        return (1,)

    def __init__(self, *arguments):
        self.data = {}

    def __getitem__(self, key):
        return self.data[key]

    def __setitem__(self, key, value):
        self.data[key] = value
        self._p_changed = True

    def __delitem__(self, key):
        del self.data[key]
        self._p_changed = True

    def items(self):
        return self.data.items()

    def keys(self):
        return self.data.keys()


def main(directory, seed, classes):
    global clock
    chance = random.Random(seed)
    databases = {}
    for name in NAMES:
        storage = FileStorage(os.path.join(directory, name + '.fs'), pack_gc=False, pack_keep_old=False)
        # It puts itself into `databases`.
        ZODB.DB(storage, database_name=name, databases=databases)
    connection = databases['one'].open()
    connections = {name: connection.get_connection(name) for name in NAMES}
    # For each revision: the object, when it was written, and the objects to which it refers.
    revisions = []

    def commit():
        changed = [(name, thing) for name in NAMES for thing in connections[name]._registered_objects]
        added = [(name, thing) for name in NAMES for thing in connections[name]._added.values()]
        transaction.commit()
        seen = set()
        for name, thing in changed + added:
            if (name, thing._p_oid) in seen:
                continue
            seen.add((name, thing._p_oid))
            refers = [(other._p_jar.db().database_name, u64(other._p_oid))
                      for _, other in thing.items() if not isinstance(other, (WeakRef, int))]
            written = TimeStamp(thing._p_serial).timeTime()
            revisions.append(((name, u64(thing._p_oid)), written, refers))

    roots = {name: connections[name].root() for name in NAMES}
    for name in NAMES:
        revisions.append(((name, 0), clock, []))
    things = [(name, root) for name, root in roots.items()]
    packed = 0
    for round in range(110):
        for _ in range(chance.randrange(1, 6)):
            name, thing = chance.choice(things)
            key = 'key %d' % chance.randrange(6)
            dice = chance.random()
            if dice < 0.45:
                where = chance.choice(NAMES)
                new = chance.choice(classes)()
                connections[where].add(new)
                things.append((where, new))
                thing[key] = new
            elif dice < 0.6:
                thing[key] = chance.choice(things)[1]
            elif dice < 0.65:
                thing[key] = WeakRef(chance.choice(things)[1])
            elif dice < 0.7:
                thing[key] = round
            else:
                for key in list(thing.keys())[:chance.randrange(1, 3)]:
                    del thing[key]
        commit()
        clock += 2 * 3600
        if round == 80:
            packed = clock
            for name in NAMES:
                databases[name].pack(packed)
    for database in list(databases.values()):
        database.close()

    current = {}
    kept = {}
    for thing, written, refers in revisions:
        if written <= packed:
            kept[thing] = []
        kept.setdefault(thing, []).append(refers)
        current[thing] = written
    reached = set()
    todo = [(name, 0) for name in NAMES]
    for thing, written, refers in revisions:
        if written >= NOW - 2 * 86400:
            todo.append(thing)
            todo.extend(refers)
    while todo:
        thing = todo.pop()
        if thing not in reached:
            reached.add(thing)
            for refers in kept[thing]:
                todo.extend(refers)
    for name, oid in sorted(set(current) - reached):
        print('%s %d' % (name, oid))


time.time = later
main(sys.argv[1], int(sys.argv[2]), [PersistentMapping, PersistentMapping if 'plain' in sys.argv else WithArguments])
