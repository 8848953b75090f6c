"""One client of the chaos: random transactions of a ZODB connection; writes down what it has seen and done.

    chaos_client.py OPTIONS     JSON, see `chaos.py`

It runs on Python 2.7 and 3. A line of JSON for each transaction. Every commit has a description of its own, which is also
the value that it gives its objects. No error of the network ends the program: it goes on until the file `end` is there,
and it has succeeded once more.
"""
import json
import os
import random
import socket
import sys
import threading
import time

import transaction
import ZODB
import ZODB.serialize
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage
from ZODB.POSException import ConflictError
from ZODB.utils import p64, u64


# Python 2.7 with ZODB 3 reads no later one.
if hasattr(ZODB.serialize, "_protocol"):
    ZODB.serialize._protocol = 2


def keep_alive():
    """TCP asks for a sign of life on all connections. No client library of ZEO has it switched on: one that waits for an
    answer would wait for ever if its server is killed while the network is cut."""
    while True:
        for number in os.listdir("/proc/self/fd"):
            try:
                if os.readlink("/proc/self/fd/" + number).startswith("socket:"):
                    one = socket.fromfd(int(number), socket.AF_INET, socket.SOCK_STREAM)
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for name, value in (("IDLE", 5), ("INTVL", 2), ("CNT", 5)):
                        one.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_KEEP" + name), value)
                    one.close()
            except (OSError, socket.error):
                pass  # closed, or no TCP
        time.sleep(1)


def connect(options):
    addresses = [(str(host), port) for host, port in options["addresses"]]
    return ClientStorage(addresses, wait_timeout=30, min_disconnect_poll=0.2, max_disconnect_poll=0.5,
                         read_only=options.get("read_only", False), read_only_fallback=options.get("fallback", False))


def setup(options):
    """Makes the objects, and garbage that a pack removes; returns their oids."""
    db = ZODB.DB(connect(options))
    conn = db.open()
    for number in range(10):
        transaction.begin()
        if not number:
            conn.root()["cells"] = [PersistentMapping() for _ in range(options["cells"])]
        for one in conn.root()["cells"]:
            one["v"] = "setup %d" % number
            one["filler"] = "x" * 5000
        transaction.get().note(u"setup %d" % number)
        transaction.commit()
    oids = [u64(one._p_oid) for one in conn.root()["cells"]]
    conn.close()
    db.close()
    return oids


class Client(object):
    def __init__(self, options):
        self.options, self.name = options, options["name"]
        self.dice = random.Random(options["seed"])
        self.log = open(options["log"], "w", buffering=1)
        self.count = 0
        self.storage = connect(options)
        self.db = ZODB.DB(self.storage)
        self.tm = transaction.TransactionManager()
        self.conn = self.db.open(transaction_manager=self.tm)
        inner = self.conn._storage.tpc_finish

        def finish(*args, **kw):
            self.is_finishing = True
            before = self.storage._server_addr
            result = inner(*args, **kw)
            self.server = before if self.storage._server_addr == before else None
            return result

        self.conn._storage.tpc_finish = finish

    def work(self):
        """One transaction. Returns whether it has succeeded."""
        reads, writes, tid, outcome, error, began = {}, [], None, "failed", None, time.time()
        self.is_finishing, self.server = False, None
        try:
            self.tm.begin()
            chosen = [self.conn.get(p64(oid)) for oid in self.dice.sample(self.options["oids"], 5)]
            for one in chosen:
                # Asked for, not only found where it was read before.
                if self.dice.random() < 0.3:
                    one._p_deactivate()
                value = one["v"]
                reads[u64(one._p_oid)] = ["%016x" % u64(one._p_serial), value]
            if self.options["writes"] and self.dice.random() < 0.7:
                self.count += 1
                value = "%s %d" % (self.name, self.count)
                for one in chosen[:self.dice.randint(1, 3)]:
                    writes.append(u64(one._p_oid))
                    one["v"] = value
                    one["filler"] = "x" * self.dice.choice([0, 10, 3000])
                self.tm.get().note(u"" + value)
                self.tm.commit()
                outcome, tid = "committed", "%016x" % u64(chosen[0]._p_serial)
            else:
                self.tm.abort()
                outcome = "read"
        except Exception as raised:
            error = "%s: %s" % (type(raised).__name__, str(raised)[:200])
            if self.is_finishing:
                outcome = "unknown"
            elif isinstance(raised, ConflictError):
                outcome = "conflict"
            self.give_up()
        record = dict(outcome=outcome, reads=reads, writes=writes, tid=tid, number=self.count, began=began,
                      ended=time.time(), error=error, server=self.server)
        self.log.write(json.dumps(record) + "\n")
        return outcome in ("committed", "read")

    def give_up(self):
        try:
            self.tm.abort()
        except Exception:
            pass

    def run(self):
        while True:
            is_over = os.path.exists(self.options["end"])
            if self.work():
                if is_over:
                    break
                time.sleep(self.dice.choice([0, 0, 0.01, 0.05]))
            else:
                time.sleep(0.03)
        self.log.write('{"outcome": "end"}\n')
        # Clients of some versions wait in their threads for servers.
        self.log.close()
        os._exit(0)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["name"] == "setup":
        print(json.dumps(setup(given)))
    else:
        thread = threading.Thread(target=keep_alive)
        thread.daemon = True
        thread.start()
        Client(given).run()
