"""From one RGB video of a hand handling an object to joint commands for a UR5e arm with an Allegro hand.

The names below are loaded when they are first used: `import amt` is instant and imports no jax.
"""

import importlib

_FUNCTIONS = {"load_predictor": "amt.inference.predictor", "retarget": "amt.robot"}
_MODULES = ("hand", "robot", "models", "physics")

__all__ = [*_FUNCTIONS, *_MODULES]


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"amt.{name}")
    raise AttributeError(f"module 'amt' has no attribute {name!r}")
