"""Differentiable simulation of the robot and the objects it handles, by MuJoCo's equations."""

from amt.physics.model import Model, State, Touch, at_rest, chosen, put, stack
from amt.physics.simulation import Guide, Reach, rollout, step

__all__ = ["Guide", "Model", "Reach", "State", "Touch", "at_rest", "chosen", "put", "rollout", "stack", "step"]
