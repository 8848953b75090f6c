"""What the helpers of conflict-resolver make of records: values merge as with ZODB alone, and what a record names is not run.

    PYTHON records.py

Runs in the Python of an environment. The same records go to ZODB.ConflictResolution as it is, and then with the reader of
our helpers (src/conflict/helpers/names.py, unpickler.py) in it.
"""
from __future__ import print_function
import io
import os
import shutil
import struct
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import ZODB.ConflictResolution as ConflictResolution  # noqa: E402
from ZODB.POSException import ConflictError  # noqa: E402

import shop  # noqa: E402

PYTHON2 = sys.version_info[0] == 2
B = b'__builtin__' if PYTHON2 else b'builtins'
OID, OLD, COMMITTED = b'\0' * 7 + b'o', b'\0' * 7 + b'1', b'\0' * 7 + b'2'
try:
    from zodbpickle import pickle
except ImportError:
    import cPickle as pickle


class Storage(ConflictResolution.ConflictResolvingStorage):
    def loadSerial(self, oid, serial):
        return self.states[serial]


def merge(old, committed, new):
    """The merged record, or None."""
    storage = Storage()
    storage.states = {OLD: old, COMMITTED: committed}
    try:
        return storage.tryToResolveConflict(OID, COMMITTED, OLD, new, committed)
    except ConflictError:
        return None


def name(module, attribute):
    return b'c' + module + b'\n' + attribute + b'\n'


def text(value):
    """A str of this Python."""
    value = value.encode('ascii') if not isinstance(value, bytes) else value
    return (b'T' if PYTHON2 else b'X') + struct.pack('<I', len(value)) + value


def reduced(thing, *args):
    return thing + b'(' + b''.join(args) + b'tR'


def made(cls, *args):
    return cls + b'(' + b''.join(args) + b't\x81'


HOLDER = b'\x80\x02' + name(b'shop', b'Holder') + b'.'
PLAIN = made(name(b'shop', b'Plain'))


def attribute(key, value):
    return b'}' + text(key) + value + b's'


