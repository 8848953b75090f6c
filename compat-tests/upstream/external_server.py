"""Starts the server under test where the upstream suites would start their own.

Upstream's suites start servers through a few functions of ZEO.tests.forker (ZODB3, ZEO 4: a child process
with an extra port for its administration) or ZEO._forker (ZEO 5 and 6: a process or thread). install() puts
others in their place: they write the same configuration and run $RUNZEO_BINARY -C FILE in the directory of
the test. Runs in every Python from 2.7 on, and is forgotten between two tests by reset().
"""
import binascii
import errno
import fcntl
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
# By name: some tests put a clock of their own in the place of time.time and time.sleep.
from time import sleep, time as now

BINARY = os.environ['RUNZEO_BINARY']
# If set, a server of ours stands between the clients and another one that has the storage: 'ours', or the Python whose
# runzeo that is.
ROOT = os.environ.get('RUNZEO_ROOT')
# If set, the directory of the socket of a PostgreSQL server, which has the storages in place of files.
POSTGRES = os.environ.get('RUNZEO_POSTGRES')
PYTHON_SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'python_server.py')
COMMAND = [sys.executable, PYTHON_SERVER] if BINARY == 'python' else [BINARY]

START_SECONDS = 30
STOP_SECONDS = 20

# All of the current test: servers by pid, those that were stopped, sockets that reserve ports, and what went
# wrong beside the test.
running = {}
# The root of a server in the middle, by the pid of that one.
roots = {}
stopped = []
reserved = []
server_errors = []
started = [0]
served = [0]
# Servers without a server in the middle, of those that were started, and why.
direct = []
# Whether the current test needs a server that resolves conflicts on classes that only Python knows.
resolves = [False]
# Whether the current test calls the extension method that Python's FileStorage has for tests.
answers = [False]
# Whether the clients of the current test use the server's own directory of blobs: then so must a server in the middle.
shares_blobs = [False]


def reset():
    """Forgets the test that has ended; a server that it left behind is killed."""
    for process in running.values():
        try:
            process.kill()
        except OSError:
            pass
    for process in list(running.values()) + stopped:
        process.wait()
    running.clear()
    del stopped[:]
    while reserved:
        reserved.pop().close()
    del server_errors[:]
    del direct[:]
    started[0] = served[0] = 0


def get_port(test=None):
    """A port that is free, and so is the next one; ours until the test ends.

    Workers share the machine. A UDP socket of the same number says that a port is taken, without being in
    the way of the TCP socket that the server will open.
    """
    for port in _candidates():
        taken = []
        try:
            for number in port, port + 1:
                mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                taken.append(mark)
                mark.bind(('127.0.0.1', number))
                probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                try:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(('', number))
                finally:
                    probe.close()
        except socket.error:
            for mark in taken:
                mark.close()
            continue
        reserved.extend(taken)
        return port
    raise RuntimeError('no free port')


def _candidates():
    # Below the range from which the system takes the clients' own ports. The generator of the tests is left
    # alone: some seed it.
    import random
    own = random.Random(os.urandom(8))
    while True:
        yield own.randrange(10000, 15000) * 2


# --- one server process -----------------------------------------------------------------------------

def _start(config, address, protocol, umask=None):
    """Runs the server with that configuration and waits until it answers at the address."""
    started[0] += 1
    environment = dict(os.environ)
    root = _start_root(config, umask) if ROOT else None
    with open(config) as f:
        text = f.read()
    if POSTGRES:
        text = _in_postgres(text)
        with open(config, 'w') as f:
            f.write(text)
    if re.search(r'(?m)^monitor-address', text):
        _reserve_monitor_port()
    if protocol:
        environment['ZEO_SERVER_PROTOCOL'] = protocol if isinstance(protocol, str) else protocol.decode()
    former = None if umask is None else os.umask(umask)
    try:
        process = subprocess.Popen(COMMAND + ['-C', config], env=environment, close_fds=True)
    finally:
        if former is not None:
            os.umask(former)
    running[process.pid] = process
    if root:
        roots[process.pid] = root
    deadline = now() + START_SECONDS
    while not _answers(address, '<ssl>' in text):
        if _exit_status(process.pid) is not None:
            raise RuntimeError('the server ended at once, exit status %r, configuration:\n%s'
                               % (_exit_status(process.pid), text))
        if now() > deadline:
            raise RuntimeError('the server does not listen at %r after %d seconds' % (address, START_SECONDS))
        sleep(.02)
    served[0] += 1
    return process


# The databases that stand for files, by the path of the file.
databases = {}
# Keys of <filestorage> that <relstorage> has too.
KEPT = 'read-only', 'pack-gc'


