"""Parametric hand: `load()` gives the embedded right hand, `load('MANO_RIGHT.pkl', 'MANO_LEFT.pkl')` the official ones.

hand = amt.hand.load()
joints, vertices = hand(pose, betas, transl)  # [*b,48], [*b,10], [*b,3] -> [*b,21,3], [*b,778,3]
"""

from amt.hand.loading import EMBEDDED_HAND, load
from amt.hand.model import HandModel

__all__ = ["EMBEDDED_HAND", "HandModel", "load"]
