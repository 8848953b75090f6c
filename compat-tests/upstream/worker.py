"""Runs single tests of an upstream suite, inside its environment, as the launcher asks for them.

Called as: worker.py SUITE DIRECTORY. On stdin one line per test, "NUMBER SECONDS"; on stdout one JSON object
per line: first the names of all tests, then one result for each test. What the tests and the servers print
goes to stderr. A test that needs longer than its seconds leaves the stacks of all threads there and ends the
process.
"""
import doctest
import gc
import json
import os
import shutil
import sys
import tempfile
import threading
import traceback
import unittest
# By name: some tests put a clock of their own in the place of time.time and time.sleep.
from time import sleep, time as now

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)

import external_server  # noqa: E402
from suites import IN_PROCESS, LEFT_OUT_UPSTREAM, SUITES  # noqa: E402


# Parts of the names of tests whose clients share the server's directory of blobs.
SHARING = 'ClientStorageShared', 'BlobWritableCache', 'protocols'


def load(module_name):
    """The module's suite, as a list of (name, test)."""
    module_path = 'ZEO.tests.' + module_name
    __import__(module_path)
    module = sys.modules[module_path]
    if hasattr(module, 'slow_test_classes'):
        have = [c.__name__ for c in module.slow_test_classes]
        module.slow_test_classes = list(module.slow_test_classes) + [
            getattr(module, name) for name in LEFT_OUT_UPSTREAM if name not in have and hasattr(module, name)]
    if hasattr(module, 'test_suite'):
        suite = module.test_suite()
    else:
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    return [(name_of(module_name, layer, test), test) for layer, test in flatten(suite, None)]


def flatten(suite, layer):
    layer = getattr(suite, 'layer', layer)
    if isinstance(suite, unittest.TestSuite):
        for test in suite:
            for found in flatten(test, layer):
                yield found
    else:
        yield layer, suite


def name_of(module_name, layer, test):
    example = getattr(test, '_dt_test', None)
    if example is None:
        return '%s.%s.%s' % (module_name, test.__class__.__name__, test._testMethodName)
    name = example.name.split('/')[-1]
    # The blob tests of ZODB come twice, for a shared and for a non-shared directory: only the layer differs.
    layer_name = getattr(layer, '__name__', '')
    if 'Blob' in layer_name:
        return '%s.%s.%s' % (module_name, layer_name, name)
    if name.startswith('ZEO.tests.'):
        return name[len('ZEO.tests.'):]
    return '%s.%s' % (module_name, name)


def numbered(pairs):
    """Makes names unique: the second of a name gets #2."""
    seen = {}
    for name, test in pairs:
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else '%s#%d' % (name, seen[name])), test


def give_races_time():
    """Dozens of threads that open and close databases all the time: two minutes are too few for the Python that they run
    where others keep the processors busy. The watchdog's time is the limit."""
    try:
        from ZODB.tests import racetest
    except ImportError:
        return
    group = racetest.TestWorkGroup
    wait = group.wait

    def wait_longer(self, timeout):
        return wait(self, 4 * timeout)
    group.wait = wait_longer


def format_collected_records():
    """A record has its text only once a handler has formatted it. The handler that tests collect records with does not,
    and a test reads the text while the client's thread may still be on its way to the handler that does."""
    from zope.testing import loggingsupport
    emit = loggingsupport.Handler.emit

    def emit_formatted(self, record):
        record.message = record.getMessage()
        emit(self, record)
    loggingsupport.Handler.emit = emit_formatted


class Watchdog(threading.Thread):
    daemon = True
    deadline = None

    def run(self):
        while True:
            sleep(.5)
            if self.deadline is not None and now() > self.deadline:
                break
        names = dict((t.ident, t.name) for t in threading.enumerate())
        for ident, frame in list(sys._current_frames().items()):
            if ident != threading.current_thread().ident:
                sys.stderr.write('--- thread %s\n%s' % (names.get(ident), ''.join(traceback.format_stack(frame))))
        sys.stderr.flush()
        os._exit(99)


def run_one(test, directory, watchdog, seconds):
    os.mkdir(directory)
    os.chdir(directory)
    tempfile.tempdir = directory
    # zope.testing's doctests fail on a __del__ that comes late and prints.
    gc.collect()
    result = unittest.TestResult()
    began = now()
    watchdog.deadline = began + seconds
    test.run(result)
    watchdog.deadline = None
    took = now() - began
    texts = [text for _, text in result.errors + result.failures] + list(external_server.server_errors)
    used_server, served = external_server.started[0], external_server.served[0]
    direct = list(external_server.direct)
    external_server.reset()
    os.chdir('/')
    shutil.rmtree(directory, ignore_errors=True)
    if not used_server:
        outcome = 'in-process'
    elif direct:
        outcome, texts = 'direct', ['there was no server in the middle: ' + direct[0]]
    elif texts:
        outcome = 'failed'
    elif result.skipped:
        outcome, texts = 'skipped', [reason for _, reason in result.skipped]
    else:
        outcome = 'passed'
    # A failure may leave threads and clients behind that disturb the tests after it; without a server that ever
    # answered there is nothing.
    return {'outcome': outcome, 'seconds': took, 'text': '\n'.join(texts), 'spoilt': bool(texts and served and outcome != 'direct')}


def main():
    suite, base = sys.argv[1:]
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value) + '\n')
        answers.flush()

    # The tests use assertions and methods that later Pythons warn about.
    import warnings
    warnings.simplefilter('ignore')
    scratch = os.path.join(base, 'load')
    os.mkdir(scratch)
    os.chdir(scratch)

    external_server.install()
    give_races_time()
    format_collected_records()
    pairs = []
    for module_name in SUITES[suite]['modules']:
        pairs.extend(load(module_name))
    pairs = [pair for pair in numbered(pairs) if pair[0] not in IN_PROCESS]
    answer([name for name, _ in pairs])

    watchdog = Watchdog()
    watchdog.start()
    count = 0
    while True:
        line = sys.stdin.readline()
        if not line:
            break
        number, seconds = line.split()
        count += 1
        name, test = pairs[int(number)]
        # Resolve, Unresolvable, ConflictResolution... Not all tests: a Python beside each server takes time.
        external_server.resolves[0] = 'resol' in name.lower()
        external_server.answers[0] = 'extension_methods' in name
        external_server.shares_blobs[0] = any(part in name for part in SHARING)
        result = run_one(test, os.path.join(base, str(count)), watchdog, float(seconds))
        result['number'] = int(number)
        answer(result)
    os._exit(0)


main()
