"""The upstream suites: which environment has each, and which of its tests talk to a server.

Left out are the modules that build a StorageServer in the test process, or use fakes and mocks: they say
nothing about an external server (testZEO2, testZEOOptions, test_cache, testConversionSupport ...). A single
test of that kind in the other modules is recognised by its starting no server, and not counted. Read by the
launcher and by workers of every Python from 2.7 on.
"""

SUITES = {
    '3.8.6': {
        'environment': 'zodb38-py27',
        'modules': ['testZEO', 'testConnection', 'testAuth', 'testMonitor'],
    },
    '3.9.7': {
        'environment': 'zodb39-py27',
        'modules': ['testZEO', 'testConnection', 'testAuth', 'testMonitor'],
    },
    '3.10.7': {
        'environment': 'zodb310-py27',
        'modules': ['testZEO', 'testConnection', 'testAuth', 'testMonitor'],
    },
    '4.3.1': {
        'environment': 'zeo4-py27',
        'modules': ['testZEO', 'testConnection', 'testAuth', 'testMonitor', 'testConfig'],
    },
    '4.3.1-py36': {
        'environment': 'zeo4-py36',
        'modules': ['testZEO', 'testConnection', 'testAuth', 'testMonitor', 'testConfig'],
    },
    '5.4.1': {
        'environment': 'zeo5-py38',
        'modules': ['testZEO', 'testConnection', 'testConfig', 'testssl',
                    'test_client_side_conflict_resolution'],
    },
    '6.2': {
        'environment': 'zeo6-py311',
        'modules': ['testZEO', 'testConnection', 'testConfig', 'testssl',
                    'test_client_side_conflict_resolution'],
    },
}

# ZEO 5 and 6 leave these classes of testZEO out of their own suites to save time.
LEFT_OUT_UPSTREAM = ['FileStorageTests', 'DemoStorageTests', 'FileStorageHexTests', 'FileStorageClientHexTests']

# Asks for a server in a thread of its own process, so it is not recognised by starting none.
IN_PROCESS = ['testZEO.dynamic_server_ports.test']
