"""Looks at Data.fs with Python's own FileStorage, in the environment whose magic it has."""
import json
import subprocess
from pathlib import Path

from .generations import VENVS

SCRIPT = Path(__file__).resolve().parent.parent / "filestorage.py"


class PythonRefused(Exception):
    """Python's FileStorage would not open or read the file."""


def python_for(path):
    """FS21 is read by Python 2 only, FS30 by Python 3 only."""
    magic = Path(path).read_bytes()[:4] if Path(path).stat().st_size < 1 << 20 else open(path, "rb").read(4)
    return "zeo4-py27" if magic == b"FS21" else "zeo6-py311"


def look(command, path, *arguments, environment=None):
    """The JSON lines that `filestorage.py` prints."""
    environment = environment or python_for(path)
    done = subprocess.run([str(VENVS / environment / "bin" / "python"), str(SCRIPT), command, str(path),
                           *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise PythonRefused(f"{environment}: {done.stderr.decode(errors='replace')[-800:]}")
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def dump(path, **kw):
    return look("dump", path, **kw)


def index(path, **kw):
    return look("index", path, **kw)[0]


def everything(path, **kw):
    """Opens for writing first, which cuts a torn tail."""
    return look("everything", path, **kw)[0]


def current(path, **kw):
    return look("current", path, **kw)[0]


def blobs(path, directory, **kw):
    """[oid, tid, length, hash] of every blob that has a record."""
    return look("blobs", path, directory, **kw)
