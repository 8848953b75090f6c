"""What Python's repozo leaves when it is killed, and other accidents: what each program makes of it."""
from both import check, md5, next_second


def started(pair, count=3):
    """A repository with a full and deltas, made in turns."""
    (pair.directory / 'repo').mkdir()
    for number in range(count):
        pair.change(3)
        next_second()
        pair.run(['python', 'ours'][number % 2], '-B', '-r', 'repo', '-f', 'Data.fs')


def last_line_dropped(pair):
    dat = pair.dat('repo')
    dat.write_text(''.join(dat.read_text().splitlines(True)[:-1]))


def killed_before_the_line(pair):
    """Ours adopts the delta; Python goes on incrementally then."""
    started(pair)
    last_line_dropped(pair)
    expected = pair.bytes()
    for program in ['ours', 'python']:
        check(pair.restored(program, 'repo')[0] == expected, f'{program} restores something else')
        pair.run(program, '-V', '-r', 'repo')
    pair.change(2)
    next_second()
    pair.run('ours', '-BQ', '-r', 'repo', '-f', 'Data.fs')
    sound(pair)


def quick_after_a_kill(pair):
    """Python's quick backup overlaps: its restore has a transaction twice, ours does not, and the next one mends it."""
    started(pair)
    last_line_dropped(pair)
    pair.change(2)
    next_second()
    pair.run('python', '-BQ', '-r', 'repo', '-f', 'Data.fs')
    expected = pair.bytes()
    check(pair.restored('python', 'repo')[0] != expected, 'Python restores it rightly now')
    check(pair.restored('ours', 'repo')[0] == expected, 'ours restores something else')
    said = pair.run('ours', '-V', '-r', 'repo', rc=1)
    check('would restore them twice' in said, said)
    pair.run('python', '-V', '-r', 'repo')
    next_second()
    pair.run('ours', '-BQ', '-r', 'repo', '-f', 'Data.fs')
    sound(pair)


def default_after_a_kill(pair):
    """Python's default backup goes on behind the delta without a line: a gap in the dat file, which ours fills."""
    started(pair)
    last_line_dropped(pair)
    pair.change(2)
    next_second()
    pair.run('python', '-B', '-r', 'repo', '-f', 'Data.fs')
    check(pair.restored('ours', 'repo')[0] == pair.bytes(), 'ours restores something else')
    pair.run('ours', '-V', '-r', 'repo')
    pair.change(1)
    next_second()
    pair.run('ours', '-B', '-r', 'repo', '-f', 'Data.fs')
    sound(pair)


def dat_lost(pair):
    """Python's quick backup begins anew; ours writes the dat file again and goes on."""
    started(pair)
    before = pair.dat('repo').read_text()
    pair.dat('repo').unlink()
    check('.dat is missing' in pair.run('ours', '-V', '-r', 'repo', rc=1), 'it is not named')
    pair.run('ours', '-BQ', '-r', 'repo', '-f', 'Data.fs')
    after = [line.split()[1:] for line in pair.dat('repo').read_text().splitlines()]
    check(after == [line.split()[1:] for line in before.splitlines()], f'{after}')
    sound(pair)


def torn_by_a_pack(pair):
    """A full of the old length with the bytes of a packed file that has grown past it."""
    started(pair, 1)
    full = pair.directory / 'repo' / pair.data('repo')[0]
    length = full.stat().st_size
    pair.change('pack')
    while pair.database.stat().st_size < length + 100:
        pair.change(1)
    torn = pair.bytes()[:length]
    full.write_bytes(torn)
    dat = pair.dat('repo')
    dat.write_text(f'repo/{full.name} 0 {length} {md5(torn)}\n')
    pair.run('python', '-V', '-r', 'repo')
    said = pair.run('ours', '-V', '-r', 'repo', rc=1)
    check('middle of a transaction' in said and full.name in said, said)
    said = pair.run('ours', '-R', '-r', 'repo', '-o', 'restored.fs', rc=1)
    check(not (pair.directory / 'restored.fs').exists(), said)
    next_second()
    pair.run('ours', '-BQF', '-r', 'repo', '-f', 'Data.fs')
    check(pair.restored('python', 'repo', '-w')[0] == pair.bytes(), 'the new full is not restored')


def old_chain_damaged(pair):
    """Python verifies the newest chain only."""
    started(pair)
    next_second()
    pair.run('ours', '-BF', '-r', 'repo', '-f', 'Data.fs')
    path = pair.directory / 'repo' / pair.data('repo')[0]
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(bytes(damaged))
    pair.run('python', '-V', '-r', 'repo')
    check('has checksum' in pair.run('ours', '-V', '-r', 'repo', rc=1), 'it is not found')


def removed_on_full(pair):
    """-k of each program leaves what the other one goes on with."""
    started(pair)
    for program in ['ours', 'python']:
        pair.change(1)
        next_second()
        pair.run(program, '-BFk', '-r', 'repo', '-f', 'Data.fs')
        names = sorted(p.name for p in (pair.directory / 'repo').iterdir() if not p.name.startswith('.'))
        check(len(names) == 3, f'{program} leaves {names}')
    sound(pair)


def interrupted_restore(pair):
    """A restore over a file that exists: the former one is kept, and a locked one is not touched."""
    started(pair)
    target = pair.directory / 'target.fs'
    target.write_bytes(b'former')
    said = pair.run('ours', '-R', '-r', 'repo', '-o', target.name)
    check('before-restore' in said, said)
    check((pair.directory / 'target.fs.before-restore').read_bytes() == b'former', 'it is not kept')
    check(target.read_bytes() == pair.bytes(), 'something else is restored')
    out = pair.directory / 'stdout.fs'
    with open(out, 'wb') as stdout:
        pair.run('ours', '-R', '-r', 'repo', stdout=stdout)
    check(out.read_bytes() == pair.bytes(), 'stdout has something else')


def sound(pair):
    """Both programs restore and verify, and both go on."""
    for program in ['python', 'ours', 'python']:
        check(pair.restored(program, 'repo', '-w')[0] == pair.bytes(), f'{program} restores something else')
        pair.run(program, '-V', '-r', 'repo')
        said = pair.run('ours', '-V', '-r', 'repo')
        check(not said, f'ours finds {said}')
        pair.change(1)
        next_second()
        before = pair.data('repo')
        pair.run(program, '-BQ', '-r', 'repo', '-f', 'Data.fs')
        after = pair.data('repo')
        check(len(after) == len(before) + 1 and 'delta' in after[-1], f'{program} makes {after} of {before}')
    check(pair.restored('ours', 'repo', '-w')[0] == pair.bytes(), 'the end differs')


CASES = [killed_before_the_line, quick_after_a_kill, default_after_a_kill, dat_lost, torn_by_a_pack,
         old_chain_damaged, removed_on_full, interrupted_restore]

# Where the generations of repozo may differ.
OF_ALL = [killed_before_the_line, quick_after_a_kill, removed_on_full]


def case(pair, run, dice):
    run(pair)