def _in_postgres(text):
    """The configuration, with a database in place of every file. A file that is opened again is the same database."""
    def database(match):
        path = os.path.abspath(re.search(r'(?m)^\s*path\s+(\S+)', match.group(0)).group(1))
        if path not in databases:
            databases[path] = 'd' + binascii.hexlify(os.urandom(8)).decode()
            _psql('create database %s template template0' % databases[path])
        kept = [line.strip() for line in match.group(0).splitlines() if line.strip().startswith(KEPT)]
        dsn = 'host=%s user=postgres dbname=%s' % (POSTGRES, databases[path])
        return '<relstorage%s>\n%s\n<postgresql>\ndsn %s\n</postgresql>\n</relstorage>' % (
            match.group(1), '\n'.join(kept), dsn)
    changed = re.sub(r'(?s)<filestorage([^>]*)>.*?</filestorage>', database, text)
    return changed if changed == text else '%import relstorage\n' + changed


def _psql(sql):
    # Two at a time cannot copy the same template.
    with open(os.path.join(os.path.dirname(POSTGRES), 'creating'), 'a') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess_popen([os.environ['RUNZEO_PSQL'], '-q', '-h', POSTGRES, '-U', 'postgres', '-c', sql])
        if process.wait() != 0:
            raise RuntimeError('psql: %s' % sql)


# What a section of a root repeats from that of the middle.
FOR_ROOT = 'conflict-resolver', 'client-conflict-resolution', 'read-only', 'invalidation-queue-size'


def _start_root(config, umask):
    """Starts a server of the storages in the configuration, which becomes that of a server in the middle: its storage is
    the other server's. Returns the pid; None if the configuration is not of that kind."""
    with open(config) as f:
        text = f.read()
    zeo = re.search(r'(?s)<zeo>.*?</zeo>\s*', text)
    log = re.search(r'(?s)<eventlog>.*</eventlog>\s*', text)
    runner = re.search(r'(?s)<runner>.*</runner>\s*', text)
    storages = text
    for section in zeo, log, runner:
        storages = storages.replace(section.group(0) if section else '', '')
    named = _outer_sections(storages)
    if 'zeoclient' in storages:
        return None
    if len(named) != 1:
        direct.append('%d storages' % len(named))
        return None
    port = get_port()
    settings = [line.strip() for line in zeo.group(0).splitlines() if line.strip().startswith(FOR_ROOT)]
    if ROOT != 'ours':
        settings = [line for line in settings if not line.startswith('conflict-resolver')]
    root_config = config + '.root'
    with open(root_config, 'w') as f:
        f.write('<zeo>\naddress 127.0.0.1:%d\n%s\n</zeo>\n%s' % (port, '\n'.join(settings), storages))
    name = named[0]
    client = '<zeoclient%s>\nserver 127.0.0.1:%d\nstorage %s\n' % (' ' + name if name else '', port, name or '1')
    if re.search(r'(?m)^\s*read-only\s+(true|yes|on|1)\s*$', text):
        client += 'read-only yes\n'
    blobs = re.search(r'(?m)^\s*blob-dir\s+(\S+)', storages)
    if blobs:
        client += 'blob-dir %s\nshared-blob-dir yes\n' % blobs.group(1) if shares_blobs[0] \
            else 'blob-dir %s.middle\n' % blobs.group(1)
    with open(config, 'w') as f:
        f.write(''.join(section.group(0) for section in (zeo, log, runner) if section) + client + '</zeoclient>\n')
    command = COMMAND if ROOT == 'ours' else [ROOT, PYTHON_SERVER]
    former = None if umask is None else os.umask(umask)
    try:
        process = subprocess_popen(command + ['-C', root_config], close_fds=True)
    finally:
        if former is not None:
            os.umask(former)
    running[process.pid] = process
    deadline = now() + START_SECONDS
    while not _answers(('127.0.0.1', port), False):
        if _exit_status(process.pid) is not None or now() > deadline:
            raise RuntimeError('the root does not listen, configuration:\n%s' % open(root_config).read())
        sleep(.02)
    return process.pid


def _outer_sections(text):
    """The names of the sections that are in no other one, '' for those without a name."""
    names, depth = [], 0
    for line in text.splitlines():
        line = line.strip()
        if line.startswith('</'):
            depth -= 1
        elif line.startswith('<'):
            if depth == 0:
                names.append((line.strip('</>').split() + [''])[1])
            depth += not line.endswith('/>')
    return names


