"""Opens a FileStorage for writing and closes it again: `python reopen.py Data.fs` prints whether the saved index was
used, and whatever was logged. Python then has saved its own index."""
import logging
import sys

from ZODB.FileStorage import FileStorage

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(levelname)s %(message)s')
storage = FileStorage(sys.argv[1])
print('used index: %d' % storage._used_index)
storage.close()
