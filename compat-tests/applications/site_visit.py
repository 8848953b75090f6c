"""A site of two Zope processes on one server, and what is done to it. Whatever is written through one process is read
through the other."""
import hashlib
import os
import struct
import threading
import time
import zlib

from harness import files
from harness.scenario import check, equal

from zope import HttpError, Zope


def png(width, height, seed):
    """A picture that does not compress: about three bytes a pixel."""
    rows = b"".join(b"\0" + noise(width * 3, seed * 1000 + row) for row in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def noise(length, seed):
    return hashlib.shake_128(str(seed).encode()).digest(length)


def eventually(what, function, wanted, timeout=60):
    """Invalidations travel while requests are answered: the other process sees a change a moment later."""
    deadline = time.time() + timeout
    while True:
        try:
            found = function()
        except HttpError as error:
            found = error.status
        if found == wanted:
            return
        if time.time() > deadline:
            raise AssertionError(f"{what}: still {found!r:.300}, wanted {wanted!r:.300}")
        time.sleep(0.02)


def is_gone(zope, path):
    def status():
        try:
            zope.get(path)
        except HttpError as error:
            return error.status
        return 200
    eventually(f"{path} is gone", status, 404)


class Site:
    def __init__(self, environment, directory, server, shared_blobs):
        self.server = server
        self.directory = directory
        # One process with a blob cache of its own, the other on the server's directory, as on the server's machine.
        self.a = Zope(environment, directory / "zope-a", server)
        self.b = Zope(environment, directory / "zope-b", server,
                      server.directory / "blobs" if shared_blobs else None)

    def start(self):
        # The first makes the root and its users.
        self.a.start().wait_ready()
        self.b.start().wait_ready()

    def stop(self):
        for zope in (self.a, self.b):
            zope.stop()

    def build(self):
        a, b = self.a, self.b
        a.add_folder("", "site")
        for name in ("set_up", "store_blob", "remove_blob", "fetch_blob", "check_blob", "increment", "read_counter",
                     "visit", "read_visits"):
            a.add_external_method("", name, "visits", name)
        a.get("/site/set_up")
        a.add_page("/site", "page", "<p>first</p>")
        eventually("the page through the other process", lambda: b.get("/site/page"), b"<p>first</p>")

    def edit(self):
        """Many small changes, now here, now there; nobody ever reads an older one than before."""
        for n in range(10):
            writer, reader = (self.a, self.b) if n % 2 else (self.b, self.a)
            text = f"<p>edited {n}</p>"
            writer.edit_page("/site/page", text)
            eventually("an edited page", lambda: reader.get("/site/page"), text.encode())
        page = self.a.get("/site/page/manage_change_history_page").decode()
        check(page.count("manage_edit") >= 9, "the history page shows the edits:", page[-500:])

    def pictures(self):
        for n, side in enumerate((8, 100, 600)):
            data = png(side, side, n)
            writer, reader = (self.a, self.b) if n % 2 else (self.b, self.a)
            writer.add_image("/site", f"picture{n}.png", data)
            eventually("a picture", lambda: sha(reader.get(f"/site/picture{n}.png")), sha(data))
            equal(sha(writer.get(f"/site/picture{n}.png")), sha(data), "the picture where it was uploaded")
        data = noise(3_000_000, "file")
        self.a.add_file("/site", "file.bin", data)
        eventually("a file", lambda: sha(self.b.get("/site/file.bin")), sha(data))
        data = noise(2_000_000, "other file")
        self.b.replace_file("/site/file.bin", data)
        eventually("a replaced file", lambda: sha(self.a.get("/site/file.bin")), sha(data))

    def blobs(self):
        for n, length in enumerate((0, 10, 100_000, 5_000_000)):
            writer, reader = (self.a, self.b) if n % 2 else (self.b, self.a)
            data = noise(length, f"blob {n}")
            writer.upload("/site/store_blob", "file", data, name=f"blob{n}")
            eventually("a blob", lambda: sha(reader.get(f"/site/fetch_blob?name=blob{n}")), sha(data))
            equal(writer.get(f"/site/check_blob?name=blob{n}").decode(), sha(data), "the blob where it was stored")
        changed = noise(200_000, "changed blob")
        self.a.upload("/site/store_blob", "file", changed, name="blob3")
        eventually("a changed blob", lambda: sha(self.b.get("/site/fetch_blob?name=blob3")), sha(changed))

    def catalog(self):
        a, b = self.a, self.b
        a.post("/site/manage_addProduct/ZCatalog/manage_addZCatalog", id="catalog", title="catalog")
        for name in ("id", "meta_type"):
            a.post("/site/catalog/manage_addIndex", name=name, type="FieldIndex")
            a.post("/site/catalog/manage_addColumn", name=name)
        a.add_page("/site", "found", "<dtml-var expr=\"_.len(catalog(meta_type='DTML Method'))\">")
        a.add_folder("/site", "documents")
        for n in range(30):
            a.add_page("/site/documents", f"doc{n}", f"document {n}")
        eventually("documents", lambda: b.get("/site/documents/doc29"), b"document 29")
        b.post("/site/catalog/manage_catalogFoundItems", **{
            "obj_metatypes:list": ["DTML Method"], "btn_submit": "Find and Catalog", "search_sub": "1"})
        eventually("objects in the catalog", lambda: self.in_catalog(a), 32)
        # Cataloged again from both sides at once: what BTrees cannot merge, Zope repeats.
        done = in_parallel([lambda zope=zope: zope.post("/site/catalog/manage_catalogReindex")
                            for zope in (a, b, a, b)])
        check(sum(done) >= 1, "no reindexing came through")
        eventually("objects in the catalog, indexed again", lambda: self.in_catalog(a), 32)
        eventually("objects in the catalog, seen from the other", lambda: self.in_catalog(b), 32)

    @staticmethod
    def in_catalog(zope):
        return int(zope.get("/site/found"))

    def conflicts(self):
        """Both processes change the same objects at the same time."""
        count = 15
        done = in_parallel([lambda zope=zope: zope.get("/site/increment")
                            for _ in range(count) for zope in (self.a, self.b)], threads=4)
        for zope in (self.a, self.b):
            eventually("the counter", lambda: int(zope.get("/site/read_counter")), sum(done))
        check(sum(done) >= count, "too many increments failed:", done)
        done = in_parallel([lambda zope=zope, n=n: zope.get(f"/site/visit?name=visitor{n}")
                            for n, zope in enumerate([self.a, self.b] * count)], threads=4)
        equal(sum(done), 2 * count, "visits that came through")
        for zope in (self.a, self.b):
            eventually("visits", lambda: zope.get("/site/read_visits").decode(), f"{2 * count} {2 * count}")

    def undo(self):
        a, b = self.a, self.b
        a.edit_page("/site/page", "before", "before")
        a.edit_page("/site/page", "mistake", "mistake")
        b_text = noise(1000, "undo")
        b.upload("/site/store_blob", "file", b_text, name="blob1")
        eventually("the mistake", lambda: b.get("/site/page"), b"mistake")
        # of one change, by the other process
        choice = self.newest(b, "/site/page/manage_edit")
        b.undo([choice])
        for zope in (a, b):
            eventually("the page after undo", lambda: zope.get("/site/page"), b"before")
        # of a blob's change
        a.undo([self.newest(a, "/store_blob")])
        for zope in (a, b):
            eventually("the blob after undo", lambda: sha(zope.get("/site/fetch_blob?name=blob1")),
                       sha(noise(10, "blob 1")))
        # of the undo
        a.undo([next(c for c in a.undoable() if "manage_undo_transactions" in c or " Undo" in c)])
        for zope in (a, b):
            eventually("the blob after undo of the undo", lambda: sha(zope.get("/site/fetch_blob?name=blob1")),
                       sha(b_text))
        # of an object's creation, and of its removal
        a.add_page("/site", "short-lived", "here")
        eventually("a new page", lambda: b.get("/site/short-lived"), b"here")
        a.undo([self.newest(a, "addDTMLMethod")])
        is_gone(b, "/site/short-lived")
        a.add_page("/site", "kept", "kept")
        a.post("/site/manage_delObjects", **{"ids:list": "kept"})
        is_gone(b, "/site/kept")
        b.undo([self.newest(b, "manage_delObjects")])
        for zope in (a, b):
            eventually("a page that came back", lambda: zope.get("/site/kept"), b"kept")
        # what later changes were built upon cannot be undone
        a.edit_page("/site/page", "on top", "on top")
        eventually("the newest text", lambda: b.get("/site/page"), b"on top")
        choices = [c for c in b.undoable() if "/site/page/manage_edit" in c]
        answer = b.undo([choices[3]]).decode()
        check("UndoError" in answer, "an undo that must fail:", answer[:500])
        equal(b.get("/site/page"), b"on top")
        # several at once
        a.edit_page("/site/page", "before")
        for text in ("one", "two", "three"):
            a.edit_page("/site/page", text)
        eventually("the newest text", lambda: b.get("/site/page"), b"three")
        b.undo([c for c in b.undoable() if "/site/page/manage_edit" in c][:3])
        for zope in (a, b):
            eventually("the page after the undo of three changes", lambda: zope.get("/site/page"), b"before")

    @staticmethod
    def newest(zope, what):
        deadline = time.time() + 60
        while time.time() < deadline:
            found = [choice for choice in zope.undoable(last=20) if what in choice]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"no {what} among {zope.undoable(last=20)}")

    def pack(self):
        self.a.post("/site/manage_delObjects", **{"ids:list": "file.bin"})
        self.a.get("/site/remove_blob?name=blob2")
        before = self.server.data_path.stat().st_size
        stop = threading.Event()
        errors, reads = [], []

        def read():
            while not stop.is_set():
                try:
                    self.b.get("/site/page")
                    reads.append(1)
                except Exception as error:  # noqa: BLE001  (whatever it is, it is a failure)
                    errors.append(error)
                    return
        reader = threading.Thread(target=read)
        reader.start()
        self.a.pack()
        stop.set()
        reader.join()
        equal(errors, [], "reading while packing")
        after = self.server.data_path.stat().st_size
        check(after < before - 4_000_000, "packed from", before, "to", after)
        self.still_there()
        equal([c for c in self.a.undoable() if "/site/page/manage_edit" in c], [], "packed transactions are undoable")
        if self.server.blob_dir:
            equal(sum(name.endswith(".blob") for _, _, names in os.walk(self.server.blob_dir) for name in names), 3,
                  "blobs that are left")
        self.a.edit_page("/site/page", "after the pack")
        eventually("a change after the pack", lambda: self.b.get("/site/page"), b"after the pack")
        self.b.undo([self.newest(self.b, "/site/page/manage_edit")])
        eventually("the page after undo", lambda: self.a.get("/site/page"), b"before")

    def still_there(self):
        for zope in (self.a, self.b):
            eventually("the page", lambda: zope.get("/site/page"), b"before")
            for n, side in enumerate((8, 100, 600)):
                equal(sha(zope.get(f"/site/picture{n}.png")), sha(png(side, side, n)), "picture")
            equal(sha(zope.get("/site/fetch_blob?name=blob3")), sha(noise(200_000, "changed blob")), "blob")
            equal(zope.get("/site/documents/doc17"), b"document 17")
            equal(self.in_catalog(zope), 32, "objects in the catalog")

    def server_goes_and_comes(self):
        """A stop and a crash of the server: both processes find it again, and nothing is lost."""
        for number in ("TERM", "KILL"):
            self.a.edit_page("/site/page", f"before {number}")
            self.server.stop() if number == "TERM" else self.server.kill()
            self.server.start()
            for zope in (self.a, self.b):
                eventually(f"the page after {number}", lambda: zope.get("/site/page"), f"before {number}".encode(),
                           timeout=60)
            text = f"after {number}"
            eventually("an edit", lambda: self.b.edit_page("/site/page", text), None, timeout=60)
            eventually("the edited page", lambda: self.a.get("/site/page"), text.encode(), timeout=60)
        self.a.edit_page("/site/page", "before")
        self.still_there()

    def look_into_the_file(self):
        """With Python's FileStorage, when everything has stopped."""
        self.stop()
        equal(self.server.stop(), 0, "exit code")
        seen = files.everything(self.server.data_path)
        check(seen["index"]["same"], "the index is not what a scan finds")
        check(len(seen["current"]) > 50, seen["current"])


def sha(data):
    return hashlib.sha1(data).hexdigest()


def in_parallel(calls, threads=4):
    """Whether each came through: Zope gives up after three conflicts."""
    results = [None] * len(calls)
    waiting = list(range(len(calls)))[::-1]
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                if not waiting:
                    return
                n = waiting.pop()
            try:
                calls[n]()
                results[n] = True
            except HttpError as error:
                results[n] = error.status < 500 and error
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    bad = [r for r in results if r not in (True, False)]
    if bad:
        raise bad[0] if isinstance(bad[0], Exception) else AssertionError(f"a request failed: {bad}")
    return results
