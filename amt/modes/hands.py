"""`config.hand` for every mode: the hand model, and what a data set's hand labels are to it."""

import sys
from pathlib import Path

from amt import hand
from amt.data.dexycb import DexYCB
from amt.data.hand_labels import HandIds, check_hand_labels, describe_masked
from amt.data.mixed import Mixed
from amt.errors import UserError
from amt.hand import HandModel


def load_hand(settings) -> HandModel:
    """The model of `config.hand`. Raises `UserError` for a file that is none, or of the other side."""
    if not settings.model:
        if settings.left_model:
            raise UserError("config.hand.left_model: needs the right one, too; give config.hand.model")
        return hand.load()
    right = Path(settings.model).expanduser()
    beside = right.with_name(right.name.replace("RIGHT", "LEFT"))
    left = Path(settings.left_model).expanduser() if settings.left_model else beside
    return hand.load(right, left if settings.left_model or (left != right and left.exists()) else None)


def check_labels(source: DexYCB | Mixed, model: HandModel) -> dict[str, float]:
    """Says on stderr which hand labels are left out, as they belong to another model, and returns their fraction.

    Raises `UserError` where the model is not the one of those that stay.
    """
    masked, total = 0, 0
    for part in source.sources:
        owners = part.hand_owners()
        count, line = describe_masked(owners, HandIds.of(model))
        masked, total = masked + count, total + len(owners)
        if line:
            print(f"{part.root}: {line}", file=sys.stderr)
        check_hand_labels(part, model)
    return {"hand_labels_left_out_fraction": masked / total}
