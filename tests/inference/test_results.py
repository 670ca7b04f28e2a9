"""Files of a run: all together or none."""

import pytest

from amt.errors import UserError
from amt.inference.results import all_or_nothing


def test_files_appear_together_and_old_ones_of_the_run_go(tmp_path):
    for name in ("a", "b", "foreign"):
        (tmp_path / name).write_text("old")
    with all_or_nothing(tmp_path, ("a", "b", "c")) as folder:
        (folder / "a").write_text("new")
        (folder / "c").write_text("new")
        assert (tmp_path / "a").read_text() == "old" and not (tmp_path / "c").exists()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new",
        "c": "new",
        "foreign": "old",
    }


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_changes_nothing(tmp_path, failure):
    (tmp_path / "a").write_text("old")
    with pytest.raises(failure), all_or_nothing(tmp_path, ("a", "b")) as folder:
        (folder / "a").write_text("new")
        raise failure
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), all_or_nothing(tmp_path / "file", ("a",)):
        pass
