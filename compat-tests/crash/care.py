"""What takes care of the data while it is changed and the server is killed: scrubs, backups, and their way to another place.

After each kill: the log has no finding, the backups here and there are whole, and each newest one restores to a state that the
file had: byte for byte the beginning of the file, or, if the file was packed since, transactions that clients have sent, with
their blobs. When the server runs again and nothing is committed, both become equal to the file.
"""
import subprocess
import time
from pathlib import Path

from harness import files
from harness.server import our_binary

# What a scrub reports.
ALARMS = ("DAMAGED", "BLOB MISSING", "FINDINGS", "the check of the file has failed", "cannot be used")
# What no kill explains.
BUGS = ("panicked", "a bug")
IN_USE = "is in use by another run"
REPOSITORIES = ("backups", "there")
# The length of a file without transactions.
EMPTY = 4


class NotWhole(Exception):
    """A backup is not what it must be, or a scrub has reported what is not so."""


def program():
    return str(Path(our_binary()).parent / "zeobackup")


def section(directory):
    """Everything as often as it can be: prunes after every second backup, so that they meet what is being sent."""
    return "\n".join([
        "<backup>",
        f"  repository {directory}/backups",
        "  continuous 1s",
        "  schedule every 2s",
        "  keep-last 2",
        f"  command {program()} receive --existing -r {directory}/there",
        "</backup>",
    ])


FILE_KEYS = "scrub-schedule every 1s\nscrub-max-rate 20MB"


def run(directory, *arguments, stdin=b""):
    """Runs zeobackup. A receiver of before the kill may have the repository for a moment."""
    deadline = time.time() + 30
    while True:
        done = subprocess.run([program(), *arguments], cwd=directory, input=stdin, capture_output=True)
        error = done.stderr.decode(errors="replace")
        if IN_USE not in error or time.time() > deadline:
            return done.returncode, done.stdout.decode(errors="replace"), error
        time.sleep(0.05)


def prepare(directory):
    """The server makes no repository."""
    for name in REPOSITORIES:
        if not (directory / name).exists():
            code, _, error = run(directory, "receive", "-r", name, stdin=b"zeobackup stream 1\nend\n")
            if code != 0:
                raise NotWhole(f"{name} cannot be made: {error}")


def backups(directory, name):
    return sorted(path.name for path in (directory / name / "backups").glob("*.json"))


def restore(directory, name):
    """Restores the newest backup to a new place. Returns the file and the blob directory."""
    target = directory / "python" / name
    target.mkdir(parents=True)
    code, _, error = run(directory, "restore", "-r", name, "-f", str(target / "Data.fs"), "-b", str(target / "blobs"))
    if code != 0:
        raise NotWhole(f"{name} cannot be restored: exit code {code}, {error}")
    return target / "Data.fs", target / "blobs"


def check_log(server):
    for line in server.log_text().splitlines():
        if any(what in line for what in ALARMS + BUGS):
            raise NotWhole(f"in the log: {line}")


def wait_for_check(server):
    """A check that has begun after the start."""
    deadline = time.time() + 60
    begun = server.log_text().count("checked in")
    while server.log_text().count("checked in") < begun + 2:
        if time.time() > deadline:
            raise NotWhole(f"the file is not checked:\n{server.talk()}")
        time.sleep(0.05)


def check_after_kill(directory, known):
    """`directory` has the file as the kill left it. Returns how many restored files were its beginning, and others."""
    same = other = 0
    now = (directory / "Data.fs").read_bytes()
    for name in REPOSITORIES:
        code, out, error = run(directory, "verify", "-r", name)
        if code != 0:
            raise NotWhole(f"{name} is not whole: exit code {code}, {out}{error}")
        if not backups(directory, name):
            continue
        path, blobs = restore(directory, name)
        # The magic of an empty file becomes that of the client who commits first.
        if path.stat().st_size == EMPTY or now.startswith(path.read_bytes()):
            same += 1
        elif known.packed:
            other += 1
        else:
            raise NotWhole(f"the newest backup in {name} is no beginning of the file, which was never packed")
        if path.stat().st_size > EMPTY:
            dumped = files.everything(path)["transactions"]
            last = max((txn["tid"] for txn in dumped), default="")
            known.check_dump(dumped, f"the newest backup in {name}", up_to=last)
            known.check_blobs(dumped, blobs)
    return same, other


def check_at_rest(directory, server):
    """The server runs, and nothing is committed: what is there becomes equal to the file."""
    now = (directory / "Data.fs").read_bytes()
    # A prune reads the whole repository first.
    deadline = time.time() + 300
    wanted = f',"len":{len(now)},"last_tid":'
    while True:
        newest = [backups(directory, name)[-1:] for name in REPOSITORIES]
        # The same backup may be kept here already, and there be one that stays until the next.
        times = {name.split(".json")[0].replace(".until-next", "") for names in newest for name in names}
        try:
            if all(newest) and len(times) == 1 and all(
                    wanted in (directory / name / "backups" / newest[n][0]).read_text()
                    for n, name in enumerate(REPOSITORIES)):
                break
        except FileNotFoundError:
            pass
        if time.time() > deadline:
            raise NotWhole(f"{newest} have not the {len(now)} bytes of the file:\n{server.talk()}")
        time.sleep(0.05)
    for name in REPOSITORIES:
        path, _ = restore(directory, name)
        if path.read_bytes() != now:
            raise NotWhole(f"the newest backup in {name} is not the file")
    # The retention of the other place is its own.
    code, _, error = run(directory, "prune", "-r", "there", "--keep-last", "2")
    if code != 0:
        raise NotWhole(f"the other place cannot be pruned: exit code {code}, {error}")