def hostile(mark):
    """(what, state or (class, state), what is refused)"""
    path, command = text(mark), text('touch ' + mark)
    system = name(b'posix', b'system')
    expression = text('open(%r, "w").close()' % mark)
    opens, old = name(b'shop', b'Opens'), name(b'shop', b'OpensOld')
    popen = name(b'subprocess', b'Popen')
    words = b'(' + text('touch') + path + b'l'
    for protocol in range(6):
        head = b'\x80' + struct.pack('B', protocol) if protocol > 1 else b''
        yield 'system, protocol %d' % protocol, head + reduced(system, command), 'posix.system' if protocol <= pickle.HIGHEST_PROTOCOL else None
    escaped = ("S'touch %s'\n" % mark).encode('ascii')
    yield 'system in text', b'cposix\nsystem\n(' + escaped + b'tR', 'posix.system'
    yield 'os.system', reduced(name(b'os', b'system'), command), 'os.system'
    yield 'a system of the application', reduced(name(b'shop', b'system'), command), 'shop.system'
    yield 'a dotted name', reduced(name(b'shop', b'os.system'), command), 'shop.os.system'
    stack_global = b'\x80\x04\x8c\x04shop\x8c\x09os.system\x93'
    yield 'a dotted name on the stack', reduced(stack_global, command), None
    yield 'eval', reduced(name(B, b'eval'), expression), 'eval'
    yield 'exec', reduced(name(B, b'execfile' if PYTHON2 else b'exec'), expression), 'exec'
    yield 'map', reduced(name(B, b'list'), reduced(name(B, b'map'), system, b'(' + command + b'l')), 'map'
    for label, builder in [('REDUCE', reduced), ('NEWOBJ', made)]:
        yield 'Popen by ' + label, builder(popen, words), 'subprocess.Popen'
        yield 'FileHandler by ' + label, builder(name(b'logging', b'FileHandler'), path), 'logging.FileHandler'
        yield 'a Popen of the application by ' + label, builder(name(b'shop', b'Popen'), words), 'shop.Popen'
        yield 'partial by ' + label, builder(name(b'functools', b'partial'), system, command), 'partial'
        yield 'type by ' + label, builder(name(B, b'type'), text('X'), b')', b'}'), None
    yield 'Popen by INST', b'(' + words + b'isubprocess\nPopen\n', 'subprocess.Popen'
    yield 'Popen by OBJ', b'(' + popen + words + b'o', 'subprocess.Popen'
    yield 'a call of a partial', reduced(reduced(name(b'functools', b'partial'), system), command), 'partial'
    for thing in b'attrgetter', b'methodcaller', b'itemgetter':
        yield thing.decode(), reduced(name(b'operator', thing), text('system')), 'operator'
    for module, thing in [(b'types', b'FunctionType'), (b'types', b'CodeType'), (b'weakref', b'ref'), (b'ctypes', b'CDLL'),
                          (b'tempfile', b'_TemporaryFileWrapper'), (b'codecs', b'StreamReaderWriter'), (b'io', b'FileIO'),
                          (b'pydoc', b'locate'), (b'runpy', b'run_path'), (b'imp', b'load_source'), (b'pickle', b'loads'),
                          (b'shutil', b'rmtree'), (b'importlib', b'import_module'), (b'__main__', b'merge')]:
        yield module.decode() + '.' + thing.decode(), reduced(name(module, thing), path), thing.decode()
    yield 'getattr', reduced(reduced(name(B, b'getattr'), opens, text('__init__')), PLAIN, path), 'getattr'
    yield 'subclasses', reduced(reduced(name(B, b'getattr'), name(B, b'object'), text('__subclasses__'))), 'getattr'
    yield 'encode', reduced(name(b'_codecs', b'encode'), b'X\x01\0\0\0x', text('rot13')), 'encode'
    copyreg = b'copy_reg' if PYTHON2 else b'copyreg'
    rebuild = name(copyreg, b'_reconstructor')
    yield 'reconstructed', reduced(rebuild, name(b'logging', b'FileHandler'), name(B, b'object'), b'N'), 'FileHandler'
    yield 'reconstructed on', reduced(rebuild, opens, popen, words), 'Popen'
    yield '__newobj__', reduced(name(copyreg, b'__newobj__'), popen, words), 'Popen'
    for label, call in [('REDUCE', reduced(opens, path)), ('INST', b'(' + path + b'ishop\nOpens\n'),
                        ('OBJ', b'(' + opens + path + b'o')]:
        yield 'a call by ' + label, call, 'shop.Opens'
    yield 'an old class by INST', b'(' + path + b'ishop\nOpensOld\n', 'shop.OpensOld'
    yield 'an old class by OBJ', b'(' + old + path + b'o', 'shop.OpensOld'
    yield 'a state for a class', opens + b'N' + attribute('__init__', opens) + b'\x86b', 'Opens'
    yield 'a state for an interface', name(b'shop', b'IThing') + attribute('x', b'K\x01') + b'b', 'InterfaceClass'
    yield 'items for a class', opens + path + b'a', 'Opens'
    yield 'an item for an interface', name(b'shop', b'IThing') + path + path + b's', 'InterfaceClass'
    for method in '__reduce_ex__', '__reduce__', '__setstate__', '__deepcopy__':
        yield method, PLAIN + attribute(method, opens) + b'b', method
    yield 'a state by an attribute', PLAIN + attribute('__setstate__', opens) + b'b' + path + b'b', '__setstate__'
    yield 'items by an attribute', PLAIN + attribute('append', opens) + b'b' + path + b'a', 'Plain'
    yield 'what goes', made(name(b'shop', b'Drops')) + attribute('path', path) + b'b', 'shop.Drops'
    yield 'a class made to measure', made(name(b'shop', b'Meta'), text('X'), b')', b'}'), 'shop.Meta'
    yield 'a factory', reduced(name(b'collections', b'defaultdict'), opens), 'shop.Opens'
    yield 'a factory in a slot', made(name(b'shop', b'Default')) + b'N' + attribute('default_factory', opens) + b'\x86b', \
        'default_factory'
    yield 'an extension code', b'\x82\x01', 'extension'
    yield 'a program', reduced(name(b'this', b's')), 'this.s'
    yield 'a program among tests', reduced(name(b'test.autotest', b's')), 'test.autotest.s'
    yield 'a program of a package', reduced(name(b'zope.__main__', b's')), '__main__'
    state = b'}.'
    yield 'a class with arguments', (b'(' + popen + b'(' + words + b'tt', state), 'subprocess.Popen'
    yield 'a name with arguments', (b'((' + text('subprocess') + text('Popen') + b't(' + words + b'tt', state), 'Popen'
    yield 'a class that is called', (reduced(opens, path), state), 'shop.Opens'
    yield 'a class that is a function', (system, state), 'posix.system'
    yield 'a class that is called first', (reduced(system, command), state), 'posix.system'


def states(value, protocol):
    holder = pickle.dumps(shop.Holder, protocol)
    return [holder + pickle.dumps({'value': value, 'number': number}, protocol) for number in range(3)]


def legitimate():
    """(what, three records) that ZODB merges."""
    for what, value in shop.values():
        for protocol in (0, 1, 2) if PYTHON2 else (0, 1, 2, 3):
            try:
                yield '%s, protocol %d' % (what, protocol), states(value, protocol)
            except Exception:
                # There are values that have no form in the older protocols.
                continue
    protocol = 1 if PYTHON2 else 3
    scales = pickle.dumps(shop.Scales, protocol)
    yield 'scales', [scales + pickle.dumps({'data': data}, protocol) for data in (
        {'a': 1}, {'a': 1, 'b': shop.Plain(width=1)}, {'a': 1, 'c': (2, u'x')})]
    immutable = pickle.dumps((shop.Immutable, (1, 'two')), protocol)
    yield 'arguments', [immutable + pickle.dumps({'a': number}, protocol) for number in range(3)]
    named = pickle.dumps((('shop', 'Holder'), None), protocol)
    yield 'a name', [named + pickle.dumps({'a': number}, protocol) for number in range(3)]
    # References: with a class, without, weak, to another database, with a class that is nowhere.
    if hasattr(ConflictResolution, 'BadClass'):
        for what, reference in [
                ('a class', b'(' + text('oid') + name(b'shop', b'Plain') + b't'),
                ('no class', text('oid')), ('weak', b'(' + text('w') + b'(' + text('oid') + b'tl'),
                ('another database', b'(' + text('m') + b'(' + text('other') + text('oid') + name(b'shop', b'Plain') + b'tl'),
                ('no such class', b'(' + text('oid') + name(b'nowhere', b'Plain') + b't'),
                ('a function', b'(' + text('oid') + name(b'zope.nowhere', b'f') + b't')]:
            yield 'a reference with ' + what, [HOLDER + b'\x80\x02}' + text('r') + reference + b'Qs.'] * 3


