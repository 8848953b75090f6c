"""The client generations, and which Python server can serve each (no Python server serves them all)."""
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
VENVS = Path(os.environ.get("RUNZEO_VENVS") or Path.home() / ".cache/runzeo")


class Generation:
    """One client library in its own environment. `age` orders them: 308 is ZODB3 3.8, 600 is ZEO 6."""

    def __init__(self, name, age, environment, python_server, msgpack=False):
        self.name = name
        self.age = age
        self.environment = environment
        self.python_server = python_server
        self.msgpack = msgpack

    @property
    def python(self):
        return VENVS / self.environment / "bin" / "python"

    @property
    def is_python2(self):
        return self.environment.endswith("py27")

    def missing(self):
        return None if self.python.exists() else f"no environment {self.python.parent.parent}"

    def __str__(self):
        return self.name


ALL = [
    Generation("zodb38-py27", 308, "zodb38-py27", "zeo4-py27"),
    Generation("zodb39-py27", 309, "zodb39-py27", "zeo4-py27"),
    Generation("zodb310-py27", 310, "zodb310-py27", "zeo4-py27"),
    Generation("zeo4-py27", 400, "zeo4-py27", "zeo4-py27"),
    Generation("zeo4-py36", 400, "zeo4-py36", "zeo4-py36"),
    Generation("zeo5-py38", 500, "zeo5-py38", "zeo6-py311"),
    Generation("zeo6-py311", 600, "zeo6-py311", "zeo6-py311"),
    Generation("zeo6-py311-msgpack", 600, "zeo6-py311", "zeo6-py311", msgpack=True),
]
BY_NAME = {g.name: g for g in ALL}
