"""Random conflicts for the real BTrees of this Python and for ours; runs in every environment, on Python 2.7 and 3.

    cases.py PROGRAM COUNT SEED OUT    compare; writes what was merged by both to the file OUT for `check`
    cases.py check FILE...             load what other environments merged: ours and theirs must be the same
    cases.py time PROGRAM              time of a resolution, Python's and ours
    cases.py fixtures COUNT SEED       lines for `python-fixtures/resolve`
"""
from __future__ import print_function

import binascii
import importlib
import struct
import sys

sys.dont_write_bytecode = True  # The sources are shared by all environments.

from answers import Program, agree, python_answer, python_answer_with_open_mind  # noqa: E402
from maker import Maker  # noqa: E402
from pickles import canonical, load_record, same_state, with_equal_keys  # noqa: E402
from speed import measure  # noqa: E402


def main(program, count, seed, out):
    import logging
    logging.disable(logging.CRITICAL)
    old_btrees = not hasattr(importlib.import_module('BTrees.OOBTree'), 'OOBucketPy')
    # BTrees of ZODB3 makes a conflict of what a datetime has to say about other types.
    program, maker = Program(program), Maker(seed, instances=not old_btrees)
    counts, failed, unknown, second = {}, 0, {}, 0
    merged = open(out, 'wb')
    done = 0
    while done < count:
        case = maker.case()
        if case is None:
            continue
        done += 1
        name, cases = case
        ours = program.answer(*cases[0])
        theirs = [python_answer(*records) for records in cases]
        counts[ours[0]] = counts.get(ours[0], 0) + 1
        if ours[0] == 'U':
            unknown[ours[1]] = unknown.get(ours[1], 0) + 1
            continue
        good = [agree(ours, answer, old_btrees) for answer in theirs]
        if ours[0] == 'R' and canonical(load_record(ours[1])[0]) != canonical(load_record(cases[0][2])[0]):
            good = [False]
        if not any(good) and theirs[0][0] == 'E' and theirs[0][1].startswith('SystemError'):
            # The C code has merged and left an exception behind. Where a key was replaced by an equal one of another type
            # it takes the new one, as ours does; the Python implementation takes the old one.
            good = [False] + [ours[0] == answer[0] == 'R' and with_equal_keys(ours[1]) == with_equal_keys(answer[1])
                              for answer in theirs[1:]]
        if not any(good):
            good = [False] + [agree(ours, python_answer_with_open_mind(*records), old_btrees) for records in cases]
        if not any(good):
            failed += 1
            if failed == 1:
                show(name, cases[0], ours, theirs)
        elif not good[0]:
            second += 1
        if ours[0] == 'R' and theirs[0][0] == 'R':
            for record in (ours[1], theirs[0][1]):
                merged.write(struct.pack('<I', len(record)) + record)
    print('%d cases: %s; %d as the Python implementation only; %d not known' % (
        done, ', '.join('%s %d' % item for item in sorted(counts.items())), second, sum(unknown.values())))
    for why, number in sorted(unknown.items(), key=lambda item: -item[1])[:12]:
        print('    %6d %s' % (number, why))
    if failed:
        print('%d DIFFER (seed %d)' % (failed, seed))
    return failed


def show(name, records, ours, theirs):
    print('--', name)
    for what, record in zip(('old', 'committed', 'new'), records):
        print('   %s: %r' % (what, record))
    print('   ours:', ours)
    for answer in theirs:
        print('   theirs:', answer)


def check(*files):
    failed = done = skipped = 0
    for name in files:
        with open(name, 'rb') as file:
            data = file.read()
        at, records = 0, []
        while at < len(data):
            length, = struct.unpack('<I', data[at:at + 4])
            records.append(data[at + 4:at + 4 + length])
            at += 4 + length
        for ours, theirs in zip(records[::2], records[1::2]):
            done += 1
            try:
                load_record(theirs)
            except Exception:
                skipped += 1  # Python cannot read its own either.
                continue
            if not same_state(ours, theirs):
                failed += 1
                print('DIFFERS here: %r %r' % (ours, theirs))
    print('%d merged elsewhere were read, %d of them not at all, %d differ' % (done, skipped, failed))
    return failed


def fixtures(count, seed):
    """Cases in which both implementations agree: name, three records and the answer."""
    import logging
    logging.disable(logging.CRITICAL)
    maker = Maker(seed, instances=True)
    as_hex = lambda record: binascii.hexlify(record).decode('ascii')
    print('# Written by compat-tests/resolve/cases.py fixtures, Python %d.%d: class, old, committed, new, answer.' % sys.version_info[:2])
    while count:
        case = maker.case()
        if case is None or max(len(record) for record in case[1][0]) > 400:
            continue
        name, cases = case
        theirs = [python_answer(*records) for records in cases]
        letter, what = theirs[0]
        if letter == 'E' or not all(agree(theirs[0], other) for other in theirs):
            continue
        count -= 1
        what = as_hex(what) if letter == 'R' else what.replace(' ', '/')
        print(name, *([as_hex(record) for record in cases[0]] + [letter, what]))


if __name__ == '__main__':
    if sys.argv[1] == 'check':
        sys.exit(check(*sys.argv[2:]) > 0)
    elif sys.argv[1] == 'fixtures':
        fixtures(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == 'time':
        measure(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]) > 0)
