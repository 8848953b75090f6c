"""Runs a tool of ZODB in this process: `python run_tool.py MODULE ARGUMENT...` with paths on stdin, for each of them
(FILE in the arguments). Prints for each the exit status, the length of what the tool printed (with the message with which it ended), and that.
"""
import importlib
import logging
import sys
from io import BytesIO
from io import TextIOWrapper

logging.disable(logging.CRITICAL)

try:
    from StringIO import StringIO
except ImportError:
    StringIO = None

PYTHON2 = sys.version_info[0] == 2


def main_of(module):
    """What the module runs as a program."""
    if hasattr(module, 'analyze'):
        return lambda: module.report(module.analyze(sys.argv[1]))
    return getattr(module, 'Main', None) or module.main


def run(module, arguments):
    """What the tool prints, and its exit status."""
    raw = StringIO() if PYTHON2 else BytesIO()
    saved = sys.stdout, sys.argv
    sys.stdout = raw if PYTHON2 else TextIOWrapper(raw, encoding='utf-8')
    sys.argv = [module.__name__] + arguments
    status = 0
    message = ''
    try:
        try:
            status = main_of(module)()
        except SystemExit as stop:
            status = stop.code
        if isinstance(status, str):
            message = status + '\n'
        status = 0 if status is None else status if isinstance(status, int) else 1
    except Exception:
        status = 1
    finally:
        sys.stdout.flush()
        text = raw.getvalue()
        sys.stdout, sys.argv = saved
    return status, text + message.encode('utf-8')


def main():
    module = importlib.import_module(sys.argv[1])
    out = getattr(sys.stdout, 'buffer', sys.stdout)
    for line in sys.stdin:
        path = line.rstrip('\n')
        if hasattr(module, 'VERBOSE'):
            module.VERBOSE = 0
        status, text = run(module, [argument.replace('FILE', path) for argument in sys.argv[2:]])
        out.write(('%d %d\n' % (status, len(text))).encode() + text)
    out.flush()


if __name__ == '__main__':
    main()
