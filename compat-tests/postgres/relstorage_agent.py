"""One client of RelStorage beside our servers: counts or watches the two counters of the race. Prints its result.

    relstorage_agent.py count|watch DSN SECONDS [history-free]
"""
import json
import sys
import time

import transaction
import ZODB
from relstorage.adapters.postgresql import PostgreSQLAdapter
from relstorage.options import Options
from relstorage.storage import RelStorage
from ZODB.POSException import ConflictError


def storage(dsn, keep_history, **others):
    options = Options(keep_history=keep_history, cache_local_mb=10, **others)
    return RelStorage(PostgreSQLAdapter(dsn=dsn, options=options), options=options)


def main(role, dsn, seconds, keep_history):
    db = ZODB.DB(storage(dsn, keep_history))
    conn = db.open()
    result = {"done": 0, "conflicts": 0, "torn": 0, "reads": 0, "back": 0}
    last = 0
    deadline = time.time() + seconds
    while time.time() < deadline:
        try:
            transaction.begin()
            root = conn.root()
            x, y = root["x"][0], root["y"][0]
            result["reads"] += 1
            result["torn"] += x != y
            result["back"] += x < last
            last = x
            if role == "count" and x == y:
                root["x"][0] = x + 1
                root["y"][0] = y + 1
                transaction.commit()
                result["done"] += 1
            else:
                transaction.abort()
        except ConflictError:
            # RelStorage's CacheConsistencyError is none: it ends this program.
            result["conflicts"] += 1
            transaction.abort()
    print(json.dumps(result))
    conn.close()
    db.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), "history-free" not in sys.argv[4:])
