"""Runs Python's repozo and this program's on the same files, and changes the database in between."""
import hashlib
import os
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Failure(Exception):
    """The programs do not agree."""


def check(condition, message):
    if not condition:
        raise Failure(message)


class Pair:
    """A directory with a database, and two programs that back it up."""

    def __init__(self, directory, python, ours):
        self.directory, self.python, self.ours = directory, python, ours
        self.database = directory / 'Data.fs'
        self.environment = dict(os.environ, PYTHONHASHSEED='0', LC_ALL='C.UTF-8')

    def run(self, program, *arguments, rc=0, stdout=None):
        """stderr of `ours` or `python`; fails if the exit code is another one."""
        command = [str(self.ours), 'repozo'] if program == 'ours' else [str(self.python), '-m', 'ZODB.scripts.repozo']
        done = subprocess.run(command + [str(a) for a in arguments], cwd=self.directory, env=self.environment,
                              stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE)
        error = done.stderr.decode('utf-8', 'replace')
        said = f'{program} {" ".join(map(str, arguments))} ended with {done.returncode}: {error}'
        check(rc is None or done.returncode == rc, said)
        check(stdout or not done.stdout or '-h' in arguments, f'{program} prints on stdout: {done.stdout!r}')
        self.code = done.returncode
        return error

    def change(self, *steps):
        """Commits, packs: see database.py."""
        command = [str(self.python), str(HERE / 'database.py'), str(self.database)] + [str(s) for s in steps]
        subprocess.run(command, check=True, cwd=self.directory, env=self.environment)

    def bytes(self):
        return self.database.read_bytes()

    def restored(self, program, repository, *arguments):
        """The bytes that a restore yields, and those of its index."""
        target = self.directory / f'restored-by-{program}.fs'
        for path in self.directory.glob(target.name + '*'):
            path.unlink()
        if program == 'python' and not self.verifies_restores():
            arguments = [a for a in arguments if a != '-w']
        self.run(program, '-R', '-r', repository, '-o', target.name, *arguments)
        index = target.with_name(target.name + '.index')
        return target.read_bytes(), index.read_bytes() if index.exists() else None

    def verifies_restores(self):
        """Whether this Python's repozo knows -w."""
        help = [str(self.python), '-m', 'ZODB.scripts.repozo', '-h']
        return '--with-verify' in subprocess.run(help, stdout=subprocess.PIPE, text=True).stdout

    def data(self, repository):
        """Names of fulls and deltas, oldest first."""
        ends = ('.fs', '.fsz', '.deltafs', '.deltafsz')
        return sorted(p.name for p in (self.directory / repository).iterdir() if p.name.endswith(ends))

    def dat(self, repository):
        """The newest dat file."""
        return max((self.directory / repository).glob('*.dat'))


def next_second():
    """Names of backups have seconds."""
    now = time.time()
    time.sleep(1.02 - now % 1)


def md5(data):
    return hashlib.md5(data).hexdigest()