def _for_ours(text):
    """The configuration for our server, where it needs other words or more of them than Python's."""
    if BINARY == 'python':
        return text
    if resolves[0]:
        text = text.replace('</zeo>', '  conflict-resolver %s\n</zeo>' % sys.executable, 1)
    if answers[0] and ROOT in (None, 'ours'):
        text = re.sub(r'(?s)<filestorage>.*?</filestorage>', r'<answering>\n\g<0>\n</answering>', text)
    # It has no Python that could call the function.
    return re.sub(r'(?m)^(\s*)password-function\s+(\S+)', _in_password_file, text)


def _in_password_file(match):
    module, _, function = match.group(2).rpartition('.')
    password = getattr(importlib.import_module(module), function)()
    path = os.path.abspath('password-file')
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') as f:
        f.write(password if isinstance(password, str) else password.decode())
    return '%spassword-file %s' % (match.group(1), path)


def _reserve_monitor_port():
    """The tests of the monitor all use the port 42000: one at a time on this machine."""
    lock = open('/tmp/runzeo-upstream-monitor-%d.lock' % os.getuid(), 'w')
    reserved.append(lock)
    fcntl.flock(lock, fcntl.LOCK_EX)


def _answers(address, tls):
    if isinstance(address, str):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        s = socket.socket(socket.AF_INET6 if ':' in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        address = (address[0] or '127.0.0.1',) + tuple(address[1:])
    try:
        s.connect(address)
    except socket.error as e:
        if e.args[0] not in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT):
            raise
        return False
    else:
        # The greeting comes when the storages are open: from then on there are blob directories to share.
        s.settimeout(START_SECONDS)
        try:
            if tls:
                # What is not TLS is answered too, with an alert or the end.
                s.sendall(b'hello')
                s.recv(1)
                return True
            return bool(s.recv(1))
        except (socket.error, socket.timeout):
            return False
    finally:
        s.close()


def _exit_status(pid):
    """The exit status of a child that has ended, None of one that runs. The child can still be waited for:
    the tests of ZODB3 and ZEO 4 do that themselves."""
    try:
        with open('/proc/%d/stat' % pid) as f:
            fields = f.read().rpartition(')')[2].split()
    except (IOError, OSError):
        return 0
    return int(fields[-1]) if fields[0] in 'ZX' else None


def _stop(pid):
    """SIGTERM, and waits until the process has ended. What is wrong with that is a failure of the test."""
    if pid in roots:
        root = roots.pop(pid)
        _stop(pid)
        pid = root
    if pid not in running:
        return
    # Kept: subprocess waits by itself for a process that nobody refers to, and the test could not any more.
    stopped.append(running.pop(pid))
    if _exit_status(pid) is not None:
        server_errors.append('the server had ended before it was stopped, status %r' % _exit_status(pid))
        return
    os.kill(pid, signal.SIGTERM)
    deadline = now() + STOP_SECONDS
    while _exit_status(pid) is None:
        if now() > deadline:
            server_errors.append('the server did not end within %d seconds of SIGTERM' % STOP_SECONDS)
            os.kill(pid, signal.SIGKILL)
            deadline = float('inf')
        sleep(.01)
    if _exit_status(pid) != 0 and deadline != float('inf'):
        server_errors.append('the server ended on SIGTERM with status %r' % _exit_status(pid))


def _remove_files(storage_conf):
    """Upstream's servers delete their storages when they stop, unless told to keep them."""
    for path in re.findall(r'(?m)^\s*path\s+(\S+)', storage_conf):
        databases.pop(os.path.abspath(path), None)
        for suffix in '', '.index', '.index_tmp', '.tmp', '.pack', '.old':
            try:
                os.remove(path + suffix)
            except OSError:
                pass


# --- ZODB3 and ZEO 4 --------------------------------------------------------------------------------

