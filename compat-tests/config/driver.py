"""Python's side of the comparison: what runzeo's own option class says to a command line.

Runs under Python 2.7 (ZEO 4) and 3 (ZEO 6). Reads one JSON object per line: directory, arguments, environment;
writes one per line: the verdict, the message, and on acceptance the settings. Every case runs in a child
process of its own, because reading a configuration opens log files and changes the root logger.
"""
from __future__ import print_function

import io
import json
import os
import re
import signal
import site
import sys
import tempfile

# Packages with storages of their own.
for directory in sys.argv[1:]:
    site.addsitedir(directory)

import ZConfig  # noqa: E402
import ZODB.config  # noqa: E402
from ZEO.runzeo import ZEOOptions  # noqa: E402

try:
    import ZEO.zconfig
except ImportError:
    pass  # ZEO 4 has no TLS
else:
    # The section itself: certificates are files, which a configuration alone does not need.
    ZEO.zconfig.client_ssl = lambda section: (section, section.server_hostname)

TIME_LIMIT = 20  # seconds for a case


def address(value):
    if value is None:
        return None
    if isinstance(value, tuple):
        return {'host': value[0], 'port': value[1]}
    return {'path': value}


def client(config):
    """The keys of <zeoclient> or <clientstorage>; None where the section lacks one."""
    result = {key: getattr(config, key, None) for key in (
        'storage', 'cache_size', 'cache_path', 'client', 'var', 'client_label', 'read_only_fallback', 'wait', 'wait_timeout',
        'min_disconnect_poll', 'max_disconnect_poll', 'username', 'password', 'realm', 'shared_blob_dir', 'blob_cache_size',
        'blob_cache_size_check', 'server_sync', 'drop_cache_rather_verify')}
    result['servers'] = [address(server.address) for server in config.server]
    ssl = getattr(config, 'ssl', None)
    result['ssl'] = ssl and {key: getattr(ssl[0], key) for key in (
        'certificate', 'authenticate', 'check_hostname', 'server_hostname')}
    return result


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
        'client': client(config) if hasattr(config, 'server') else None,
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


def take_clientstorage(path):
    """Take a <clientstorage> out of a file, which becomes one that runzeo can read; return what makes the storage.

    Python's runzeo cannot read `%import ZEO`, because both ZEO's schema and what is imported define <ssl>. Programs can.
    """
    if not os.path.isfile(path):
        return None
    with io.open(path, encoding='latin-1') as file:
        text = file.read()
    section = re.search(u'^<clientstorage.*^</clientstorage>\n', text, re.M | re.S)
    if section is None:
        return None
    imports = u'%import ZEO\n'
    imported = imports in text
    rest = text.replace(imports, u'').replace(section.group(), u'<mappingstorage>\n</mappingstorage>\n')
    with io.open(path, 'w', encoding='latin-1') as file:
        file.write(rest)
    alone = (imports if imported else u'') + section.group()
    if str is bytes:
        alone = alone.encode('latin-1')
    schema = ZODB.config.getStorageSchema()
    config, _ = ZConfig.loadConfigFile(schema, io.StringIO(alone) if str is not bytes else io.BytesIO(alone))
    return config.storage


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
        taken = take_clientstorage(case['arguments'][1]) if case['arguments'][:1] == ['-C'] else None
        options.realize([str(a) for a in case['arguments']], progname='runzeo')
        if taken is not None:
            options.storages = [taken]
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
