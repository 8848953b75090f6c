"""The tests, by subject. Importing this registers them."""
from . import basics, caches, conflicts, resolution, copying, read_only, restarts  # noqa: F401
from . import authentication, addresses, blobs, limits, packing, program, storages  # noqa: F401
from . import drill, listeners, restores, tls, together, switch_back, undo  # noqa: F401
