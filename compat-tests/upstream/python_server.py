"""The runzeo of the environment that runs this, as an external server: what a suite must pass against.

It takes the few things that upstream's own test server adds to runzeo: the protocol to announce from the
environment, the test-only authentication, and a loop for ZEO 4's monitor.
"""
import os
import sys
import threading
import time

# ZEO 6 reads it too, and refuses what it does not speak.
protocol = os.environ.pop('ZEO_SERVER_PROTOCOL', '').encode('ascii')
# Under uvloop some clients of ZEO 5 and 6 starve while they wait for the commit lock.
sys.modules['uvloop'] = None

import ZEO.runzeo  # noqa: E402

try:
    import ZEO.zrpc.connection
except ImportError:
    import ZEO.asyncio.server
    if protocol:
        ServerProtocol = ZEO.asyncio.server.ServerProtocol
        ServerProtocol.protocols = tuple(sorted(set(ServerProtocol.protocols) | set([protocol])))
        ZEO.asyncio.server.best_protocol_version = protocol
else:
    if protocol:
        ZEO.zrpc.connection.Connection.current_protocol = protocol
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

# Its own handler raises SystemExit, which gets lost when it comes in the middle of a callback, or waits for
# the thread of a connection that is just being made.
ZEO.runzeo.ZEOServer.handle_sigterm = lambda self: os._exit(0)
ZEO.runzeo.main(sys.argv[1:])
