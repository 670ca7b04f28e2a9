"""Differentiable simulation of the robot and the objects it handles, by MuJoCo's equations."""

from amt.physics.model import Model, State, at_rest, chosen, put, stack
from amt.physics.simulation import Reach, rollout, step

__all__ = ["Model", "Reach", "State", "at_rest", "chosen", "put", "rollout", "stack", "step"]