def shown(record):
    """What is in a record; the order in dicts and what shares what may differ."""
    if record is None:
        return None
    unpickler = pickle.Unpickler(io.BytesIO(record))
    unpickler.persistent_load = lambda reference: ('reference', reference)
    return described(unpickler.load()), described(unpickler.load())


def described(value):
    cls = value.__class__
    if isinstance(value, type) or cls.__module__ in (B.decode(), 'exceptions') and not isinstance(
            value, (dict, list, tuple, set, frozenset, BaseException)):
        return repr(value)
    try:
        parts = list(value.__reduce_ex__(2)[1:])
    except (AttributeError, TypeError):
        # An instance of a class of the old style, or what stands for itself.
        parts = [vars(value)] if hasattr(value, '__dict__') else [repr(value)]
    if isinstance(value, dict):
        parts.append(sorted((described(key), described(item)) for key, item in value.items()))
    elif isinstance(value, (set, frozenset)):
        parts.append(sorted(map(described, value)))
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    if hasattr(value, 'args') and isinstance(value, BaseException):
        parts = [value.args]
    parts = [part for part in parts if isinstance(part, (
        int, str, bytes, tuple, list, dict, type, type(u''))) or hasattr(part, '__dict__')]
    return cls.__name__, repr([described(part) if part is not value else None for part in parts])


def main():
    directory = tempfile.mkdtemp()
    mark = os.path.join(directory, 'mark')
    failures, count = [], 0

    def check(what, passes, *facts):
        if not passes:
            failures.append(what)
            print('FAIL', what, *facts)

    errors = []

    class Quiet(object):
        def filter(self, record):
            if record.exc_info:
                errors.append(record.exc_info[1])
            return False

    ConflictResolution.logger.addFilter(Quiet())
    # ZODB as it is.
    expected = [(what, records, shown(merge(*records))) for what, records in legitimate()]
    merged = [what for what, _, record in expected if record is not None]
    check('what ZODB merges', len(merged) * 3 > len(expected) * 2, len(merged), len(expected))
    records = [HOLDER + state + b'.' for what, state, _ in hostile(mark) if what == 'system, protocol 2']
    merge(*records * 3)
    check('the records run what they name', os.path.exists(mark))
    os.remove(mark)

    imported = set(sys.modules)
    namespace = {'__name__': 'unpickler'}
    for source in ('names', 'unpickler'):
        with open(os.path.join(HERE, '..', '..', 'src', 'conflict', 'helpers', source + '.py')) as file:
            exec(compile(file.read(), source, 'exec'), namespace)
    guard = namespace['Guard'](ConflictResolution, ConflictError)

    for what, records, record in expected:
        count += 1
        guard.begin()
        del errors[:]
        got = shown(merge(*records))
        check(what, got == record or record is None, guard.reason(), errors[-1:], record, got)
    plain = HOLDER + b'}.'
    for what, state, refused in hostile(mark):
        cls, state = state if isinstance(state, tuple) else (HOLDER[:-1], state + b'.')
        record = cls + b'.' + state
        for records in (plain, plain, record), (plain, record, plain), (record, plain, plain):
            count += 1
            guard.begin()
            got = merge(*records)
            reason = guard.reason()
            # Of the older records only the states count.
            unused = records[2] is plain and cls is not HOLDER[:-1] and got is not None
            check(what, got is None or unused, shown(got))
            check(what, unused or refused is None or reason is not None and refused in reason, reason)
            check(what, not os.path.exists(mark), 'was run')
            if os.path.exists(mark):
                os.remove(mark)
    for module in 'this', 'imp', 'runpy', 'pydoc', 'ctypes':
        check(module, module not in sys.modules or module in imported, 'was imported')
    guard = namespace['Guard'](ConflictResolution, ConflictError, ['shop.Opens'])
    guard.begin()
    record = merge(plain, plain, HOLDER + b'\x80\x02}' + text('x') + reduced(name(b'shop', b'Opens'), text(mark)) + b's.')
    check('what is allowed', record is not None and os.path.exists(mark), guard.reason())
    shutil.rmtree(directory)
    print('%d records, %d failures' % (count, len(failures)))
    return len(failures) > 0


if __name__ == '__main__':
    sys.exit(main())
