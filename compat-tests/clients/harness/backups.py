"""Backs up the `Data.fs` of a server and puts the backup back, in the ways that operators have."""
import json
import shutil
import subprocess
from pathlib import Path

from .files import python_for
from .generations import VENVS
from .server import our_binary


def family(server):
    """`Data.fs` and the files beside it."""
    return sorted(server.directory.glob(server.data_path.name + "*"))


def copy_file(server, backup):
    shutil.copyfile(server.data_path, backup / server.data_path.name)


def copy_family(server, backup):
    for path in family(server):
        shutil.copyfile(path, backup / path.name)


def repozo(server, backup):
    run_repozo(server, "-B", "-F", "-r", backup, "-f", server.data_path)


def zeobackup(server, backup):
    run(zeobackup_program(), "repozo", "-B", "-F", "-z", "-r", backup, "-f", server.data_path)


def in_repository(server, backup):
    """With zeobackup, in a repository of its own."""
    run(zeobackup_program(), "create", "-q", "-r", backup / "repository", "-f", server.data_path)


def at_transaction(server, backup):
    """Notes the last transaction. The backup is made later, and has more."""
    newest = run(zeobackup_program().with_name("zeofs"), "tail", "-n", "1", "--json", server.data_path)
    (backup / "tid").write_text(json.loads(newest)["tid"])


def put_over(server, backup):
    """Like `cp`: the file stays the same one."""
    for path in sorted(backup.iterdir()):
        shutil.copyfile(path, server.directory / path.name)


def put_renamed(server, backup):
    """Like `mv`, and like most tools that are careful."""
    for path in sorted(backup.iterdir()):
        beside = server.directory / ("restored-" + path.name)
        shutil.copyfile(path, beside)
        beside.rename(server.directory / path.name)


def put_alone(server, backup):
    """As on a new machine: nothing is there but what was in the backup."""
    for path in family(server):
        path.unlink()
    put_renamed(server, backup)


def put_by_repozo(server, backup):
    run_repozo(server, "-R", "-r", backup, "-o", server.data_path)


def put_by_zeobackup(server, backup):
    run(zeobackup_program(), "repozo", "-R", "-r", backup, "-o", server.data_path)


def put_by_zeobackup_after_python(server, backup):
    """Python's server wrote last: it leaves no note of what clients may know."""
    server.data_path.with_name(server.data_path.name + ".tmp").write_bytes(b"")
    put_by_zeobackup(server, backup)


def put_from_repository(server, backup):
    run(zeobackup_program(), "restore", "-r", backup / "repository", "-f", server.data_path)


def put_after_a_lost_disk(server, backup):
    """Nothing is left that tells what clients may know."""
    for path in family(server):
        path.unlink()
    put_from_repository(server, backup)


def put_to_transaction(server, backup):
    """Of a backup that has the lost time, too."""
    in_repository(server, backup)
    tid = (backup / "tid").read_text()
    run(zeobackup_program(), "restore", "-r", backup / "repository", "-f", server.data_path, "--to-tid", tid)


def zeobackup_program():
    """Beside the server under test."""
    return Path(our_binary()).resolve().with_name("zeobackup")


def remove_index(server):
    server.data_path.with_name(server.data_path.name + ".index").unlink(missing_ok=True)


def run_repozo(server, *arguments):
    run(VENVS / python_for(server.data_path) / "bin" / "python", "-m", "ZODB.scripts.repozo", *arguments)


def run(program, *arguments):
    """What it prints; a failure is an error."""
    done = subprocess.run([str(program), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} ended with {done.returncode}: {done.stdout}")
    return done.stdout
