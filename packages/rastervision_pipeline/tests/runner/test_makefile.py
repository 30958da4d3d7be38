from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rastervision.pipeline.runner import LocalRunner, make_makefile_entry_for_cmd, make_run_cmd_invocation
from rastervision.testing.contracts.runner import ContractPipelineConfig

CLI = "python -m rastervision.pipeline.cli run_command"


def test_a_makefile_has_a_rule_per_part_that_needs_those_of_the_command_before() -> None:
    pipeline = ContractPipelineConfig(root_uri="out").build("tmp")

    text = LocalRunner().build_makefile_string("out/c.json", pipeline, ["first", "second", "third"], num_splits=2)

    assert text == (
        ".PHONY: all 0 1 2 3\n\nall: 0 1 2 3\n\n"
        f"0:\n\t{CLI} out/c.json first\n\n"
        f"1: 0\n\t{CLI} out/c.json second --num-splits 2 --split-ind 0\n\n"
        f"2: 0\n\t{CLI} out/c.json second --num-splits 2 --split-ind 1\n\n"
        f"3: 1 2\n\t{CLI} out/c.json third\n\n"
    )


def test_odd_names_are_quoted_for_the_shell_and_for_make() -> None:
    assert make_run_cmd_invocation("a b/$c.json", "x", {"split_ind": 0}) == f"{CLI} 'a b/$c.json' x --split-ind 0"
    assert make_makefile_entry_for_cmd(1, [0], "$c.json", "x") == f"1: 0\n\t{CLI} '$$c.json' x\n\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_reads_it(tmp_path: Path) -> None:
    pipeline = ContractPipelineConfig(root_uri="out").build("tmp")
    path = tmp_path / "Makefile"
    path.write_text(LocalRunner().build_makefile_string("a $b.json", pipeline, ["first", "second"]))

    done = subprocess.run(["make", "-n", "-f", str(path)], capture_output=True, text=True, timeout=60)

    assert done.stdout.splitlines() == [f"{CLI} 'a $b.json' first", f"{CLI} 'a $b.json' second"], done.stderr
