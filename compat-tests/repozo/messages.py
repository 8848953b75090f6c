"""What both programs print, and their exit codes: the same, but for what is listed in `DIFFERENT`."""
import re

from both import check, next_second

# Lines that only one program prints, and why.
DIFFERENT = [
    r'Deleting old .*',  # Python removes the file that is there before it restores; ours keeps it.
    r'.*: the file that was there is now .*',
    r'removing old backup file .* \(and \.dat / \.index\)',  # The order: ours removes from the end. Compared as a set.
]


def normal(text, repository):
    """Without times and the name of the repository; lines of `DIFFERENT` aside."""
    text = re.sub(r'\d{4}(-\d\d){5}', 'TIME', text).replace(repository, 'REPO')
    lines = [re.sub(r'restored-by-\w+', 'RESTORED', line) for line in text.splitlines()]
    return [line for line in lines if not any(re.fullmatch(pattern, line) for pattern in DIFFERENT)]


def same(pair, *arguments, rc=0):
    """Runs both, each in its own repository."""
    said = {}
    for program, repository in [('python', 'by-python'), ('ours', 'by-ours')]:
        own = [a.format(repo=repository, target=f'restored-by-{program}.fs') for a in arguments]
        text = pair.run(program, *own, rc=rc)
        said[program] = normal(text, repository)
    lines = {program: '\n'.join(text) for program, text in said.items()}
    check(said['ours'] == said['python'], f'{arguments}: ours\n{lines["ours"]}\nPython\n{lines["python"]}')


def backup(pair, *options):
    next_second()
    same(pair, '-B', '-v', '-r', '{repo}', '-f', 'Data.fs', *options)


def everything(pair):
    for name in ['by-python', 'by-ours']:
        (pair.directory / name).mkdir()
    same(pair, '-R', '-v', '-r', '{repo}', rc=1)
    same(pair, '-V', '-v', '-r', '{repo}', rc=1)
    pair.change(3)
    backup(pair)
    backup(pair)
    backup(pair, '-Q')
    for options in [[], ['-Q'], ['-z'], ['-Qz']]:
        pair.change(2)
        backup(pair, *options)
        backup(pair, *options)
    for mode in [['-V'], ['-VQ'], ['-R', '-o', '{target}'], ['-R', '-o', '{target}', '-w']]:
        same(pair, *mode, '-v', '-r', '{repo}')
    same(pair, '-R', '-v', '-r', '{repo}', '-D', '2001-01-01', rc=1)
    for options in [[], ['-Q']]:
        pair.change(1, 'pack')
        backup(pair, *options)
    # A pack that leaves a file that is longer than the backups, by what follows.
    pair.change('pack', 30)
    backup(pair, '-Q')
    backup(pair, '-F')
    backup(pair, '-Fzk')
    backup(pair, '-D', '2001', '-o', 'x', '-w')
    same(pair, '-V', '-v', '-r', '{repo}', '-D', '1', '-o', 'x', '-F', '-z', '-f', 'y', '-k', '-w')
    same(pair, '-R', '-v', '-o', '{target}', '-r', '{repo}', '-f', 'x', '-k')
    for damage in [damaged, shortened, removed]:
        for name in ['by-python', 'by-ours']:
            damage(max((pair.directory / name).glob('*.fsz')))
        same(pair, '-V', '-r', '{repo}', rc=1)


def damaged(path):
    """Still a gzip file, of other bytes."""
    import gzip
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[30] ^= 1
    path.write_bytes(gzip.compress(bytes(data)))


def shortened(path):
    import gzip
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def removed(path):
    # The older chains are gone, so this leaves nothing to look at but the dat file.
    path.unlink()


def mistakes(pair):
    """The last line of stderr, behind the help."""
    (pair.directory / 'repo').mkdir()
    for arguments in [[], ['-B'], ['-B', '-R'], ['-B', '-r', 'repo'], ['-V', '-r', 'repo', 'more', 'words'], ['--nothing'],
                      ['-r'], ['--re'], ['-Y'], ['--full=1']]:
        last = [pair.run(program, *arguments, rc=1).splitlines()[-1] for program in ['python', 'ours']]
        check(last[0] == last[1], f'{arguments}: ours {last[1]!r}, Python {last[0]!r}')
    for program in ['python', 'ours']:
        pair.run(program, '-h')
        # Neither is there.
        pair.run(program, '-B', '-r', 'repo', '-f', 'Missing.fs', rc=1)
        pair.run(program, '-V', '-r', 'missing', rc=1)


CASES = [everything, mistakes]


def case(pair, run, dice):
    run(pair)
