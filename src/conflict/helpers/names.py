"""The names that a record may contain when a helper merges it, and their meaning. Names in records are data from the network: a client
with write access may store any name.

ZODB.ConflictResolution imports and calls any name in a record. Here a record gets instances of the application's
classes, made without calling the class, and the data types of TYPES. All other names (functions, the rest of
the standard library, attributes of other objects) are refused when they are used, as is a class that cannot be imported; that
ends the merge, and the log has the name. The reader of records is in unpickler.py.

A record can still make the application's own code run: `__new__` of classes that pickle calls it for (`__getnewargs__`),
`__setstate__`, `__eq__` and the like, and code of modules of the application when they are imported.

For Python 2.7 and 3, and for ZODB 3.8 and later.
"""
import os
import re
import sys
import types

PYTHON2 = sys.version_info[0] == 2
CLASS_TYPES = (type, types.ClassType) if PYTHON2 else (type,)
OLD_INSTANCE = types.InstanceType if PYTHON2 else None
STRINGS = (str, type(u''))
MODULE = re.compile(r'[^\W\d]\w*(\.[^\W\d]\w*)*\Z')
NAME = re.compile(r'[^\W\d]\w*\Z')
NAMES_MAX = 10000

# Classes that a record may call with any arguments: they only store them.
TYPES = {
    'builtins': 'bool bytearray bytes complex dict float frozenset int list long object range set slice str tuple unicode'
                ' xrange Ellipsis NotImplemented',
    'array': 'array',
    'collections': 'ChainMap Counter OrderedDict UserDict UserList UserString deque',
    'datetime': 'date datetime time timedelta timezone tzinfo',
    'decimal': 'Decimal',
    'fractions': 'Fraction',
    'ipaddress': 'IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network',
    'time': 'struct_time',
    'UserDict': 'IterableUserDict UserDict',
    'UserList': 'UserList',
    'UserString': 'UserString',
    'uuid': 'SafeUUID UUID',
    'zoneinfo': 'ZoneInfo',
    # Packages of Zope and Plone.
    'DateTime.DateTime': 'DateTime',
    'Missing': 'MV V Value',
    'pytz': 'FixedOffset _FixedOffset _UTC _p',
    'zodbpickle': 'binary',
    'zope.i18nmessageid': 'Message',
    'zope.i18nmessageid.message': 'Message',
    'zope.i18nmessageid._zope_i18nmessageid_message': 'Message',
    '_zope_i18nmessageid_message': 'Message',
}
# Packages whose classes in C have a `__new__` that only makes an instance.
PACKAGES_IN_C = 'BTrees ExtensionClass Missing Persistence Record persistent zope'.split()
# Attributes that pickle and copy use, and that the state of an instance must not contain.
PROTOCOL = frozenset(
    '__class__ __copy__ __deepcopy__ __dict__ __getinitargs__ __getnewargs__ __getnewargs_ex__ __getstate__ __reduce__'
    ' __reduce_ex__ __setstate__'.split())


class Refused(Exception):
    """A record contains a name that is not allowed."""


def is_class(thing):
    return issubclass(type(thing), CLASS_TYPES)


def shown(name):
    """A name from a record, for the log."""
    text = repr(name)
    text = text[text.index(text[0] if text[0] in '\'"' else text[1]) + 1:-1]
    return text[:200]


def standard_library():
    """The names of all top-level modules and packages of the standard library."""
    names = set(sys.builtin_module_names)
    names.update(getattr(sys, 'stdlib_module_names', ()))
    # From the directories too: `sys.stdlib_module_names` exists since Python 3.10, and lacks the package `test`.
    import sysconfig
    version = 'python%d.%d' % sys.version_info[:2]
    places = [sysconfig.get_path('stdlib'), sysconfig.get_path('platstdlib')]
    for module in os, re, types:
        # In a virtualenv some modules are links.
        source = os.path.splitext(getattr(module, '__file__', os.__file__))[0] + '.py'
        places += [os.path.dirname(source), os.path.dirname(os.path.realpath(source))]
    for prefix in 'prefix', 'exec_prefix', 'base_prefix', 'base_exec_prefix', 'real_prefix':
        for lib in 'lib', 'lib64':
            places.append(os.path.join(getattr(sys, prefix, sys.prefix), lib, version))
    for place in set(places):
        for part in '', 'lib-dynload', 'lib-tk', 'lib-old':
            try:
                entries = os.listdir(os.path.join(place, part))
            except (OSError, TypeError):
                continue
            names.update(entry.split('.')[0] for entry in entries)
    names.update(['__builtin__', 'builtins', 'exceptions'])
    if not names.issuperset(['logging', 'os', 'posix', 'subprocess', 'tempfile']):
        raise Refused('the modules of the standard library cannot be found')
    return names | set(['__main__'])


