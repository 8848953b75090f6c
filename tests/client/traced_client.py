"""A client of ZEO on Python 2 works on a tree and lets its cache write a trace.

    traced_client.py PORT DIRECTORY MEGABYTES SEED

The trace is DIRECTORY/traced-1.zec.trace. Some objects are read much more often than others, which of them changes
slowly, and a second client with a cache of its own writes.
"""
import os
import random
import sys

os.environ['ZEO_CACHE_TRACE'] = '1'
import transaction
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage
from ZODB import DB

port, directory, megabytes, seed = sys.argv[1:]
rand = random.Random(int(seed)).random
OBJECTS, TRANSACTIONS = 1500, 150


def connect(name, size):
    storage = ClientStorage(('127.0.0.1', int(port)), client=name, var=directory, cache_size=size, wait=1)
    return DB(storage, cache_size=100)


def fill(item, number):
    item['text'] = 'x' * int(100 + 3000 * rand() ** 3)
    item['number'] = number


writer = connect(None, 20 << 20)
connection = writer.open()
tree = connection.root()['tree'] = OOBTree()
for number in range(OBJECTS):
    tree['%05d' % number] = PersistentMapping()
    fill(tree['%05d' % number], number)
    if number % 500 == 0:
        transaction.commit()
transaction.commit()

reader = connect('traced', int(float(megabytes) * (1 << 20)))
other = reader.open(transaction_manager=transaction.TransactionManager())
old = reader.open(transaction_manager=transaction.TransactionManager())
for number in range(TRANSACTIONS):
    for _ in range(20):
        key = int(OBJECTS * rand() ** 4 + number * 3) % OBJECTS
        other.root()['tree']['%05d' % key]['text']
        if rand() < 0.1:
            # A transaction that goes on for long sees what was.
            old.root()['tree']['%05d' % key]['text']
    other.transaction_manager.abort()
    other.cacheMinimize()
    if number % 50 == 0:
        old.transaction_manager.abort()
        old.cacheMinimize()
    for _ in range(2):
        key = int(OBJECTS * rand() ** 2 + number * 3) % OBJECTS
        fill(connection.root()['tree']['%05d' % key], number)
    transaction.commit()
    if number % 10 == 0:
        fill(other.root()['tree']['%05d' % key], number)
        try:
            other.transaction_manager.commit()
        except Exception:  # A conflict is part of the work.
            other.transaction_manager.abort()
reader.close()
writer.close()
