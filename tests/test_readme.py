"""The README's Python examples run as they stand, and its table of modes lists what works."""

import re
from pathlib import Path

import pytest

from amt.modes import BUILT, LATER

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.strip().splitlines()[-1][:40])
def test_example(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})


def test_modes():
    listed = re.findall(r"^\| `(\w+)` \| ", README, re.MULTILINE)
    assert sorted(listed) == sorted(BUILT) and not set(listed) & set(LATER)
