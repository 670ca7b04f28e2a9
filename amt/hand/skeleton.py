"""Joint orders of the hand: the 16 joints of the kinematic tree (MANO) and the 21 that everything else uses.

16 joints  wrist, index 1-3, middle 1-3, little 1-3, ring 1-3, thumb 1-3
21 joints  wrist, then thumb, index, middle, ring, little x (mcp, pip, dip, tip): the DexYCB order
tips       thumb, index, middle, ring, little
"""

JOINT_NAMES_16 = ("wrist",) + tuple(
    f"{finger}_{i}" for finger in ("index", "middle", "little", "ring", "thumb") for i in (1, 2, 3)
)
FINGERS = ("thumb", "index", "middle", "ring", "little")
JOINT_NAMES_21 = ("wrist",) + tuple(f"{finger}_{part}" for finger in FINGERS for part in ("mcp", "pip", "dip", "tip"))

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)

# Rows: the first, second and third joint of the five chains, in the order of the 16 joints.
LEVELS = ((1, 4, 7, 10, 13), (2, 5, 8, 11, 14), (3, 6, 9, 12, 15))

# Entry k of the 21 joints is entry JOINTS_16_TO_21[k] of (16 joints, 5 tips).
JOINTS_16_TO_21 = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)

# The distal joint (of 16) that carries each tip.
TIP_PARENTS = (15, 3, 6, 12, 9)

# The vertices that are the tips in the official MANO files (Hasson et al., manopth; the order of FINGERS).
MANO_TIP_VERTICES_RIGHT = (745, 317, 444, 556, 673)
MANO_TIP_VERTICES_LEFT = (745, 317, 445, 556, 673)

FINGERTIPS_21 = (4, 8, 12, 16, 20)
BONES_21 = tuple((0 if k % 4 == 1 else k - 1, k) for k in range(1, 21))
