"""The image of contrib/container, built by buildah and run by podman.

No registry is asked: the base is a fresh Debian of debootstrap under the name of the image that the description wants, and the stage that
compiles is replaced by programs that are there.
"""
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BASE = 'docker.io/library/debian:bookworm-slim'
NAME = 'localhost/runzeo'
PATIENCE = 60


class Engine:
    """Podman and buildah with a store of their own."""

    def __init__(self, directory):
        self.store = ['--root', f'{directory}/store', '--runroot', f'{directory}/run', '--storage-driver', 'vfs']

    def podman(self, *words, **more):
        # runc also runs with control groups of version 1.
        runtime = ['--runtime', 'runc'] if shutil.which('runc') else []
        command = ['podman', *self.store, '--cgroup-manager', 'cgroupfs', *runtime, *words]
        return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)

    def run(self, *words):
        # The limits that an engine sets by itself are higher than those of the machine, which not every root may raise.
        return self.podman('run', '--network', 'host', '--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1000:1000', *words)

    def well(self, *words):
        done = self.podman(*words)
        assert done.returncode == 0, (words, done.stdout)
        return done.stdout

    def build(self, programs, work):
        """Builds the image: only its last stage, from the programs."""
        compiled = Path(work, 'compiled/out')
        compiled.mkdir(parents=True)
        for source in (ROOT / 'src/bin').glob('*.rs'):
            shutil.copy(programs / source.stem, compiled)
        # The format of Docker, for the other one has no health checks.
        command = ['buildah', *self.store, 'bud', '--isolation', 'chroot', '--pull-never', '--format', 'docker',
                   '--build-context', f'build={compiled.parent}', '-f', ROOT / 'contrib/container/Containerfile', '-t', NAME, ROOT]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


def why_no_engine(engine, tar):
    """The base is imported, and runs a program; otherwise the text says why not."""
    if os.getuid() != 0:
        return 'not root'
    missing = [name for name in ('buildah', 'podman') if not shutil.which(name)]
    if missing:
        return f'no {missing[0]}'
    imported = engine.podman('import', tar, BASE)
    if imported.returncode:
        return imported.stdout[-500:]
    tried = engine.run('--rm', BASE, 'true')
    return tried.stdout[-500:] if tried.returncode else None


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def serves(engine, user, python):
    """A server of the image, with a root that is read-only: health, a commit, an end, and the commit after another start."""
    port = free_port()
    name = user.replace(':', '-') or 'default'
    arguments = ['-d', '--read-only', '-v', f'data-{name}:/data', '-e', f'ZEO_PORT={port}', *(['--user', user] if user else [])]
    for count in (1, 2):
        begun = engine.run('--name', name, *arguments, NAME)
        assert begun.returncode == 0, begun.stdout
        until = time.monotonic() + PATIENCE
        while engine.podman('healthcheck', 'run', name).returncode:
            assert time.monotonic() < until, engine.podman('logs', name).stdout
            time.sleep(0.2)
        if python.exists():
            program = 'import sys, ZEO, transaction\n' \
                      'db = ZEO.DB(("127.0.0.1", int(sys.argv[1])))\n' \
                      'root = db.open().root()\n' \
                      'root["count"] = root.get("count", 0) + 1\n' \
                      'transaction.commit()\n' \
                      'print(root["count"])\n'
            done = subprocess.run([python, '-c', program, str(port)], stdout=subprocess.PIPE, text=True, check=True)
            assert done.stdout == f'{count}\n', done.stdout
        engine.well('stop', '--time', '60', name)
        said = engine.podman('logs', name).stdout
        assert 'ZEO.runzeo (1) terminated by SIGTERM' in said, said
        assert engine.well('inspect', '--format', '{{.State.ExitCode}}', name).split()[-1] == '0', said
        engine.well('rm', name)


def is_built_and_serves(engine, programs, work, python):
    engine.build(programs, work)
    for user in ('', '12345:0'):
        serves(engine, user, python)
    other = engine.run('--rm', NAME, 'zeobackup', '--version')
    # Beside what podman says about a machine without systemd.
    assert other.returncode == 0 and '\nzeobackup ' in f'\n{other.stdout}', other.stdout
