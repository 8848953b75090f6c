"""The case `mixed`: random work of clients of every kind at once, and one order of transactions that explains it."""
import json
import re
import subprocess
import time

import mixed_check
from database import broken_invariants
from harness import generations
from harness.server import Program, Server, clean_environment

PYTHON = generations.VENVS / "relstorage-py311" / "bin" / "python"
PROGRAM = __file__.replace("mixed.py", "mixed_client.py")
CELLS = 40
ROWS = "select zoid, tid, state is null, coalesce(substring(encode(state, 'escape') from 'v-[a-z0-9]+-[0-9]*-?'), '') " \
       "from object_state"

# An undo through a server takes no lock against the packs of RelStorage's clients (docs/postgresql.md), so they do not
# pack while it undoes. An undo by RelStorage overwrites what was committed a moment before, so one of its clients undoes,
# and what it may undo only that client changes; all others read it. A pack by RelStorage ends with an error if garbage is
# deleted that it is about to remove, so with history nothing is deleted beside it.
MIXES = {
    "undo": {"keep_history": True, "relstorage_packs": False, "deletes": True},
    "pack": {"keep_history": True, "relstorage_packs": True, "deletes": False},
    "history-free": {"keep_history": False, "relstorage_packs": True, "deletes": True},
}


def mixes(keep_history):
    return [name for name, mix in MIXES.items() if mix["keep_history"] is keep_history]


def clients_of(mix, servers):
    """Name, kind, and what it may."""
    undo = not mix["relstorage_packs"]
    base = {"sync": False, "undo": [], "pack": False, "is_special": False, "at": 0,
            "deletes": mix["deletes"]}
    found = [
        {"name": "rs1", "kind": "relstorage", "pack": mix["relstorage_packs"]},
        {"name": "rs2", "kind": "relstorage"},
        {"name": "rsu", "kind": "relstorage", "is_special": True, "undo": ["special"] if undo else []},
    ]
    for number in range(servers):
        found.append({"name": f"zeo{number}", "kind": "zeo", "at": number, "undo": ["cells"] if undo else [],
                      "pack": number == 0, "sync": number % 2 == 1})
    found.append({"name": "wander", "kind": "wander"})
    return [{**base, "number": number, **one} for number, one in enumerate(found)]


def python(options, **more):
    return subprocess.Popen([str(PYTHON), PROGRAM, json.dumps(options)], env=clean_environment(), text=True, **more)


def tid_of(seconds):
    """The transaction id of a time."""
    year, month, day, hour, minute = time.gmtime(seconds)[:5]
    minutes = (((year - 1900) * 12 + month - 1) * 31 + day - 1) * 1440 + hour * 60 + minute
    return (minutes << 32) + int(seconds % 60 * (1 << 32) / 60)


def numbers(mapping):
    return {int(key): value for key, value in mapping.items()}


def log_of(path, failures):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    if not found or found[-1]["what"] != "end":
        failures.append(f"{path.name} has no end")
    for record in found:
        for key in ("reads", "writes", "deltas"):
            if key in record:
                record[key] = numbers(record[key])
        if record["what"] == "pack":
            record["at"] = tid_of(record["at"])
    return found


def rows_of(database, name):
    for line in database.sql(ROWS, name).splitlines():
        oid, tid, is_null, value = line.split("|")
        yield int(oid), int(tid), is_null == "t", value or None


def check_deadlocks(database, failures):
    """Two clients of RelStorage can wait for each other, if each changes what the other one's readCurrent names. A
    server of ours takes part in none."""
    log = (database.directory / "log").read_text(errors="replace")
    found = re.findall(r"deadlock detected\n.*?HINT", log, re.DOTALL)
    if len(found) != log.count("deadlock detected"):
        failures.append("PostgreSQL's log has deadlocks of another form")
    for one in found:
        queries = re.findall(r"^\tProcess \d+: (.*)", one, re.MULTILINE)
        if not queries or not all(query.startswith("SELECT * FROM lock_objects_and_detect_conflicts") for query in queries):
            failures.append(f"a deadlock: {one}")
    if found:
        print(f"  {len(found)} deadlocks between clients of RelStorage", flush=True)


def run(kind, top, database, options, section, failures):
    mixed_check.test()
    seed, mix = options.seed, MIXES[kind]
    # The three mixes together take twice the time of another case.
    seconds = options.seconds * 2 / 3
    keep_history = mix["keep_history"]
    name = f"mixed_{kind.replace('-', '_')}"
    dsn = database.create(name)
    servers = [Server(Program.ours(), top / f"server{number}", sections=section(dsn, keep_history)).start()
               for number in range(options.servers)]
    processes = {}
    try:
        clients = clients_of(mix, options.servers)
        common = {"dsn": dsn, "keep_history": keep_history, "addresses": [list(one.address) for one in servers],
                  "seconds": seconds}
        setup = python({**common, "kind": "setup", "cells": CELLS, "clients": len(clients)}, stdout=subprocess.PIPE)
        start = json.loads(setup.communicate(timeout=60)[0])
        for one in clients:
            given = {**common, **one, "seed": f"{seed} {one['name']}", "oids": start["oids"],
                     "log": str(top / f"{one['name']}.log")}
            if one["name"] == "rs1":
                # The first client of RelStorage adds its functions; two at a time would be in each other's way.
                python({**given, "seconds": 0}).wait(60)
            processes[one["name"]] = python(given, stderr=open(top / f"{one['name']}.err", "w"))
        for one, process in processes.items():
            code = process.wait(seconds + 180)
            if code != 0:
                failures.append(f"{one}: exit code {code}: {(top / f'{one}.err').read_text()[-1500:]}")
        for server in servers:
            if server.stop():
                failures.append(f"{server.directory.name}: exit code")
        logs = {one: log_of(top / f"{one}.log", failures) for one in processes}
        tids = set()
        if keep_history:
            tids = {int(tid) for tid in database.sql("select tid from transaction", name).split()}
        history = mixed_check.History((start["tid"], numbers(start["values"])), logs, list(rows_of(database, name)), tids,
                                      keep_history)
        try:
            print(f"  seed {seed}: {mixed_check.check(history)}", flush=True)
        except mixed_check.Broken as broken:
            failures.append(f"seed {seed}: {broken}")
        broken = broken_invariants(database, name, keep_history)
        failures.extend(one for one in broken if "deadlock" not in one)
        check_deadlocks(database, failures)
    finally:
        for process in processes.values():
            process.kill()
        for server in servers:
            server.kill()
