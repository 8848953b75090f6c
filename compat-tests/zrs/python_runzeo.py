"""Python's runzeo in an environment, whose secondaries connect again after a second. (Their minute is in no configuration.)"""
import sys

import zc.zrs.secondary
from ZEO.runzeo import main

begin = zc.zrs.secondary.Secondary.__init__


def begin_in_haste(self, *args, **options):
    options.setdefault("reconnect_delay", 1)
    begin(self, *args, **options)


zc.zrs.secondary.Secondary.__init__ = begin_in_haste
sys.exit(main())
