"""External Methods of the test site: what a content product does with blobs, counters and BTrees.

Runs inside Zope, on Python 2.7 and 3; the first argument is the folder in which the method is called.
"""
import hashlib
import shutil

from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob


def blob_content(n):
    """What `store_blobs` puts into a blob: about 100 KB."""
    return hashlib.sha256(str(n).encode()).digest() * 3000 + b"." * n


def set_up(self):
    self.counter = 0
    self.blobs = PersistentMapping()
    self.pair = PersistentMapping(one=PersistentMapping(value=0), other=PersistentMapping(value=0))
    self.visits = OOBTree()
    self.visit_count = Length()
    return "done"


def store_blob(self, name, file):
    """A file of the request goes into a blob of that name, new or changed."""
    if name not in self.blobs:
        self.blobs[name] = Blob()
    with self.blobs[name].open("w") as out:
        shutil.copyfileobj(file, out)
    return "done"


def store_blobs(self, count):
    """Many blobs in one transaction: blob0, blob1, ..."""
    for n in range(int(count)):
        blob = self.blobs["blob%s" % n] = Blob()
        with blob.open("w") as out:
            out.write(blob_content(n))
    return "done"


def remove_blob(self, name):
    del self.blobs[name]
    return "done"


def fetch_blob(self, name, REQUEST):
    if name not in self.blobs:
        REQUEST.RESPONSE.setStatus(404)
        return "no blob"
    with self.blobs[name].open("r") as stored:
        data = stored.read()
    REQUEST.RESPONSE.setHeader("Content-Type", "application/octet-stream")
    return data


def check_blob(self, name):
    """Its SHA-1 as the file in the client's own blob directory has it."""
    with self.blobs[name].open("r") as stored:
        return hashlib.sha1(stored.read()).hexdigest()


def increment(self):
    """Two at once are a conflict that nobody can resolve: Zope repeats one of them."""
    self.counter = self.counter + 1
    return str(self.counter)


def read_counter(self):
    return str(self.counter)


def visit(self, name):
    """Two at once are a conflict that BTrees and Length resolve."""
    self.visits[name] = name
    self.visit_count.change(1)
    return "done"


def read_visits(self):
    return "%d %d" % (self.visit_count(), len(self.visits))


def change_pair(self):
    """Two objects of one transaction."""
    value = self.pair["one"]["value"] + 1
    self.pair["one"]["value"] = self.pair["other"]["value"] = value
    return str(value)


def read_pair(self):
    return "%d %d" % (self.pair["one"]["value"], self.pair["other"]["value"])
