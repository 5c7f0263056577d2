"""Kills the process in which it is loaded, once, right after (or before) a call that a file names:
"module Class.method" or "before module Class.method".

Python imports a module of this name by itself when it starts and finds it on its path, where tests put it for a vault's worker. The file
is named by CONSILIENCE_TEST_DEADLY, and deleted before the end.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from pathlib import Path

MODULES = ("federation.flower.tasks", "client.replies", "client.vault", "client.secure.store", "client.secure.sums")
FILE = Path(os.environ.get("CONSILIENCE_TEST_DEADLY", "/nonexistent"))


class Deadly(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the modules that may be named as they are, and then wraps the methods of their classes."""

    def find_spec(self, name, path, target=None):
        if name not in MODULES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.loader.exec_module(module)
        for kind in [item for item in vars(module).values() if isinstance(item, type)]:
            if kind.__module__ == module.__name__:
                for name, method in list(vars(kind).items()):
                    if callable(method) and not isinstance(method, type):
                        setattr(kind, name, wrapped(method, f"{module.__name__} {kind.__name__}.{name}"))
                    elif isinstance(method, classmethod):
                        setattr(
                            kind,
                            name,
                            classmethod(wrapped(method.__func__, f"{module.__name__} {kind.__name__}.{name}")),
                        )


def wrapped(method, place):
    def call(*words, **named):
        die(f"before {place}")
        result = method(*words, **named)
        die(place)
        return result

    return call


def die(place):
    try:
        if FILE.read_text() != place:
            return
    except FileNotFoundError:
        return
    FILE.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


if FILE != Path("/nonexistent"):
    sys.meta_path.insert(0, Deadly())