class Names(object):
    """The meaning of names in records, and their allowed uses."""

    def __init__(self, allowed, BadClass, BadClassName):
        # (module, name) that the configuration allows besides TYPES.
        self.allowed = set(tuple(name.rsplit('.', 1)) for name in allowed)
        self.BadClass, self.BadClassName = BadClass, BadClassName
        self.standard = standard_library()
        self.types = dict((module, names.split()) for module, names in TYPES.items())
        builtins = __import__('__builtin__' if PYTHON2 else 'builtins')
        self.types['builtins'] += [
            name for name in dir(builtins)
            if is_class(getattr(builtins, name)) and issubclass(getattr(builtins, name), BaseException)]
        self.types['__builtin__'] = self.types['exceptions'] = self.types['builtins']
        self.found = {}
        self.refused = []
        # The id of each callable that is allowed -> the function that is called instead. Entries are kept.
        self.calls = {}
        self.makers = {}
        # The constructors of the data types, which their subclasses may inherit.
        self.news, self.inits = set(), set()
        self.functions = {}
        self.made_here = []
        for names, function in [
            ('copy_reg._reconstructor copyreg._reconstructor', self.reconstruct),
            ('copy_reg.__newobj__ copyreg.__newobj__', self.new),
            ('copy_reg.__newobj_ex__ copyreg.__newobj_ex__', self.new_ex),
            ('_codecs.encode', self.latin1),
            ('__builtin__.type builtins.type', self.kind),
            ('__builtin__.getattr builtins.getattr', self.inner),
            ('array._array_reconstructor', self.array),
            ('collections.defaultdict', self.default_dict),
            ('zope.interface.declarations.Provides zope.interface.Provides', self.provides),
            ('zope.interface.declarations.implementedBy zope.interface.implementedBy', self.implemented_by),
        ]:
            self.made_here.append(function)
            for name in names.split():
                self.functions[tuple(name.rsplit('.', 1))] = function
        import collections
        import datetime
        import decimal
        self.defaultdict = collections.defaultdict
        self.bases = set([
            object, list, dict, tuple, set, frozenset, bytes, type(u''), int, float, complex, bytearray, datetime.date,
            datetime.datetime, datetime.time, datetime.timedelta, datetime.tzinfo, decimal.Decimal,
            collections.defaultdict, collections.deque, collections.OrderedDict, collections.Counter])
        if PYTHON2:
            self.bases.add(long)  # noqa: F821
        for base in self.bases:
            init = base.__init__
            self.inits.add(getattr(init, '__func__', init))
            self.news.add(base.__new__)

    # Names.

    def find(self, module, name):
        """The class or other allowed object of this name; an instance of BadClass for all other names."""
        try:
            found = self.found.get((module, name), self)
        except TypeError:
            raise self.BadClassName(module, name)
        if found is self:
            if len(self.found) > NAMES_MAX:
                self.found.clear()
            found = self.found[module, name] = self.look_up(module, name)
        thing, refused = found
        if refused:
            self.refused.append(refused)
        if thing is None:
            if self.BadClass is None or type(module) is not str or type(name) is not str:
                raise self.BadClassName(module, name)
            return self.BadClass(module, name)
        return thing

    def look_up(self, module, name):
        """The object or None; its name if it was not looked up, or is not allowed."""
        if not isinstance(module, STRINGS) or not isinstance(name, STRINGS):
            return None, 'something that is not a name'
        full = '%s.%s' % (shown(module), shown(name))
        function = self.functions.get((module, name))
        if function is not None:
            thing = self.get(module, name) if module.startswith('collections') else function
            if thing is not None:
                self.calls[id(thing)] = thing, function
            return thing, None
        is_type = name in self.types.get(module, ())
        if is_type or (module, name) in self.allowed:
            thing = self.get(module, name)
            if thing is not None:
                self.calls[id(thing)] = thing, thing
            return thing, None
        if not MODULE.match(module) or not NAME.match(name) or not self.is_application(module):
            return None, full
        thing = self.get(module, name)
        if thing is None:
            return None, None
        if is_class(thing):
            home = getattr(thing, '__module__', None)
            if isinstance(home, str) and self.is_application(home):
                return thing, None
            if isinstance(home, str) and (home, thing.__name__) != (module, name):
                # One of TYPES under another name: treated as its own name.
                known, refused = self.look_up(home, thing.__name__)
                if known is thing and not refused:
                    return thing, None
        elif self.is_interface(thing):
            return thing, None
        return None, full

    def is_application(self, module):
        return module.split('.', 1)[0] not in self.standard and not module.endswith('.__main__')

    @staticmethod
    def get(module, name):
        if PYTHON2:
            try:
                module, name = str(module), str(name)
            except UnicodeError:
                return None
        if module in ('__builtin__', 'builtins'):
            module = '__builtin__' if PYTHON2 else 'builtins'
        try:
            return getattr(__import__(module, {}, {}, ['cluck']), name, None)
        except ImportError:
            LOG.log(15, 'Unable to load class', exc_info=True)
            return None

    @staticmethod
    def is_interface(thing):
        interface = sys.modules.get('zope.interface.interface')
        return interface is not None and issubclass(type(thing), interface.InterfaceClass)

    # Instances. Each of these raises Refused.

    def refuse(self, thing, why=''):
        if self.BadClass is not None and isinstance(thing, self.BadClass):
            name = '.'.join(map(shown, thing.args))
        elif is_class(thing):
            name = '%s.%s' % (thing.__module__, thing.__name__)
        else:
            name = 'an object of %s' % type(thing).__name__
        raise Refused(name + why)

    def no_class(self, error):
        """Notes a refusal; returns ZODB's placeholder for a class that cannot be imported."""
        self.refused.insert(0, str(error))
        return self.BadClassName(str(error))

    def maker(self, cls):
        """How instances of a class are made: a function of the class and the arguments."""
        maker = self.makers.get(cls)
        if maker is None:
            maker = self.makers[cls] = self.find_maker(cls)
        return maker

    def find_maker(self, cls):
        if PYTHON2 and type(cls) is types.ClassType:
            if hasattr(cls, '__getinitargs__'):
                return lambda cls, *args: self.refuse(cls, ' (with arguments)')
            return lambda cls: types.InstanceType(cls)
        new = cls.__new__
        if isinstance(new, types.FunctionType):
            if issubclass(cls, tuple) and hasattr(cls, '_fields'):
                return lambda cls, *args: tuple.__new__(cls, args)
            for base in cls.__mro__:
                for name in '__getnewargs__', '__getnewargs_ex__':
                    if isinstance(base.__dict__.get(name), types.FunctionType):
                        return new
            return lambda cls, *args, **named: self.refuse(cls, ' (with arguments)') if args or named else new(cls)
        owner = getattr(new, '__self__', None)
        if is_class(owner) and (
                owner in self.bases or issubclass(owner, BaseException)
                or str(owner.__module__).split('.')[0].lstrip('_') in PACKAGES_IN_C):
            return new
        return lambda cls, *args, **named: self.refuse(cls, ' (its __new__ is in C)')

    def check_class(self, cls):
        if not is_class(cls):
            self.refuse(cls)
        if issubclass(cls, type):
            # A class of the application, with any methods.
            self.refuse(cls)
        if id(cls) not in self.calls and hasattr(cls, '__del__'):
            self.refuse(cls, ' (it has __del__)')

    def new(self, cls, *args):
        return self.new_ex(cls, args, {})

    def new_ex(self, cls, args, named):
        self.check_class(cls)
        known = self.calls.get(id(cls))
        if known is None:
            return self.maker(cls)(cls, *args, **named)
        if known[1] is not cls:
            self.refuse(cls)
        return cls.__new__(cls, *args, **named)

    def instantiate(self, cls, args):
        """For the opcodes of classes of the old style."""
        if args:
            return self.call(cls, args)
        return self.new(cls)

    def call(self, thing, args):
        known = self.calls.get(id(thing))
        if known is not None:
            return known[1](*args)
        self.check_class(thing)
        if PYTHON2 and type(thing) is types.ClassType:
            self.refuse(thing, ' (with arguments)')
        if self.is_enumeration(thing):
            if len(args) != 1:
                self.refuse(thing, ' (with arguments)')
            return thing(*args)
        # Its base classes are known, so nothing else can be called.
        init = thing.__init__
        init = getattr(init, '__func__', init)
        if thing.__new__ not in self.news and not issubclass(thing, BaseException) or type(thing).__call__ != type.__call__ or not (
                init in self.inits or issubclass(thing, BaseException) and not isinstance(init, types.FunctionType)):
            self.refuse(thing, ' (called)')
        if isinstance(thing.__new__, types.FunctionType) and thing.__new__ not in self.news:
            self.refuse(thing, ' (called)')
        if issubclass(thing, self.defaultdict) and args:
            self.check_factory(args[0])
        return thing(*args)

    @staticmethod
    def is_enumeration(cls):
        enum = sys.modules.get('enum')
        return enum is not None and issubclass(type(cls), enum.EnumMeta)

    def reconstruct(self, cls, base, state):
        """For `copy_reg._reconstructor`."""
        self.check_class(cls)
        if base not in self.bases:
            self.refuse(base)
        if base is object:
            return object.__new__(cls)
        if base is self.defaultdict:
            self.refuse(base)
        made = base.__new__(cls, state)
        if base.__init__ != object.__init__:
            base.__init__(made, state)
        return made

    def inner(self, thing, name):
        """For `getattr`: the form of classes inside classes, and of members of enumerations."""
        if is_class(thing) and type(name) is str:
            found = thing.__dict__.get(name)
            if self.is_enumeration(thing) and name in thing.__members__:
                return thing.__members__[name]
            if not PYTHON2 and found is not None and is_class(found) and found.__module__ == thing.__module__ and (
                    getattr(found, '__qualname__', None) == thing.__qualname__ + '.' + name):
                return found
        raise Refused('getattr')

    def latin1(self, text, encoding=None):
        """For `_codecs.encode`: the form in which Python 3 writes bytes for Python 2."""
        if type(text) is not type(u'') or encoding not in ('latin1', 'latin-1', 'iso-8859-1'):
            raise Refused('_codecs.encode')
        return text.encode('latin-1')

    def kind(self, value):
        """For `type`: the form of types that have no name."""
        if value is None or value is Ellipsis or value is NotImplemented:
            return type(value)
        raise Refused('type')

    def array(self, cls, code, kind, data):
        import array
        if cls is not array.array:
            self.refuse(cls)
        return array._array_reconstructor(cls, code, kind, data)

    def check_factory(self, factory):
        known = self.calls.get(id(factory))
        if factory is not None and (known is None or known[1] is not factory):
            self.refuse(factory, ' (for defaultdict)')

    def default_dict(self, factory=None, *args):
        self.check_factory(factory)
        return self.defaultdict(factory, *args)

    def provides(self, cls, *interfaces):
        from zope.interface.declarations import Provides
        from zope.interface.interface import Specification
        if not is_class(cls) or not all(isinstance(one, Specification) for one in interfaces):
            raise Refused('zope.interface.Provides')
        return Provides(cls, *interfaces)

    def implemented_by(self, cls):
        from zope.interface.declarations import implementedBy
        if not is_class(cls):
            raise Refused('zope.interface.implementedBy')
        return implementedBy(cls)

    # States.

    @staticmethod
    def check_state(state, is_old):
        """Refuses attributes that would replace methods which pickle or copy call."""
        for name in dict.__iter__(state):
            if type(name) in STRINGS and name[:2] == '__' and name[-2:] == '__' and (
                    name in PROTOCOL or is_old and callable(dict.__getitem__(state, name))):
                raise Refused('an attribute %s' % shown(name))

    def check_written(self, thing):
        """Checks the parts of a merged state, which decide how it is pickled."""
        if any(thing is function for function in self.made_here):
            raise Refused('a function')
        attributes = getattr(thing, '__dict__', None)
        if type(attributes) is dict:
            self.check_state(attributes, PYTHON2 and type(thing) is OLD_INSTANCE)

    def set_state(self, made, state):
        is_old = PYTHON2 and type(made) is OLD_INSTANCE
        cls = made.__class__ if is_old else type(made)
        slots = None
        for part in state if type(state) is tuple else (state,):
            if isinstance(part, dict):
                self.check_state(part, is_old)
        set_state = getattr(cls, '__setstate__', None)
        if set_state is not None:
            set_state(made, state)
            return
        if type(state) is tuple and len(state) == 2:
            state, slots = state
        if state:
            if type(state) is not dict:
                raise Refused('a state that is no dict')
            attributes = made.__dict__
            for name, value in state.items():
                attributes[sys.intern(name) if type(name) is str and not PYTHON2 else name] = value
        if slots:
            if type(slots) is not dict:
                raise Refused('a state that is no dict')
            for name, value in slots.items():
                if not self.is_slot(cls, name):
                    raise Refused('an attribute %s' % shown(name))
                setattr(made, name, value)

    @staticmethod
    def is_slot(cls, name):
        """Pickle sets the attributes in `__slots__`."""
        return any(
            '__slots__' in base.__dict__ and isinstance(base.__dict__.get(name), types.MemberDescriptorType)
            for base in cls.__mro__)
