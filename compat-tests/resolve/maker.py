"""Conflicts on BTrees, made at random."""
import datetime
import importlib
import random
import struct

from pickles import PY3, Ref, make_record, oid

text_type = type(u'')
FAMILIES = 'OO OI OL OU OQ IO II IF IU LO LL LF LQ UO UU UF UI QO QQ QF QL fs'.split()
FORMS = 'Bucket Set BTree TreeSet'.split()
RANGES = {'I': (-2**31, 2**31 - 1), 'U': (0, 2**32 - 1), 'L': (-2**63, 2**63 - 1), 'Q': (0, 2**64 - 1)}


def as_bytes(text):
    return text.encode('ascii') if PY3 else text


class Maker(object):
    def __init__(self, seed, instances):
        self.random = random.Random(seed)
        self.pool = self.make_pool()
        if not instances:
            self.pool = [value for value in self.pool if 'datetime' not in repr(value)]

    def make_pool(self):
        shared = ['shared', 1]
        return [
            0, 1, 2, 3, True, 2**40, -2**70, 1.0, 2.5, float('inf'), '', 'a', 'text', u'text', u'\xe9', u'\u20ac', as_bytes('bytes'),
            b'\xff\xfe', None, (), (1, 'a'), (1, 'b'), (1.0, 'a'), (1, ('x', None)), (u'x', 1, (2, 3)), [], [1, 2], [1, 3], {},
            {'a': 1}, {'a': 2}, {'b': 1}, {'a': 1, 'b': [1]}, shared, [shared], (shared, shared), {'k': shared},
            Ref((oid(1), dict)), Ref((oid(2), dict)), Ref(oid(1)), Ref(oid(3)), Ref(['n', ('db', oid(1))]),
            Ref(['m', ('db', oid(1), dict)]), Ref(['w', (oid(1),)]), (1, Ref(oid(1))), (1, Ref(oid(2))), [Ref(oid(1))],
            datetime.datetime(2020, 1, 2), datetime.datetime(2020, 1, 3), (1, datetime.datetime(2020, 1, 2)), dict, float('nan'),
            'x' * 300,
        ]

    def number(self, letter):
        low, high = RANGES[letter]
        return self.random.choice([
            lambda: self.random.randint(max(low, -8), 8), lambda: self.random.randint(max(low, -300), 70000),
            lambda: self.random.randint(low, high), lambda: low, lambda: high])()

    def object_keys(self):
        """A function that makes keys which belong together."""
        pick = self.random.choice
        words = ['', 'a', 'b', 'ab', 'abc', 'b' * 300, 'key', 'zope', 'Zope', 'k1', 'k2', 'k3', 'k4']
        more = [u'\xe9', u'\u20ac', u'\U0001f600', u'\uffff', u'z\xe9']
        kinds = [
            lambda: self.random.randint(-20, 20), lambda: pick(words), lambda: text_type(pick(words)), lambda: pick(more + [text_type(w) for w in words]),
            lambda: pick([0, 1, 2, 2.0, 2.5, 3, -1.5, True, 2**70, 2.0**70, 10**30]),
            lambda: pick([None, 1, 2, 3, 4, 5]), lambda: pick([None] + words),
            lambda: (self.random.randint(0, 3), pick(words)), lambda: (pick(words), (self.random.randint(0, 5),)),
            lambda: (self.random.randint(0, 3),) * self.random.randint(0, 3),
        ]
        if PY3:
            kinds += [lambda: pick(words).encode('ascii'), lambda: pick([b'', b'\xff', b'\x80a', b'a'])]
        else:
            kinds += [lambda: pick(words + ['\xff', '\x80a']), lambda: pick(words + [1, 2, 3, None, 1.5]),
                      lambda: pick(words[:5] + [text_type(w) for w in words[5:]]), lambda: (pick([None, 1, 'a']), 2),
                      lambda: pick([(1,), 'a', 3, (2, 'x'), 'zz'])]
        return pick(kinds)

    def pair(self, family):
        if family == 'fs':
            byte = lambda n: b''.join(struct.pack('B', self.random.choice([0, 1, 97, 255])) for _ in range(n))
            return (lambda: b'\xf0' + byte(1)), (lambda: byte(5) + b'\xf0')
        key = self.object_keys() if family[0] == 'O' else (lambda: self.number(family[0]))
        if family[1] == 'O':
            # a few values, so that equal ones meet
            kind = self.random.randrange(3)
            values = {0: [0, 1, 2], 1: self.random.sample(self.pool, 4), 2: [self.random.choice(self.pool)]}[kind]
            value = lambda: self.random.choice(values)
        elif family[1] == 'F':
            value = lambda: self.random.choice([0.0, 1.5, 0.1, 3, -2.25e10, float('inf')])
        else:
            value = lambda: self.number(family[1])
        return key, value

    def change(self, items, key, value, count):
        items = list(items)
        for _ in range(count):
            what = self.random.random()
            if what < 0.4 or not items:
                items.append((key(), value()))
            elif what < 0.7:
                del items[self.random.randrange(len(items))]
            else:
                at = self.random.randrange(len(items))
                items[at] = items[at][0], value()
        return items

    def case(self):
        """Three records of one object, for each implementation there is."""
        rand = self.random
        if rand.random() < 0.05:
            return self.length_case()
        family, form = rand.choice(FAMILIES), rand.choice(FORMS)
        try:
            module = importlib.import_module('BTrees.%sBTree' % family)
        except ImportError:
            return None
        mapping = form in ('Bucket', 'BTree')
        bucket_type = getattr(module, family + ('Bucket' if mapping else 'Set'))
        key, value = self.pair(family)
        if rand.random() < 0.1:
            # a new object each time: what is equal is not the same
            fresh = value
            value = lambda: again(fresh())
        size = rand.choice([0, 1, 2, 3, 5, 8, 8, 20, 60])
        old = [(key(), value()) for _ in range(size)]
        few = rand.choice([1, 1, 2, 4])
        committed, new = self.change(old, key, value, few), self.change(old, key, value, few)
        next_ref = Ref((oid(77), bucket_type)) if rand.random() < 0.3 and form in ('Bucket', 'Set') else None
        states = []
        for items in (old, committed, new):
            state = self.state(bucket_type, mapping, items)
            if state is None:
                return None
            if rand.random() < 0.01:
                state = None
            elif next_ref is not None or rand.random() < 0.01:
                following = next_ref if next_ref is not None and rand.random() < 0.97 else Ref((oid(78), bucket_type))
                state = state + (following,)
            if form in ('BTree', 'TreeSet'):
                if state is not None:
                    state = None if not state[0] else ((state,),)
                if rand.random() < 0.01:
                    state = ((Ref((oid(5), bucket_type)), 1, Ref((oid(6), bucket_type))), Ref((oid(5), bucket_type)))
            states.append(state)
        protocol = 3 if PY3 else rand.choice([1, 1, 2])
        cases = []
        how = rand.random()
        for suffix in ('', 'Py'):
            klass = getattr(module, family + form + suffix, None)
            if klass is None:
                continue
            meta = klass
            if how < 0.1:
                meta = (klass, None)
            elif how < 0.2:
                meta = (('BTrees.%sBTree' % family, family + form + suffix), ())
            cases.append(tuple(make_record(meta, state, protocol) for state in states))
        return '%s%s' % (family, form), cases

    def length_case(self):
        from BTrees.Length import Length
        numbers = [self.random.choice([self.random.randint(-5, 500), 2**31, 2**63 - 1, -2**63, 10**20, True]) for _ in range(3)]
        protocol = 3 if PY3 else self.random.choice([1, 2])
        return 'Length', [tuple(make_record(Length, number, protocol) for number in numbers)]

    def state(self, bucket_type, mapping, items):
        try:
            if mapping:
                bucket = bucket_type()
                for key, value in items:
                    bucket[key] = value
            else:
                bucket = bucket_type([key for key, _ in items])
        except TypeError:
            return None
        return bucket.__getstate__()


def again(value):
    """An equal value that is another object."""
    if isinstance(value, list):
        return [again(item) for item in value]
    if isinstance(value, tuple):
        return tuple([again(item) for item in value])
    if isinstance(value, dict):
        return dict((key, again(item)) for key, item in value.items())
    if isinstance(value, Ref):
        return Ref(again(value.data))
    return value
