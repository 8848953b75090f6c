"""A PostgreSQL server of the tests' own, and what must be true of RelStorage's tables at any time."""
import glob
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "postgres"

# Queries that must return nothing.
WITH_HISTORY = {
    "the current revision is the newest one":
        "select zoid from current_object c where tid <> (select max(tid) from object_state s where s.zoid = c.zoid)",
    "every object has a current revision":
        "select distinct zoid from object_state where zoid not in (select zoid from current_object)",
    "no two revisions replace the same one":
        "select zoid, prev_tid from object_state where prev_tid > 0 group by 1, 2 having count(*) > 1",
    "a revision replaces an earlier one": "select zoid, tid from object_state where prev_tid >= tid",
    "the md5 of each state is right": "select zoid, tid from object_state where md5(state) <> md5 or (md5 is null) <> (state is null)",
}
WITHOUT_HISTORY = {
    "a blob is of the object's state": "select b.zoid from blob_chunk b join object_state s using (zoid) where b.tid > s.tid",
    "the newest tid is noted":
        "select tid from runzeo_last where tid < (select max(tid) from object_state where tid <= "
        "(select max(tid) from runzeo_writers))",
    "it is noted once": "select count(*) from runzeo_last having count(*) <> 1",
}
INVARIANTS = {
    "the size of each state is right":
        "select zoid, tid from object_state where state_size <> coalesce(octet_length(state), 0)",
    "each blob has its large object":
        "select chunk from blob_chunk where chunk not in (select oid from pg_largeobject_metadata)",
    "each large object has its blob":
        "select oid from pg_largeobject_metadata where oid not in (select chunk from blob_chunk "
        "union all select chunk from runzeo_uploads)",
    "a blob is one large object": "select zoid from blob_chunk where chunk_num <> 0",
    "object ids are given out once":
        "select max(zoid) from object_state having max(zoid) > (select last_value * 16 from zoid_seq)",
    "no lock is left": "select * from pg_locks where locktype = 'advisory' and database = "
                       "(select oid from pg_database where datname = current_database())",
    "there was no deadlock": "select deadlocks from pg_stat_database where datname = current_database() and deadlocks > 0",
}


class Database:
    def __init__(self, directory):
        self.directory = directory
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/psql")) or [shutil.which("psql")]
        self.psql = found[-1]

    @property
    def socket(self):
        return self.directory / "socket"

    def start(self, *more):
        """Starts it, for the first time or again. `False`: PostgreSQL is not installed."""
        command = [str(SCRIPT), "start", str(self.directory), "--set", "max_connections=200", *more]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode not in (0, 77):
            raise RuntimeError("PostgreSQL does not start")
        return done.returncode == 0

    def stop(self, how="immediate"):
        subprocess.run([str(SCRIPT), "stop", str(self.directory), how], check=False)

    def follow(self, primary):
        """Starts a standby of another server."""
        subprocess.run([str(SCRIPT), "standby", str(self.directory), str(primary.directory)], check=True)

    def promote(self):
        subprocess.run([str(SCRIPT), "promote", str(self.directory)], check=True)

    def sql(self, text, database="postgres"):
        command = [self.psql, "-qAt", "-h", str(self.socket), "-U", "postgres", "-d", database, "-c", text]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def create(self, name):
        """Returns the connection string of a new database."""
        self.sql(f"create database {name}")
        return f"host={self.socket} user=postgres dbname={name}"

    def kill(self):
        """SIGKILL of the process that has started all others. These end by themselves."""
        pid = int((self.directory / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def start_again(self, *more):
        """After a kill: as long as one of the processes is left, no new server starts."""
        deadline = time.time() + 60
        while True:
            try:
                return self.start(*more)
            except RuntimeError:
                if time.time() > deadline:
                    raise
                time.sleep(0.2)

    def session(self, name, kind):
        """The process of a server's session of this kind, such as `writer`."""
        found = self.sql("select pid from pg_stat_activity where application_name like "
                         f"'runzeo: {kind}%' and datname = '{name}' order by backend_start limit 1")
        return int(found) if found else None

    def terminate_one(self, name):
        """Ends one of the servers' sessions."""
        self.sql("select pg_terminate_backend(pid) from (select pid from pg_stat_activity where application_name like "
                 f"'runzeo:%' and datname = '{name}' order by random() limit 1) one", name)


def broken_invariants(database, name, keep_history):
    broken = []
    for what, query in {**INVARIANTS, **(WITH_HISTORY if keep_history else WITHOUT_HISTORY)}.items():
        found = database.sql(query, name)
        if found:
            broken.append(f"not true that {what}: {found[:300]}")
    return broken
