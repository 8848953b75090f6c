"""Reads the records that a helper merges. names.py, which precedes this file, makes the instances of allowed classes.

For Python 2.7 and 3, and for ZODB 3.8 and later.
"""
import logging
import sys
import time

# Upper bound on log lines about refused records, per minute.
LINES_MAX = 20
LOG = logging.getLogger('ZODB.ConflictResolution')


def base_unpickler():
    """The unpickler that is written in Python, so that each step can be replaced."""
    try:
        if PYTHON2:
            from zodbpickle.pickle_2 import Unpickler
        else:
            from zodbpickle.pickle_3 import _Unpickler as Unpickler
    except ImportError:
        import pickle
        Unpickler = pickle.Unpickler if PYTHON2 else pickle._Unpickler
    return Unpickler


def make_reader(names, ConflictError):
    """The unpickler for records, as ZODB.ConflictResolution uses it."""
    Base = base_unpickler()

    class Reader(Base):
        dispatch = Base.dispatch.copy()

        def __init__(self, file):
            Base.__init__(self, file)
            # Instances that were made here, by id: only these get a state or items.
            self.made = {}
            # The first record of a merge has the class whose `_p_resolveConflict` is called.
            self.expects_class, names.is_first = names.is_first, False

        def load(self):
            try:
                value = Base.load(self)
                if self.expects_class:
                    self.expects_class = False
                    self.check_meta(value)
            except Refused:
                # As in ZODB for a class that cannot be imported: no error of the application.
                raise names.no_class(sys.exc_info()[1])
            return value

        @staticmethod
        def check_meta(meta):
            cls, args = meta, None
            if type(meta) is tuple:
                if len(meta) != 2:
                    raise Refused('a class that is none')
                cls, args = meta
            if type(cls) is tuple:
                if len(cls) != 2:
                    raise Refused('a class that is none')
                cls = names.find(*cls)
            if not is_class(cls) or issubclass(cls, type):
                if names.BadClass is not None and type(cls) is names.BadClass:
                    if not names.refused:
                        names.missing = '.'.join(map(shown, cls.args))
                    raise names.BadClassName(*cls.args)
                names.refuse(cls)
            if not hasattr(cls, '_p_resolveConflict'):
                raise ConflictError()
            # ZODB makes an instance with these arguments.
            if args is not None and type(args) is not tuple:
                raise Refused('arguments that are no tuple')
            names.maker(cls)(cls, *(args or ()))

        def find_class(self, module, name):
            return names.find(module, name)

        def get_extension(self, code):
            raise Refused('extension code %d' % code)

        def keep(self, made):
            self.made[id(made)] = made
            self.stack.append(made)

        def items(self):
            """The values above the topmost mark, which is removed."""
            if hasattr(Base, 'pop_mark'):
                return self.pop_mark()
            at = self.marker()
            items = self.stack[at + 1:]
            del self.stack[at:]
            return items

        def method(self, target, name):
            """The method `name` of the class of `target`, which adds items to it."""
            if id(target) not in self.made or not hasattr(type(target), name) and type(target) is not OLD_INSTANCE:
                names.refuse(target, ' (for items)')
            cls = target.__class__ if type(target) is OLD_INSTANCE else type(target)
            return getattr(cls, name)

        def load_reduce(self):
            args = self.stack.pop()
            thing = self.stack.pop()
            if type(args) is not tuple:
                raise Refused('arguments that are no tuple')
            made = names.call(thing, args)
            known = names.calls.get(id(thing))
            if known is None and not names.is_enumeration(thing) or known is not None and (
                    is_class(thing) and not is_class(made) or known[1] in (names.new, names.new_ex, names.reconstruct)):
                self.keep(made)
            else:
                self.stack.append(made)

        def load_newobj(self):
            args = self.stack.pop()
            cls = self.stack.pop()
            self.keep(names.new(cls, *args))

        def load_newobj_ex(self):
            named = self.stack.pop()
            args = self.stack.pop()
            cls = self.stack.pop()
            self.keep(names.new_ex(cls, args, named))

        def load_inst(self):
            module = self.readline()[:-1]
            name = self.readline()[:-1]
            if not PYTHON2:
                module, name = module.decode('ascii'), name.decode('ascii')
            cls = names.find(module, name)
            self.keep(names.instantiate(cls, tuple(self.items())))

        def load_obj(self):
            items = self.items()
            if not items:
                raise Refused('an instance of no class')
            self.keep(names.instantiate(items[0], tuple(items[1:])))

        def load_build(self):
            state = self.stack.pop()
            made = self.stack[-1]
            if id(made) not in self.made or is_class(made):
                names.refuse(made, ' (with a state)')
            names.set_state(made, state)

        def add_items(self, items):
            target = self.stack[-1]
            if type(target) is list:
                target.extend(items)
                return
            append = self.method(target, 'append')
            for item in items:
                append(target, item)

        def load_append(self):
            self.add_items([self.stack.pop()])

        def load_appends(self):
            self.add_items(self.items())

        def set_items(self, items):
            target = self.stack[-1]
            if type(target) is dict:
                for at in range(0, len(items), 2):
                    target[items[at]] = items[at + 1]
                return
            set_item = self.method(target, '__setitem__')
            for at in range(0, len(items), 2):
                set_item(target, items[at], items[at + 1])

        def load_setitem(self):
            value = self.stack.pop()
            self.set_items([self.stack.pop(), value])

        def load_setitems(self):
            self.set_items(self.items())

        def load_additems(self):
            items = self.items()
            target = self.stack[-1]
            if type(target) is set:
                target.update(items)
                return
            add = self.method(target, 'add')
            for item in items:
                add(target, item)

        for code, step in [
            (b'R', load_reduce), (b'\x81', load_newobj), (b'\x92', load_newobj_ex), (b'i', load_inst), (b'o', load_obj),
            (b'b', load_build), (b'a', load_append), (b'e', load_appends), (b's', load_setitem), (b'u', load_setitems),
            (b'\x90', load_additems),
        ]:
            code = code if PYTHON2 else code[0]
            if code in dispatch:
                dispatch[code] = step
        del code, step

    return Reader


