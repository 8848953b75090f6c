"""The runzeo of the environment that runs this, as an external server: what a suite must pass against.

It takes the few things that upstream's own test server adds to runzeo: the protocol to announce from the
environment (ZEO 5 and 6 accept only some), the test-only authentication, and a loop for ZEO 4's monitor.
"""
import os
import sys
import threading
import time

# Under uvloop some clients of ZEO 5 and 6 starve while they wait for the commit lock.
sys.modules['uvloop'] = None

import ZEO.runzeo  # noqa: E402

protocol = os.environ.get('ZEO_SERVER_PROTOCOL', '').encode('ascii')

try:
    import ZEO.zrpc.connection
except ImportError:
    if protocol:
        import ZEO.asyncio.server
        ServerProtocol = ZEO.asyncio.server.ServerProtocol
        ServerProtocol.protocols = tuple(sorted(set(ServerProtocol.protocols) | set([protocol])))
    # Its own handler raises SystemExit, which gets lost when it comes in the middle of a callback.
    ZEO.runzeo.ZEOServer.handle_sigterm = lambda self: os._exit(0)
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

try:
    ZEO.runzeo.main(sys.argv[1:])
except SystemExit as e:
    # ZEO 4 may leave the thread of a connection behind that is just being made, and Python would wait for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(e.code if isinstance(e.code, int) else 1)
