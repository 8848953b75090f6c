"""The runzeo of the environment that runs this, as an external server: what a suite must pass against.

It takes the few things that upstream's own test server adds to runzeo: the protocol to announce from the
environment (ZEO 5 and 6 do that themselves), the test-only authentication, and a loop for ZEO 4's monitor.
"""
import os
import sys
import threading
import time

import ZEO.runzeo

try:
    import ZEO.zrpc.connection
except ImportError:
    pass
else:
    protocol = os.environ.get('ZEO_SERVER_PROTOCOL')
    if protocol:
        ZEO.zrpc.connection.Connection.current_protocol = protocol.encode('ascii')
    import ZEO.tests.auth_plaintext
    if os.path.exists(os.path.join(os.path.dirname(ZEO.__file__), '_compat.py')):
        import asyncore

        def serve_monitor():
            while True:
                if asyncore.socket_map:
                    asyncore.loop(timeout=.2)
                time.sleep(.05)

        thread = threading.Thread(target=serve_monitor)
        thread.daemon = True
        thread.start()

try:
    ZEO.runzeo.main(sys.argv[1:])
except SystemExit as e:
    # ZEO 4 may leave the thread of a connection behind that is just being made, and Python would wait for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(e.code if isinstance(e.code, int) else 1)
