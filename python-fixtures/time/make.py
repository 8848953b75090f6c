"""Writes times.txt: what persistent's TimeStamp makes of tids and of pack times.

    python make.py [SEED [COUNT]] > times.txt

`t TID SECONDS`: TimeStamp(tid).timeTime(). `p SECONDS TID`: the tid that ZODB's storages make of a
pack time. Tids and doubles are written as the hex digits of their eight bytes, big-endian.
times.txt is of persistent 6.9 (Python 3.11); persistent 4.9.3, 6.1.1 and the one in ZODB3 3.8 to
3.10 give the same for tids up to the year 5909, where the oldest ones overflow."""
from __future__ import print_function

import binascii
import random
import struct
import sys
import time

from persistent.TimeStamp import TimeStamp

MINUTES_PER_YEAR = 12 * 31 * 24 * 60


def hexed(data):
    return binascii.hexlify(data).decode('ascii')


def double(number):
    return hexed(struct.pack('>d', number))


def stop_of(seconds):
    stamp = TimeStamp(*time.gmtime(seconds)[:5] + (seconds % 60,))
    # Before persistent 4, repr() was the only way to the eight bytes.
    return stamp.raw() if hasattr(stamp, 'raw') else repr(stamp)


def main(seed=1, count=200):
    some = random.Random(seed)

    def tid(first_year, last_year, fraction):
        minutes = int(some.uniform(first_year - 1900, last_year - 1900) * MINUTES_PER_YEAR)
        return minutes << 32 | fraction

    for number in range(count):
        fraction = some.getrandbits(32)
        tids = [tid(1970, 2040, fraction), tid(1900, 5900, fraction)]
        if number % 4 == 0:
            tids.append(tid(1970, 2040, some.choice([0, 1, 1 << 31, 0xfffffffe, 0xffffffff])))
        for value in tids:
            value = struct.pack('>Q', value)
            seconds = TimeStamp(value).timeTime()
            print('t', hexed(value), double(seconds))
            if seconds >= 0:
                print('p', double(seconds), hexed(stop_of(seconds)))
        seconds = some.choice([
            some.uniform(0, 4e9),
            float(some.randrange(1 << 31)),
            60.0 * some.randrange(1 << 26),
            some.uniform(0, 1e11),
        ])
        print('p', double(seconds), hexed(stop_of(seconds)))


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
