"""Python's side of the comparison: what runzeo's own option class says to a command line.

Runs under Python 2.7 (ZEO 4) and 3 (ZEO 6). Reads one JSON object per line: directory, arguments, environment;
writes one per line: the verdict, the message, and on acceptance the settings. Every case runs in a child
process of its own, because reading a configuration opens log files and changes the root logger.
"""
from __future__ import print_function

import json
import os
import signal
import site
import sys
import tempfile

# Packages with storages of their own.
for directory in sys.argv[1:]:
    site.addsitedir(directory)

import ZConfig  # noqa: E402
from ZEO.runzeo import ZEOOptions  # noqa: E402

TIME_LIMIT = 20  # seconds for a case


def address(value):
    if value is None:
        return None
    if isinstance(value, tuple):
        return {'host': value[0], 'port': value[1]}
    return {'path': value}


def storage(opener):
    """A storage with those inside it."""
    config = opener.config
    inner = getattr(config, 'factories', None)
    if inner is None:
        inner = [config.base] if getattr(config, 'base', None) is not None else []
    return {
        'name': opener.name,
        # `-f` has no section.
        'kind': config.getSectionType() if hasattr(config, 'getSectionType') else 'filestorage',
        'inner': [storage(one) for one in inner],
        'own_name': getattr(config, 'name', None),
        'blob_dir': getattr(config, 'blob_dir', None),
        'compress': getattr(config, 'compress', None),
        'before': getattr(config, 'before', None),
        'before_from_file': getattr(config, 'before_from_file', None),
        'path': getattr(config, 'path', None),
        'create': bool(getattr(config, 'create', None)),
        'read_only': bool(getattr(config, 'read_only', None)),
        'quota': getattr(config, 'quota', None),
        'pack_gc': getattr(config, 'pack_gc', True),
        'pack_keep_old': getattr(config, 'pack_keep_old', True),
    }


def handler(factory, root_level):
    section = factory.section
    return {
        'kind': section.getSectionType(),
        'path': getattr(section, 'path', None),
        'level': max(section.level, root_level),
        'when': getattr(section, 'when', None),
        'interval': getattr(section, 'interval', None),
        'max_size': getattr(section, 'max_size', None),
        'old_files': getattr(section, 'old_files', None),
        'facility': getattr(section, 'facility', None),
        'address': address(section.address.address) if section.getSectionType() == 'syslog' else None,
    }


def settings(options):
    log = options.config_logger
    return {
        'address': address(options.address),
        'read_only': bool(options.read_only),
        'timeout': options.transaction_timeout,
        'pid_file': options.pid_file,
        'monitor': address(getattr(options, 'monitor_address', None)),
        'authentication': [getattr(options, 'auth_' + key, None) for key in ('protocol', 'database', 'realm')],
        'client_conflict_resolution': bool(getattr(options, 'client_conflict_resolution', False)),
        'msgpack': getattr(options, 'msgpack', None),
        'storages': [storage(opener) for opener in options.storages],
        'log': None if log is None else [handler(h, log.level) for h in log.handler_factories],
    }


def judge(case):
    """Write the verdict on a case to standard output."""
    os.chdir(case['directory'])
    for name, value in case['environment'].items():
        os.environ[str(name)] = str(value)
    errors = tempfile.TemporaryFile('w+')
    sys.stderr = errors
    options = ZEOOptions()
    result = {'verdict': 'accept'}
    try:
        options.realize([str(a) for a in case['arguments']], progname='runzeo')
        result['settings'] = settings(options)
    except SystemExit as e:
        result['verdict'] = 'reject' if e.code else 'answer'
    except BaseException as e:  # a traceback and exit status 1 for the operator
        result['verdict'] = 'reject'
        result['message'] = '%s: %s' % (type(e).__name__, e)
    errors.seek(0)
    result.setdefault('message', errors.read())
    return json.dumps(result)


def main():
    # Loaded once: reading the schema takes far longer than reading a configuration.
    ZEOOptions.schema = ZConfig.loadSchema(os.path.join(ZEOOptions.schemadir, ZEOOptions.schemafile))
    for line in iter(sys.stdin.readline, ''):
        case = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # --help prints
            signal.alarm(TIME_LIMIT)
            try:
                answer = judge(case)
            except BaseException as e:
                answer = json.dumps({'verdict': 'broken', 'message': repr(e)})
            os.write(writer, answer.encode('utf-8'))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, 'rb') as pipe:
            answer = pipe.read().decode('utf-8')
        os.waitpid(child, 0)
        print(answer or json.dumps({'verdict': 'reject', 'message': 'no answer (crash or time limit)'}))
        sys.stdout.flush()


if __name__ == '__main__':
    main()
