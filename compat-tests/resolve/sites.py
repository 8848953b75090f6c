"""Two clients change one object of a class that sites have conflicts on, and a helper of a real server merges them.

    python sites.py PROGRAM

For the Python of a Zope with plone.scale (the scales of an image, which several requests make at once) and
Products.Transience (a visitor's session).
"""
import datetime
import os
import socket
import subprocess
import sys
import tempfile
import time

import transaction
import ZEO
from plone.scale.storage import ScalesDict
from Products.Transience.TransientObject import TransientObject


def scale(uid, width):
    return {"uid": uid, "width": width, "height": None, "mimetype": "image/png", "modified": int(time.time() * 1000),
            "key": (("fieldname", "image"), ("width", width)), "data": b"x" * width, "made": datetime.datetime.now()}


def put(key, value):
    return lambda thing: thing.__setitem__(key, value)


# The object, and what each of two clients does to it.
CASES = {
    "plone.scale.storage.ScalesDict": (ScalesDict, put("one", scale("one", 1)), put("two", scale("two", 2))),
    "Products.Transience.TransientObject.TransientObject": (
        lambda: TransientObject("visitor"), put("cart", ["a"]), put("seen", ("b", 1.5))),
}


def merged(address):
    """The keys of each object after both have committed."""
    databases = [ZEO.DB(address, wait_timeout=60) for _ in range(2)]
    managers = [transaction.TransactionManager() for _ in databases]
    first, second = [db.open(manager) for db, manager in zip(databases, managers)]
    for name, (make, _, _) in CASES.items():
        first.root()[name] = make()
    managers[0].commit()
    deadline = time.time() + 60
    while set(second.root()) != set(CASES) and time.time() < deadline:
        time.sleep(0.01)
        second.sync()
    found = {}
    for name, (_, change, other) in CASES.items():
        change(first.root()[name])
        other(second.root()[name])
        managers[0].commit()
        managers[1].commit()
        second.sync()
        found[name] = sorted(second.root()[name].keys())
        first.sync()
    for db in databases:
        db.close()
    return found


def main():
    with tempfile.TemporaryDirectory() as directory, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        with open(os.path.join(directory, "zeo.conf"), "w") as config:
            config.write("<zeo>\naddress 127.0.0.1:%d\nconflict-resolver %s\n</zeo>\n<filestorage 1>\npath %s/Data.fs\n"
                         "</filestorage>\n" % (port, sys.executable, directory))
        server = subprocess.Popen([sys.argv[1], "-C", config.name], cwd=directory, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        try:
            found = merged(("127.0.0.1", port))
        finally:
            server.terminate()
            server.wait()
    # A session is the one of the two that is newer.
    wanted = {"plone.scale.storage.ScalesDict": [["one", "two"]],
              "Products.Transience.TransientObject.TransientObject": [["cart"], ["seen"]]}
    good = set(found) == set(wanted) and all(keys in wanted[name] for name, keys in found.items())
    print(len(found), "classes of real sites,", "all merged" if good else found)
    return not good


if __name__ == "__main__":
    sys.exit(main())
