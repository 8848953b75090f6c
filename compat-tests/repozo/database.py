"""Changes a database: database.py DATA.FS STEP...

A STEP is a number (so many transactions), `pack`, or `big` (some megabytes). Runs on Python 2 and 3.
"""
import os
import sys
import time

import transaction
import ZODB
import ZODB.FileStorage
from persistent.mapping import PersistentMapping

db = ZODB.DB(ZODB.FileStorage.FileStorage(sys.argv[1]))
connection = db.open()
root = connection.root()
for step in sys.argv[2:]:
    if step == 'pack':
        db.pack(time.time() + 1)
        continue
    if step == 'big':
        # Half of it can be compressed.
        root['big'] = PersistentMapping(data=[os.urandom(300000) + b'x' * 300000 for _ in range(8)])
        transaction.commit()
        continue
    for number in range(int(step)):
        root['key %d' % (number % 5)] = PersistentMapping(data=os.urandom(200 + 300 * number % 2000))
        transaction.commit()
connection.close()
db.close()
