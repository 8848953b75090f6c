"""Reads messages as this environment's own ZEO client does, on Python 2.7 and 3:  read_samples.py FILE"""
from __future__ import print_function

import binascii
import sys

PY2 = sys.version_info[0] == 2
try:
    from ZEO.asyncio import client as zeo5
    from ZEO.asyncio.marshal import decoder
    GENERATIONS = ['Z5']
except ImportError:
    zeo5 = None
    from ZEO.zrpc.connection import Connection
    GENERATIONS = [getattr(Connection.current_protocol, 'decode', str)('ascii')]
    try:
        from ZEO.zrpc.marshal import decode
    except ImportError:
        from ZEO.zrpc.marshal import Marshaller
        decode = Marshaller().decode


def same(ours, expected, msgpack):
    """Equal, and of the same types where the codec can tell."""
    if isinstance(expected, (list, tuple)):
        return (isinstance(ours, (list, tuple)) and (msgpack or type(ours) is type(expected))
                and len(ours) == len(expected)
                and all(same(a, b, msgpack) for a, b in zip(ours, expected)))
    if isinstance(expected, dict):
        return (isinstance(ours, dict) and len(ours) == len(expected)
                and all(key in ours and same(ours[key], expected[key], msgpack) for key in expected))
    if not PY2 and type(ours) is not type(expected):
        return False
    return ours == expected


def exception(args, flag):
    """The exception that this client raises."""
    if zeo5 is None:
        class_, instance = args
        assert flag == 0 and issubclass(class_, Exception) and type(instance) is class_
        str(instance)
        return instance
    name, args = args
    assert flag == 2
    factory = zeo5.exc_factories.get(name)
    return factory(name, args) if factory else (name, args)


def check(what, id, payload, expected, msgpack):
    msgid, flag, method, args = (decode if zeo5 is None else decoder(b'M5' if msgpack else b'Z5'))(payload)
    assert same(msgid, eval(id), msgpack), msgid
    if what == 'error':
        assert method == '.reply'
        module, name, expected_args, attributes = eval(expected)
        found = exception(args, flag)
        if isinstance(found, tuple):
            assert found[0] == module + '.' + name, found
            assert same(found[1], attributes or expected_args, msgpack), found
            return
        assert type(found).__name__ == name, found
        if expected_args:
            assert same(found.args, expected_args, msgpack), found.args
        for key, value in attributes.items():
            assert same(getattr(found, str(key)), value, msgpack), key
        return
    if what == 'reply':
        assert method == '.reply' and flag == 0, (method, flag)
    else:
        assert method == what and flag and (zeo5 is None or flag is True), (method, flag)
    assert same(args, eval(expected), msgpack), args


passed = failed = 0
for line in open(sys.argv[1]):
    generation, codec, what, id, payload, expected = line.rstrip('\n').split('\t')
    if generation not in GENERATIONS or codec == ('3' if PY2 else '2'):
        continue
    try:
        check(what, id, binascii.unhexlify(payload), expected, codec == 'm')
    except Exception as error:
        failed += 1
        print('FAILED', generation, codec, what, payload[:200], expected[:300], type(error).__name__, str(error)[:300])
    else:
        passed += 1
print('%d passed, %d failed' % (passed, failed))
sys.exit(failed > 0 or passed == 0)
