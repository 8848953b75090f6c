"""The application of records.py: classes that merge, values that they hold, and what its modules have beside that."""
import collections
import datetime
import decimal
import os
import sys
from logging import FileHandler
from os import system
from subprocess import Popen

import zope.interface
from persistent import Persistent
from persistent.mapping import PersistentMapping

MODULES = os, system, Popen, FileHandler


class Holder(Persistent):
    """What it merges has all three states in it."""

    def _p_resolveConflict(self, old, committed, new):
        return {'all': [old, committed, new]}


class Scales(PersistentMapping):
    """Looks into the values of a mapping, as the scales of images do."""

    def _p_resolveConflict(self, old, committed, new):
        merged = dict(new)
        merged['data'] = dict(committed['data'])
        merged['data'].update(new['data'])
        return merged


class Immutable(Persistent):
    def __new__(cls, *args):
        return Persistent.__new__(cls)

    def __getnewargs__(self):
        return 1, 'two'

    def _p_resolveConflict(self, old, committed, new):
        return new


class Plain(object):
    def __init__(self, **values):
        self.__dict__.update(values)


class Slotted(object):
    __slots__ = ('one', '__two')

    def __init__(self):
        self.one, self.__two = 1, 2


class Mixed(Slotted):
    def __init__(self):
        Slotted.__init__(self)
        self.three = 3


class Old:
    def __init__(self, value):
        self.value = value


class Money(object):
    def __new__(cls, amount):
        made = object.__new__(cls)
        made.amount = amount
        return made

    def __getnewargs__(self):
        return self.amount,


class Stateful(object):
    def __init__(self, value):
        self.value = value

    def __getstate__(self):
        return (self.value,)

    def __setstate__(self, state):
        self.value, = state


class Text(type(u'')):
    pass


class Number(int):
    pass


class Dict(dict):
    pass


class List(list):
    pass


class Set(set):
    pass


class Default(collections.defaultdict):
    pass


class Ordered(collections.OrderedDict):
    pass


class Queue(collections.deque):
    pass


class Day(datetime.date):
    pass


class Price(decimal.Decimal):
    pass


class Trouble(Exception):
    pass


Point = collections.namedtuple('Point', 'x y')


class IThing(zope.interface.Interface):
    pass


class IOther(zope.interface.Interface):
    pass


def provider():
    thing = Plain(value=1)
    zope.interface.directlyProvides(thing, IThing, IOther)
    return thing


def values():
    """What states hold, by name."""
    plain = Plain(one=1, two=[2])
    found = [
        ('basic', [None, True, 1, 1 << 70, 1.5, 'text', u'\xe4', b'bytes', (), (1,), (1, 2, 3, 4), {'a': 1}]),
        ('plain', plain), ('twice', [plain, plain]), ('slots', Slotted()), ('slots and more', Mixed()), ('old', Old([1])),
        ('state', Stateful(5)), ('new arguments', Money(5)), ('text', Text(u'x')), ('number', Number(7)),
        ('dict', Dict(a=1)), ('list', List([1, 2])), ('named tuple', Point(1, 2)), ('error', Trouble('no', 1)),
        ('set', set([1, 2])), ('frozen set', frozenset([1])), ('own set', Set([1])), ('complex', 1j), ('bytes', bytearray(b'x')),
        ('deque', collections.deque([1, 2], 5)), ('own deque', Queue([1])), ('ordered', collections.OrderedDict([(2, 1), (1, 2)])),
        ('counter', collections.Counter('aab')), ('default', collections.defaultdict(list, {1: [2]})),
        ('own default', Default(int, {1: 2})), ('date', datetime.date(2020, 1, 2)), ('own date', Day(2020, 1, 2)),
        ('datetime', datetime.datetime(2020, 1, 2, 3, 4, 5, 6)), ('time', datetime.time(1, 2)), ('delta', datetime.timedelta(3)),
        ('decimal', decimal.Decimal('1.50')), ('own decimal', Price('2')), ('range', range(3)), ('slice', None),
        ('class', Plain), ('interface', IThing), ('provides', provider()), ('value error', ValueError('no')),
    ]
    import fractions
    import uuid
    import array
    found += [('fraction', fractions.Fraction(1, 3)), ('uuid', uuid.UUID(int=5)), ('array', array.array('i', [1, 2]))]
    if sys.version_info[0] > 2:
        found += modern()
    for module, make in [
            ('DateTime', lambda module: module.DateTime('2020/01/02 UTC')), ('pytz', lambda module: module.utc),
            ('pytz', lambda module: module.timezone('Europe/Berlin')), ('pytz', lambda module: module.FixedOffset(30)),
            ('zope.i18nmessageid', lambda module: module.Message(u'id', u'domain', u'default')),
            ('Missing', lambda module: module.MV)]:
        try:
            __import__(module)
        except ImportError:
            continue
        found.append((module, make(sys.modules[module])))
    return found


def modern():
    import enum
    import ipaddress
    module = globals()
    module['Colour'] = enum.Enum('Colour', 'red green', module=__name__)
    module['Level'] = enum.IntEnum('Level', 'low high', module=__name__)
    return [
        ('enumeration', Colour.red), ('numbers', Level.high), ('address', ipaddress.ip_address('10.0.0.1')),  # noqa: F821
        ('zone', datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)), ('user dict', collections.UserDict(a=1)),
        ('slice', slice(1, 2)), ('range', range(1, 9, 2)),
    ]


if sys.version_info[0] > 2:
    modern()


class Meta(type):
    """Its instances are classes."""

    def __new__(cls, name, bases, attributes):
        return type.__new__(cls, name, bases, attributes)

    def __getnewargs__(self):
        return self.__name__, self.__bases__, {}


class Opens(object):
    """Does harm when it is called."""

    def __init__(self, path='', *more):
        if path:
            open(path, 'w').close()

    def __reduce__(self):
        return Opens, ('',)


class OpensOld:
    def __init__(self, path='', *more):
        if path:
            open(path, 'w').close()


class Drops(object):
    """Does harm when it goes."""

    def __del__(self):
        open(self.path, 'w').close()
