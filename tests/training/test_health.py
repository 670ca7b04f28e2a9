"""Updates that were not finite are named and counted, and end a run where there are too many in a row."""

import numpy as np
import pytest

from amt.errors import UserError
from amt.training.health import Health
from amt.training.step import SKIPPED


def scalars(in_a_row, **values):
    return {"loss": 1.0, "hand_refined": 0.5, **values, SKIPPED: float(in_a_row)}


def test_updates_are_counted_and_culprits_are_named(capsys):
    health = Health(most_in_a_row=3)
    assert health.look(1, scalars(0))
    assert not health.look(2, scalars(1, loss=np.nan, hand_refined=np.inf))
    assert not health.look(3, scalars(2, grad_norm_object_decoder=np.nan))
    assert health.look(4, scalars(0)) and health.skipped == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 2: not finite, no update (1 in a row): hand_refined, loss",
        "step 3: not finite, no update (2 in a row): grad_norm_object_decoder",
    ]


def test_too_many_in_a_row_end_the_run():
    health = Health(most_in_a_row=2)
    assert not health.look(7, scalars(1, loss=np.nan))
    with pytest.raises(UserError, match=r"2 updates in a row up to step 8 were not finite \(loss\)"):
        health.look(8, scalars(2, loss=np.nan))
