from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rastervision.pipeline.utils import get_env_var, grouped, repr_with_args, split_into_groups


@given(items=st.lists(st.integers(), max_size=40), num_groups=st.integers(1, 10))
def test_groups_hold_all_items_once_and_in_order(items: list[int], num_groups: int) -> None:
    groups = split_into_groups(items, num_groups)

    assert [x for group in groups for x in group] == items
    assert len(groups) <= num_groups
    assert len({len(group) for group in groups[:-1]}) <= 1


def test_groups_of_known_lists() -> None:
    assert grouped([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert split_into_groups(list(range(10)), 4) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert split_into_groups([], 3) == []


def test_repr_with_args() -> None:
    assert repr_with_args(1, a=1, b="x") == "int(a=1, b='x')"


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RV_TEST_NUMBER", "3")
    monkeypatch.setenv("RV_TEST_FLAG", "Yes")

    assert get_env_var("RV_TEST_NUMBER") == "3"
    assert get_env_var("RV_TEST_NUMBER", out_type=int) == 3
    assert get_env_var("RV_TEST_FLAG", out_type=bool) is True
    assert get_env_var("RV_TEST_NONE", default=7, out_type=int) == 7


def test_a_process_ends_when_the_program_does() -> None:
    code = (
        "import subprocess, sys\n"
        "from rastervision.pipeline.utils import terminate_at_exit\n"
        "args = [sys.executable, '-c', 'import sys; sys.stdin.read()']\n"
        "p = subprocess.Popen(args, stdin=subprocess.PIPE)\n"
        "terminate_at_exit(p)\n"
        "import atexit; atexit._run_exitfuncs()\n"
        "print(p.wait(timeout=10))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert out.stdout.strip() == "-15"
