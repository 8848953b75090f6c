"""The tests, by subject. Importing this registers them."""
from . import basics, caches, conflicts, read_only, restarts, addresses, program, together, switch_back  # noqa: F401
