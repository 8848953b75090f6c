"""A class whose conflicts can be resolved: its state is a number, and both changes count."""
from persistent import Persistent


class Counter(Persistent):

    value = 0

    def __getstate__(self):
        return self.value

    def __setstate__(self, value):
        self.value = value

    def _p_resolveConflict(self, old, committed, new):
        if old % 7 == 3:
            raise ValueError('not this one')
        return committed + new - old
