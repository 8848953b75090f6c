"""Writes the log of a FileStorage, byte by byte: transactions that no client of today would write."""
import struct
from pathlib import Path


class Log:
    """A `Data.fs` in the making. Positions of records are kept by name, for back-pointers."""

    def __init__(self, magic):
        self.bytes = bytearray(magic)
        self.last = {}  # oid -> position of its newest record
        self.tid = 0x03E8 << 48

    def transaction(self, *records, status=b" ", user=b"", description=b"", extension=b""):
        """Records are (oid, data): bytes, or the position that a back-pointer leads to (0: the object is gone)."""
        self.tid += 1 << 40
        tid = struct.pack(">Q", self.tid)
        start = len(self.bytes)
        head = user + description + extension
        body = bytearray()
        positions = []
        before = dict(self.last)  # as FileStorage does it: not what the same transaction wrote before
        for oid, data in records:
            positions.append(start + 23 + len(head) + len(body))
            prev = before.get(oid, 0)
            body += struct.pack(">Q8sQQHQ", oid, tid, prev, start, 0, len(data) if isinstance(data, bytes) else 0)
            body += data if isinstance(data, bytes) else struct.pack(">Q", data)
            self.last[oid] = positions[-1]
        length = 23 + len(head) + len(body)
        self.bytes += struct.pack(">8sQcHHH", tid, length, status, len(user), len(description), len(extension))
        self.bytes += head + body + struct.pack(">Q", length)
        return tid.hex(), positions

    def write(self, path):
        Path(path).write_bytes(self.bytes)
