"""Changes a database: database.py DATA.FS STEP...

A STEP is a number (so many transactions) or `pack`. Runs on Python 2 and 3.
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
    for number in range(int(step)):
        root['key %d' % (number % 5)] = PersistentMapping(data=os.urandom(200 + 300 * number % 2000))
        transaction.commit()
connection.close()
db.close()