class _Legacy(object):
    """start_zeo_server and shutdown_zeo_server of ZEO.tests.forker."""

    def __init__(self, forker):
        self.forker = forker
        self.by_admin_address = {}

    def start(self, storage_conf=None, zeo_conf=None, port=None, keep=False, path='Data.fs', protocol=None,
              blob_dir=None, suicide=True, debug=False):
        if not storage_conf:
            storage_conf = '<filestorage>\npath %s\n</filestorage>' % path
            if blob_dir:
                storage_conf = '<blobstorage>\nblob-dir %s\n%s\n</blobstorage>' % (blob_dir, storage_conf)
        if port is None:
            raise AssertionError('no port')
        if isinstance(port, str):
            address, admin_address = port, port + '-test'
        else:
            address, admin_address = ('localhost', port), ('localhost', port + 1)
        if zeo_conf is None or isinstance(zeo_conf, dict):
            settings = self.forker.ZEOConfig(address)
            settings.__dict__.update(zeo_conf or {})
            zeo_conf = settings

        config = tempfile.mktemp('.conf', dir=os.getcwd())
        with open(config, 'w') as f:
            zeo_conf.dump(f)
            f.write(storage_conf)
            f.write('\n')
        with open(config) as f:
            text = _for_ours(f.read())
        with open(config, 'w') as f:
            f.write(text)
        listening = re.search(r'(?m)^address\s+(.*?)\s*$', open(config).read()).group(1)
        # ZODB up to 4 made blob directories private itself, later ones leave that to the umask.
        process = _start(config, ('::1', port) if '::1' in listening else address, protocol, umask=0o077)
        self.by_admin_address[admin_address] = process.pid, keep, storage_conf
        return address, admin_address, process.pid, config

    def stop(self, admin_address):
        pid, keep, storage_conf = self.by_admin_address.pop(admin_address)
        _stop(pid)
        if not keep:
            _remove_files(storage_conf)


# --- ZEO 5 and 6 ------------------------------------------------------------------------------------

class _Modern(object):
    """start_zeo_server of ZEO._forker; shutdown_zeo_server only calls what this returns."""

    def __init__(self, forker):
        self.forker = forker

    def start(self, storage_conf=None, zeo_conf=None, port=None, keep=False, path='Data.fs', protocol=None,
              blob_dir=None, suicide=True, debug=False, threaded=False, start_timeout=33, name=None, log=None,
              show_config=False):
        if not storage_conf:
            storage_conf = '<filestorage>\npath %s\n</filestorage>' % path
        if blob_dir:
            storage_conf = '<blobstorage>\nblob-dir %s\n%s\n</blobstorage>' % (blob_dir, storage_conf)
        if zeo_conf is None or isinstance(zeo_conf, dict):
            address = port if isinstance(port, str) else ('127.0.0.1', port or 0)
            settings = self.forker.ZEOConfig(address, log=log)
            settings.__dict__.update(zeo_conf or {})
            zeo_conf = settings
        text, address = self._with_port(str(zeo_conf))
        text += '\n\n' + storage_conf + '\n'
        if show_config:
            print(text)
        fd, config = tempfile.mkstemp('.conf', prefix='ZEO_forker', dir=os.getcwd())
        with os.fdopen(fd, 'w') as f:
            f.write(_for_ours(text))
        process = _start(config, address, protocol)
        os.remove(config)

        def stop(stop_timeout=99):
            _stop(process.pid)
            process.wait()
            if not keep:
                _remove_files(storage_conf)

        return address, stop

    def _with_port(self, text):
        """Upstream's server tells its test which port it was given; ours is told which one to take."""
        match = re.search(r'(?m)^(\s*address\s+)(\S.*?)\s*$', text)
        value = match.group(2)
        if '/' in value:
            return text, value
        host, _, port = value.rpartition(':')
        host = host.strip().strip('[]')
        port = int(port) or get_port()
        written = '[%s]:%d' % (host, port) if ':' in host else '%s:%d' % (host, port)
        return text[:match.start()] + match.group(1) + written + text[match.end():], (host, port)


# --- putting it in place ------------------------------------------------------------------------------

class _Popen(subprocess.Popen):
    """A few tests write a script that calls ZEO.runzeo.main(): they get the server under test instead."""

    def __init__(self, args, *rest, **named):
        if isinstance(args, list) and len(args) > 1 and args[0] == sys.executable and os.path.exists(args[1]):
            with open(args[1]) as f:
                if 'ZEO.runzeo.main(' in f.read() and args[1] != PYTHON_SERVER:
                    args = COMMAND + args[2:]
                    started[0] += 1
                    served[0] += 1
        subprocess_popen.__init__(self, args, *rest, **named)


subprocess_popen = subprocess.Popen


def install():
    """Call before any module of upstream's tests is imported."""
    import ZEO.tests.forker
    try:
        import ZEO._forker
    except ImportError:
        legacy = _Legacy(ZEO.tests.forker)
        ZEO.tests.forker.start_zeo_server = legacy.start
        ZEO.tests.forker.shutdown_zeo_server = legacy.stop
        ZEO.tests.forker.get_port2 = get_port
    else:
        modern = _Modern(ZEO._forker)
        ZEO._forker.start_zeo_server = modern.start
        ZEO.tests.forker.start_zeo_server = modern.start
    ZEO.tests.forker.get_port = get_port
    subprocess.Popen = _Popen
