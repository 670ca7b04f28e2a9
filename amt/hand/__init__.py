"""The parametric hand: `load()` gives the embedded right hand, `load('MANO_RIGHT.pkl')` the official one.

hand = amt.hand.load()
joints, vertices = hand(pose, betas, transl)  # [*b,48], [*b,10], [*b,3] -> [*b,21,3], [*b,778,3]
"""

from amt.hand.loading import load
from amt.hand.model import HandModel

__all__ = ["HandModel", "load"]