class Guard(object):
    """Replaces ZODB's reader by this one, and logs the refused names of records."""

    def __init__(self, ConflictResolution, ConflictError, allowed=()):
        self.check_zodb(ConflictResolution)
        BadClass = getattr(ConflictResolution, 'BadClass', None)
        BadClassName = getattr(ConflictResolution, 'BadClassName', ValueError)
        self.names = names = Names(allowed, BadClass, BadClassName)
        reader = make_reader(names, ConflictError)

        def persistent_unpickler(find_global, load_persistent, file):
            unpickler = reader(file)
            unpickler.persistent_load = load_persistent
            return unpickler

        persistent_id = getattr(ConflictResolution, 'persistent_id', lambda thing: None)

        def checked_persistent_id(thing):
            reference = persistent_id(thing)
            if reference is None and type(thing) not in names.bases and not is_class(thing):
                try:
                    names.check_written(thing)
                except Refused:
                    raise names.no_class(sys.exc_info()[1])
            return reference

        ConflictResolution.persistent_id = checked_persistent_id
        ConflictResolution.find_global = names.find
        ConflictResolution.Unpickler = reader
        ConflictResolution.PersistentUnpickler = persistent_unpickler
        self.logged, self.period, self.lines = set(), 0, 0
        self.begin()

    @staticmethod
    def check_zodb(ConflictResolution):
        """Checks that this ZODB reads records as expected."""
        used = set()
        for thing in vars(ConflictResolution).values():
            code = getattr(thing, '__code__', None)
            used.update(getattr(code, 'co_names', ()))
        used = [name for name in used if 'npickle' in name or name == 'loads']
        unknown = sorted(set(used) - set(['PersistentUnpickler', 'Unpickler']))
        if unknown:
            raise Refused('this version of ZODB reads records with %s' % ', '.join(unknown))

    def begin(self):
        """Another merge begins."""
        del self.names.refused[:]
        self.names.missing = None
        self.names.is_first = True

    def reason(self):
        """Why a record was not merged, if a name in it is the reason; also logged."""
        if self.names.refused:
            text = 'its record names %s, which is not run' % self.names.refused[0]
            line = text + '. If the application needs it, conflict-resolver-allow in <zeo> can allow it'
        elif self.names.missing:
            text = line = 'class %s cannot be imported' % self.names.missing
        else:
            return None
        self.log_once(text, 'A conflict is left to the client: ' + line)
        return text

    def log_once(self, key, line):
        now = time.time()
        if not 0 <= now - self.period < 60:
            self.period, self.lines = now, 0
            self.logged.clear()
        if key not in self.logged:
            self.lines += 1
            if self.lines < LINES_MAX:
                self.logged.add(key)
                LOG.warning('%s', line)
            elif self.lines == LINES_MAX:
                LOG.warning('Further conflicts on records with such names are not logged for a minute')
