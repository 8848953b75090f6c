"""The programs of runzeo, for environments that are made by pip or by buildout.

Each program is a binary in `bin` beside this file. The console scripts below take its place in the process: no Python runs after that.
"""
import os
import sys

PROGRAMS = ('runzeo', 'zeo-nagios', 'zeoadmin', 'zeobackup', 'zeocache', 'zeoctl', 'zeofs', 'zeopack', 'zeopasswd', 'zeoup',
            'zrs-nagios')


def find_binary(name):
    """The path of a program; an error if it is not one of PROGRAMS."""
    if name not in PROGRAMS:
        raise ValueError('no program %r, but %s' % (name, ', '.join(PROGRAMS)))
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'bin', name)
    if not os.access(path, os.X_OK):
        # Some installers leave out the mode.
        os.chmod(path, 0o755)
    return path


def _become(name, *arguments):
    path = find_binary(name)
    os.execv(path, [path] + list(arguments) + sys.argv[1:])


def runzeo():
    _become('runzeo')


def zeo_nagios():
    _become('zeo-nagios')


def zeoadmin():
    _become('zeoadmin')


def zeobackup():
    _become('zeobackup')


def zeocache():
    _become('zeocache')


def zeoctl():
    _become('zeoctl')


def zeofs():
    _become('zeofs')


def zeopack():
    _become('zeopack')


def zeopasswd():
    _become('zeopasswd')


def zeoup():
    _become('zeoup')


def zrs_nagios():
    _become('zrs-nagios')


def repozo():
    _become('zeobackup', 'repozo')
