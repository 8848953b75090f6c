"""What Python's logging makes of many formats, for a test to compare with ours.

Prints one case after the other, its fields separated by 0x1f and the cases by 0x1e: style, format,
date format, "ok" or "error", the line. All are for one and the same record, `FIELDS`; the local
time zone is that of the environment. Formats are made at random, the same ones every time.

Left out: `%(name)%`, a per cent sign to Python 2 (and to us) and an error to Python 3; and fields
within fields, `{message:{width}}`, which we refuse.
"""
import logging
import random
import string
import sys

FIELDS = {
    'name': 'ZEO.StorageServer', 'levelname': 'CRITICAL', 'levelno': 50, 'pathname': 'src/server/hosted.rs',
    'filename': 'hosted.rs', 'module': 'hosted', 'lineno': 42, 'funcName': '(unknown function)',
    'created': 1763805906.25, 'msecs': 250.0, 'relativeCreated': 1500.5, 'thread': 4711,
    'threadName': 'session-1', 'process': 815, 'processName': 'MainProcess',
    'msg': 'it\'s "5" \u2260 %s\\', 'args': (), 'exc_info': None, 'exc_text': None, 'stack_info': None,
}

CLASSIC = [
    '------\n%(asctime)s %(levelname)s %(name)s %(message)s', '%(asctime)s %(message)s',
    '%(levelname)-8s|%(msecs)03d|%(lineno)5d|%(created)f', '100%% %(message)s', '%(message)s 100%',
    '%(message)', '%(message)s %s', '%(nope)s', '%(message', '%(levelno)*d', '%message', '',
    '%(asctime)-30s|', '%(asctime)r', '%(message)r %(message)a', '%(args)s %(exc_info)r',
    '%(lineno)ld %(lineno)hd %(lineno)Li', '%(lineno)lld', '%(levelno)c|%(levelno)5c|',
]
BRACE = [
    '{asctime} {levelname} {name} {message}', '{levelname:<8}|{lineno:>5}|{created:.3f}', '{{{message}}}',
    '{}', '{0}', '{message', 'message}', '{nope}', '{message!r} {message!a:>40}', '{message!x}',
    '{lineno:*^9}', '{exc_info}', '{exc_info:5}', '{exc_info!s:5}', '{message:}',
]
TEMPLATE = [
    '$asctime $levelname ${name} $message', '$$ $message', '$nope $message', '${nope} $message', '$ $message',
    '${message', '$message$', '$1 $message', '$messages $message', '${message}s', '${} $message', '$_ $message',
]


def random_formats(rnd):
    names = [name for name in FIELDS if name != 'args'] + ['message', 'asctime']
    for _ in range(3000):
        flags = ''.join(rnd.sample('#0- +', rnd.choice([0, 0, 0, 1, 1, 2])))
        width = rnd.choice(['', '', '1', '5', '12', '30'])
        precision = rnd.choice(['', '', '.0', '.', '.1', '.3', '.10'])
        yield 'classic', '[%%(%s)%s%s%s%s]' % (
            rnd.choice(names), flags, width, precision, rnd.choice('sssddiuoxXeEfFgGcray'))
    for _ in range(3000):
        spec = (rnd.choice(['', '', '', '<', '>', '^', '=', '*<', '0>', 'x^', '.=']) + rnd.choice(['', '', '', '+', '-', ' '])
                + rnd.choice(['', '', '', '#']) + rnd.choice(['', '', '0']) + rnd.choice(['', '', '1', '6', '14', '27'])
                + rnd.choice(['', '', '', '', ',', '_']) + rnd.choice(['', '', '', '.0', '.2', '.9'])
                + rnd.choice(['', '', '', 's', 'd', 'n', 'b', 'o', 'x', 'X', 'c', 'e', 'E', 'f', 'F', 'g', 'G', '%', 'y']))
        yield 'format', '[{%s%s:%s}]' % (rnd.choice(names), rnd.choice(['', '', '', '', '!r', '!s', '!a']), spec)


def line(style, fmt, datefmt):
    record = logging.makeLogRecord(FIELDS)
    if style == 'safe-template':
        formatter = logging.Formatter(fmt, datefmt, style='$', validate=False)
        record.message = record.getMessage()
        record.asctime = formatter.formatTime(record, datefmt)
        return string.Template(fmt).safe_substitute(record.__dict__)
    # Python 2.7 and ZConfig's own check know nothing of "at least one field", so it is not asked for.
    formatter = logging.Formatter(fmt, datefmt, style={'classic': '%', 'format': '{', 'template': '$'}[style],
                                  validate=False)
    # An empty format means another one to Python; as a ZConfig value it cannot be told from none.
    return formatter.format(record) if fmt else ''


def main():
    cases = [('classic', fmt, None) for fmt in CLASSIC]
    cases += [('format', fmt, None) for fmt in BRACE]
    cases += [(style, fmt, None) for style in ('template', 'safe-template') for fmt in TEMPLATE]
    cases += [(style, fmt, None) for style, fmt in random_formats(random.Random(4711))]
    for datefmt in ['', '%H:%M', '%a %d %b %Y %I:%M:%S %p', '%c', '%x %X', '%j %U %w %W %y', '%%', '%Z %z', '%s',
                    'T\u00e4glich %F', '%e %k %l %D %T %R %r %u %V %G %g %h %n %t %C', '%Q', 'no directive', '%']:
        cases.append(('classic', '[%(asctime)s]', datefmt))
    out = []
    for style, fmt, datefmt in cases:
        if datefmt is None:
            datefmt = '%Y-%m-%dT%H:%M:%S'
        try:
            verdict, result = 'ok', line(style, fmt, datefmt)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
            verdict, result = 'error', ''
        out.append('\x1f'.join([style, fmt, datefmt, verdict, result]))
    sys.stdout.buffer.write('\x1e'.join(out).encode('utf-8'))


if __name__ == '__main__':
    main()
