"""The comparison's part of a report: its numbers, and the frames that it names."""

import numpy as np
import pytest

from amt import hand as hand_model
from amt.data.dexycb import DexYCB
from amt.evaluation.comparison import compare
from amt.viz.comparison_section import comparison_section
from tests.data import layout
from tests.evaluation.tables import table

HAND = hand_model.load()
OURS, THEIRS = table(3, 7, noise=0.01), table(3, 7, noise=0.02)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("comparison")
    layout.write(root, layout.SUBJECTS[2:], num_frames=7, size=(640, 480))
    return DexYCB(root, "s0", "test")


def test_differences_are_those_of_the_frames_in_both(source):
    here = OURS.take(slice(0, 20))
    section = comparison_section(compare(here, THEIRS), here, source, HAND)
    change = here.figures["mpjpe_mm"] - THEIRS.figures["mpjpe_mm"][:20]
    figures, frames = section.tables
    rows = {row[0]: row[1:] for row in figures.rows}
    there, ours, difference, better, worse = rows["joints, root-relative, mm"]
    assert float(ours) == pytest.approx(here.figures["mpjpe_mm"].mean(), abs=0.051)
    assert float(there) == pytest.approx(THEIRS.figures["mpjpe_mm"][:20].mean(), abs=0.051)
    assert float(difference.split(" ")[0]) == pytest.approx(change.mean(), abs=0.051)
    assert better == f"{(change < 0).mean():.0%}" and worse == f"{(change > 0).mean():.0%}"
    assert "20 frames are in both, 0 only here, 1 only there" in section.words[0]
    best = int(np.argmin(change))
    name = f"{here.subject[best]}/{here.sequence[best]}, camera {here.camera[best]}, frame {here.frame[best]}"
    errors = [f"{x.figures['mpjpe_mm'][best]:.1f}" for x in (THEIRS, here)]
    assert [row[1:] for row in frames.rows if row[0] == name] == [tuple(errors)]
    shown = {frames.heading: frames.pictures for frames in section.frames}
    assert name in shown["Became better, as seen here"][0].caption


def test_equal_evaluations_name_no_frame(source):
    section = comparison_section(compare(OURS, OURS), OURS, source, HAND)
    assert len(section.tables) == 1 and not section.frames
    assert all(row[3].startswith("0.0") for row in section.tables[0].rows)
