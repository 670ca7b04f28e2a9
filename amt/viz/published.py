"""What others have reported on DexYCB, each with its protocol: figures that stand beside ours, not in their place."""

from typing import NamedTuple


class Published(NamedTuple):
    """A method's figures in millimetres as texts, empty where it reports none; `protocol` is how they were measured."""

    method: str
    absolute: str
    root_relative: str
    aligned: str
    data: str
    protocol: str


# The protocol is that of HandOccNet's own evaluation: github.com/namepllet/HandOccNet, data/DEX_YCB/DEX_YCB.py.
_LABEL_BOX = "crop from the labels' box, side of the hand given"
PUBLISHED = (
    Published(
        "HandOccNet (Park et al., CVPR 2022)",
        "",
        "14.04",
        "5.80",
        "DexYCB s0 test",
        _LABEL_BOX,
    ),
    Published(
        "METRO (Lin et al., CVPR 2021)",
        "",
        "15.24",
        "6.99",
        "DexYCB s0 test",
        "as reported beside HandOccNet",
    ),
    Published(
        "the original of this project",
        "",
        "about 150",
        "",
        "DexYCB",
        "as its authors say; neither split nor alignment is stated",
    ),
)
