"""What Python makes of damaged files: `python verdicts.py DIR` opens each DIR/N.fs for writing, N = 0, 1, ..., and prints
`N ok size length` (after cutting off what it cuts off) or `N refused`."""
import logging
import os
import sys

from ZODB.FileStorage import FileStorage

logging.disable(logging.CRITICAL)
n = 0
while os.path.exists(os.path.join(sys.argv[1], '%d.fs' % n)):
    path = os.path.join(sys.argv[1], '%d.fs' % n)
    try:
        storage = FileStorage(path)
    except Exception:
        print('%d refused' % n)
    else:
        print('%d ok %d %d %d' % (n, storage.getSize(), len(storage), os.path.getsize(path)))
        storage.close()
    n += 1
