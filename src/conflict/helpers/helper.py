"""Merges conflicting states of objects with the application's own classes, for runzeo.

Runs in the interpreter that `conflict-resolver` names: Python 2.7 or 3, ZODB 3.8 or later. How a conflict is resolved is
decided by ZODB (ZODB.ConflictResolution); this program stands for the storage from which ZODB loads the states. unpickler.py reads
their records; names.py and unpickler.py precede this file in the program.

Standard input is a socket to the server. A message is the length of its header (four bytes, big endian), the header, and the data
whose lengths are in the header. A header is a pickled dict of numbers, booleans and names, of protocol 2. The server's has `oid`,
`committed_serial`, `read`, and the lengths of the three records after it: `old`, `committed`, `new`. The helper's has the lengths of
the data after it, `name` and `body`, and a `kind`:

    ready       body: the versions of Python and ZODB
    failed      cannot work; body: why
    log         to be logged at `level`; name: the logger, body: the text
    resolved    body: the merged record; `retire`: the server should start another helper
    unresolved  body: why; `retire` likewise
"""
import logging
import os
import re
import struct
import sys
import threading
try:
    import cPickle as pickle
except ImportError:
    import pickle


def protect_channel():
    """Moves the socket away from standard input; the application's output goes to standard error."""
    channel = os.dup(0)
    try:
        import fcntl
        fcntl.fcntl(channel, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    except ImportError:
        pass
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return channel


CHANNEL = protect_channel()
# Kept here, because the application may replace the module's functions.
dump, load = pickle.dumps, pickle.loads
state = {'retire': False}
sending = threading.Lock()


def receive(length):
    parts = []
    while length:
        part = os.read(CHANNEL, min(length, 1 << 20))
        if not part:
            # The server is gone, or does not need this helper any more.
            os._exit(0)
        parts.append(part)
        length -= len(part)
    return b''.join(parts)


def send(kind, body, retire=False, level=0, name=b''):
    header = dict(kind=kind, retire=retire, level=level, name=len(name), body=len(body))
    header = dump(header, 2)
    data = memoryview(b''.join((struct.pack('>I', len(header)), header, name, body)))
    # The application may log from its own threads.
    with sending:
        while len(data):
            data = data[os.write(CHANNEL, data[:1 << 20]):]


def encoded(text):
    return text if isinstance(text, bytes) else text.encode('utf-8', 'backslashreplace')


class Report(logging.Handler):
    """Sends log records to the server, which logs them."""

    def emit(self, record):
        if record.exc_info and isinstance(record.exc_info[1], MemoryError):
            state['retire'] = True
        try:
            text = self.format(record)
        except Exception:
            text = 'a message of the application cannot be formatted: %r' % (record.msg,)
        send('log', encoded(text), level=min(max(int(record.levelno), 1), 50), name=encoded(record.name))


def end_with_server():
    """Linux kills this process when the server ends for any reason."""
    try:
        import ctypes
        PR_SET_PDEATHSIG, SIGKILL = 1, 9
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    except Exception:
        pass


def limit_memory():
    try:
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        for limit in soft, hard, MEMORY_MAX:
            if limit != resource.RLIM_INFINITY:
                soft = limit if soft == resource.RLIM_INFINITY else min(soft, limit)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    except Exception:
        pass


def is_large():
    """Whether this process has ever used half of its memory limit. Python seldom returns memory."""
    try:
        import resource
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used * (1 if sys.platform == 'darwin' else 1024) > MEMORY_MAX // 2
    except Exception:
        return False


def zodb_version():
    """From the name of the distribution beside the package, because the packaging tools are slow."""
    import ZODB
    package = os.path.dirname(os.path.abspath(ZODB.__file__))
    place = os.path.dirname(package)
    try:
        names = [os.path.basename(place)] + os.listdir(place)
    except OSError:
        names = []
    for name in names:
        match = re.match(r'(?i)zodb3?-(\d[^-]*?)(-py.*)?\.(dist-info|egg-info|egg)$', name)
        if match:
            return match.group(1)
    return '(version unknown)'


def set_up():
    end_with_server()
    limit_memory()
    if sys.path[:1] == ['']:
        # Nothing must be imported from the server's working directory.
        del sys.path[0]
    root = logging.getLogger()
    root.addHandler(Report())
    root.setLevel(LOG_LEVEL)
    python = '.'.join(str(part) for part in sys.version_info[:3])
    try:
        import ZODB.ConflictResolution
        from ZODB.POSException import ConflictError
    except BaseException:
        kind, error = sys.exc_info()[:2]
        send('failed', encoded('Python %s cannot import ZODB: %s: %s' % (python, kind.__name__, error)))
        os._exit(0)

    try:
        guard = Guard(ZODB.ConflictResolution, ConflictError, ALLOWED.split())  # noqa: F821
    except Refused as error:  # noqa: F821
        send('failed', encoded('%s' % error))
        os._exit(0)

    class States(ZODB.ConflictResolution.ConflictResolvingStorage):
        """The storage from which ZODB loads the states."""

        def __init__(self, states):
            self.states = states

        def loadSerial(self, oid, serial):
            return self.states[serial]

    send('ready', encoded('Python %s, ZODB %s' % (python, zodb_version())))
    return States, ConflictError, guard


def resolve(States, ConflictError, guard):
    length, = struct.unpack('>I', receive(4))
    request = load(receive(length))
    oid, committed_serial, read = [struct.pack('>Q', request[key]) for key in ('oid', 'committed_serial', 'read')]
    old, committed, new = [receive(request[key]) for key in ('old', 'committed', 'new')]
    storage = States({read: old, committed_serial: committed})
    record, reason = None, 'ZODB did not resolve it'
    guard.begin()
    try:
        record = storage.tryToResolveConflict(oid, committed_serial, read, new, committed)
    except ConflictError:
        pass
    except BaseException:
        kind, error = sys.exc_info()[:2]
        state['retire'] = state['retire'] or issubclass(kind, MemoryError)
        reason = '%s: %s' % (kind.__name__, error)
    if record is None:
        reason = guard.reason() or reason
    for stream in sys.stdout, sys.stderr:
        try:
            stream.flush()
        except Exception:
            pass
    retire = state['retire'] or is_large()
    # ZODB 3.8 and 3.9 return None if the conflict is not resolved.
    if record is None:
        send('unresolved', encoded(reason), retire)
    else:
        send('resolved', record, retire)


def serve():
    tools = set_up()
    while True:
        resolve(*tools)


serve()
