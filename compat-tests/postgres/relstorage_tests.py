"""RelStorage's own tests with PostgreSQL, as its package has them, in databases that our server has created.

As a program, in the environment of RelStorage: runs the tests, in the databases that the environment names (see `run`), and
prints the counts and what has failed as JSON.
"""
import json
import os
import subprocess
import sys
import types
import unittest
from pathlib import Path

# What the package needs for its tests, and the environment of RelStorage has not.
BORROWED = "zeo6-py311"
ROLE = DATABASE = "relstoragetest"
SUFFIXES = ["", "_hf", "2", "2_hf"]

# Tests by name, and why they are not run.
LEFT_OUT = {
    "test_db_options_compliance": "about classes, without a database; needs PyHamcrest",
    "test_db_driver_compliance": "about classes, without a database; needs PyHamcrest",
    "checkConfigureViaZConfig": "about options, before a database is opened; needs PyHamcrest",
    "test_zapping_with_many_blobs": "takes long, and is about a command of RelStorage",
    "checkBTreesLengthStress": "takes long; `mixed` has merged counters",
    "test_many_clients": "takes long, and is about the files of RelStorage's cache of blobs",
    "testLargeBlob": "takes long",
    "check16MObject": "takes long",
    "checkTL_ConflictingReadCurrent": "wants a wait of 0.1 s to end within 0.3 s, which a busy machine does not hold",
}
# These fail for root, who may write everything.
NOT_AS_ROOT = {"test_committed_cannot_open_for_write": "root may write files that are read-only"}


def left_out():
    return {**LEFT_OUT, **(NOT_AS_ROOT if os.getuid() == 0 else {})}


def run(top, database, python, section, failures):
    from harness.server import Program, Server, clean_environment

    database.sql(f"create role {ROLE} login superuser")
    databases = [DATABASE + suffix for suffix in SUFFIXES]
    dsns = [database.create(name).replace("user=postgres", f"user={ROLE}") for name in databases]

    def serve():
        servers = [Server(Program.ours(), top / name, sections=section(dsn, not name.endswith("_hf"))).start()
                   for name, dsn in zip(databases, dsns)]
        failures.extend(f"{server.directory.name}: exit code" for server in servers if server.stop())

    serve()
    work = top / "work"
    work.mkdir()
    environment = clean_environment(RS_DB_HOST=str(database.socket), RELSTORAGETEST_DBNAME=DATABASE, RS_SMALL_BLOB="1",
                                    TMPDIR=str(work))
    done = subprocess.run([str(python), __file__], cwd=work, env=environment, stdout=subprocess.PIPE, timeout=900,
                          stderr=open(top / "tests.err", "w"), text=True, check=False)
    if done.returncode:
        failures.append(f"{Path(__file__).name}: exit code {done.returncode}: {(top / 'tests.err').read_text()[-1500:]}")
        return
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"  {result['run']} tests of RelStorage {result['version']}, {result['skipped']} skipped by themselves, "
          f"{result['left out']} left out", flush=True)
    failures.extend(f"{test}: {error[-1500:]}" for test, error in result["failed"])
    if result["run"] < 250:
        failures.append("most of the tests are missing")
    # What they have left, our server opens.
    serve()


def tests_of(suite):
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from tests_of(one)
        else:
            yield one


def main():
    import importlib.metadata

    venvs = Path(sys.prefix).parent
    sys.path.append(str(venvs / BORROWED / "lib" / "python3.11" / "site-packages"))
    # Of this package only a clock that never stands still is used.
    for name in ("nti", "nti.testing", "nti.testing.time"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    clock = type("Clock", (), {"testSetUp": lambda self: None, "testTearDown": lambda self: None})
    sys.modules["nti.testing.time"].MonotonicallyIncreasingTimeLayerMixin = clock
    import relstorage.tests.testpostgresql

    every = list(tests_of(relstorage.tests.testpostgresql.test_suite()))
    # The other drivers are not installed.
    others = ("gevent", "psycopg2cffi", "pg8000")
    mine = [one for one in every if not any(other in type(one).__name__ for other in others)]
    chosen = [one for one in mine if one._testMethodName not in left_out()]
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stderr).run(unittest.TestSuite(chosen))
    print(json.dumps({
        "run": result.testsRun,
        "skipped": len(result.skipped),
        "left out": len(mine) - len(chosen),
        "failed": [(test.id(), error) for test, error in result.failures + result.errors],
        "version": importlib.metadata.version("RelStorage"),
    }))


if __name__ == "__main__":
    main()
