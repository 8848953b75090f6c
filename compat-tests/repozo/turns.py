"""Random chains that both programs have made; every moment is restored by both."""
from both import check, next_second

MOMENTS = 5


def case(pair, number, dice):
    repository = dice.choice(['repo', 'r e p o', 'd\u00e9p\u00f4t'])
    (pair.directory / repository).mkdir()
    moments = []  # (stamp, bytes)
    # More than the buffers of the programs.
    pair.change(3, *['big'] * (number == 0))
    for moment in range(MOMENTS):
        what = dice.choice(['commit', 'commit', 'commit', 'pack', 'nothing']) if moment else 'commit'
        if what != 'nothing':
            pair.change(*{'commit': [dice.randrange(1, 6)], 'pack': [2, 'pack', 1]}[what])
        program = dice.choice(['ours', 'python'])
        quick = dice.random() < .5
        options = ['-Q'] * quick + ['-z'] * (dice.random() < .5)
        next_second()
        before = pair.data(repository)
        said = pair.run(program, '-B', '-v', '-r', repository, '-f', pair.database.name, *options)
        data = pair.data(repository)
        step = f'{what}, {program} {options}: {said}'
        # With a blank in a line that Python has written, its own quick backups fail; ours write what it can read.
        check(len(data) == len(before) + (what != 'nothing'), f'{data} after {step}')
        if what != 'nothing':
            is_full = data[-1].split('.')[1].startswith('fs')
            check(is_full == (what == 'pack' or not moment), f'{data[-1]} after {step}')
            moments.append((data[-1].split('.')[0], pair.bytes()))
        if ' ' in repository:
            strip(pair, repository)
    for stamp, expected in moments:
        indexes = []
        for program in ['ours', 'python']:
            found, index = pair.restored(program, repository, '-D', stamp, '-w')
            check(found == expected, f'{program} restores {len(found)} bytes as of {stamp}, expected {len(expected)}')
            indexes.append(index)
        check(indexes[0] == indexes[1], f'the indexes of {stamp} differ')
    for program in ['ours', 'python']:
        for quick in [[], ['-Q']]:
            pair.run(program, '-V', '-r', repository, *quick)


def strip(pair, repository):
    """Leaves the directory out of the lines of Python, which cannot read its own with a blank."""
    dat = pair.dat(repository)
    text = dat.read_text()
    dat.write_text(text.replace(repository + '/', ''))
