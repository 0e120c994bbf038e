"""What install.sh asks pip for, with a python that only writes it down.

No network, and nothing is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.workflows.runner import ACTION, ROOT
from tests.workflows.test_scripts import script

_PYTHON = """\
#!/bin/sh
# A python that notes what it is asked for; `-m venv` makes an environment whose python is the same script.
printf '%s\\n' "$(pwd) $*" >> {log}
case "$*" in
  *'-m venv'*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && cp "$0" "$4/bin/gate";;
esac
exit {code}
"""


def install(tmp_path: Path, *, code: int = 0, **environ: str) -> tuple[int, str, list[str], str]:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "pip.py").write_text("raise SystemExit('the pull request ran')", encoding="utf-8")
    log = tmp_path / "calls"
    log.touch()
    python = tmp_path / "python"
    python.write_text(_PYTHON.format(log=log, code=code), encoding="utf-8")
    python.chmod(0o755)
    ended, outputs, said = script("install.sh", tmp_path / "workspace", {"BASE_PYTHON": str(python), **environ})
    return ended, outputs.get("python", ""), log.read_text(encoding="utf-8").splitlines(), said


def test_install_makes_an_environment_from_the_actions_own_checkout(tmp_path: Path) -> None:
    code, python, calls, _ = install(tmp_path, EXTRAS="quantized,s3")

    assert code == 0
    environment = tmp_path / "temp" / "quantgate-venv"
    assert python == f"{environment}/bin/python"
    assert all(call.startswith(f"{tmp_path}/temp -I ") for call in calls), "isolated, and not in the working tree"
    assert calls[1].endswith(f"-I -m venv {environment}")
    assert calls[2].endswith(f"install --quiet -c {ROOT}/constraints.txt {ROOT}[quantized,s3]")
    (added,) = (tmp_path / "temp" / "path").read_text(encoding="utf-8").splitlines()
    assert [f.name for f in Path(added).iterdir()] == ["gate"], "the job's own python stays what it was"


def test_without_its_models_it_installs_the_short_list(tmp_path: Path) -> None:
    _, _, calls, _ = install(tmp_path, SCOPE="tools")

    assert calls[2].endswith(f"-r {ACTION}/tools.txt")
    assert calls[3].endswith(f"--no-deps {ROOT}")


def test_a_cpu_gets_the_build_for_cpus_before_anything_could_ask_for_another(tmp_path: Path) -> None:
    _, _, calls, _ = install(tmp_path, EXTRAS="quantized", DEVICE="cpu")

    (torch,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    assert calls[2].endswith(
        f"-c {ROOT}/constraints.txt --no-deps --extra-index-url https://download.pytorch.org/whl/cpu {torch}+cpu"
    )
    assert calls[3].endswith(f"{ROOT}[quantized]")


def test_its_index_can_be_another(tmp_path: Path) -> None:
    _, _, calls, _ = install(tmp_path, DEVICE="cpu", QUANTGATE_TORCH_INDEX="https://mirror.invalid/cpu")

    assert "--extra-index-url https://mirror.invalid/cpu torch==" in calls[2]


@pytest.mark.parametrize(("device", "scope"), [("", "full"), ("cuda", "full"), ("cpu", "tools")])
def test_other_devices_and_the_tools_ask_for_no_such_build(tmp_path: Path, device: str, scope: str) -> None:
    _, _, calls, _ = install(tmp_path, DEVICE=device, SCOPE=scope)

    assert not [call for call in calls if "torch" in call]


@pytest.mark.parametrize(
    ("first", "own"), [(f"#!{sys.executable}", True), ("#!/bin/sh", False), ("#!/nowhere/python3", False), ("", False)]
)
def test_a_gate_that_is_there_brings_its_own_python(tmp_path: Path, first: str, own: bool) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "workspace").mkdir()
    gate = tmp_path / "bin" / "gate"
    gate.write_text(f"{first}\npass\n", encoding="utf-8")
    gate.chmod(0o755)

    code, outputs, log = script("install.sh", tmp_path / "workspace", {"BASE_PYTHON": "mine"}, path=gate.parent)

    assert code == 0, log
    assert outputs == {"python": sys.executable if own else "mine"}


@pytest.mark.parametrize("extras", ["x] @ https://evil.invalid/x.whl", "--index-url=x", "a b", "$(touch pwned)", "A"])
def test_extras_are_names(tmp_path: Path, extras: str) -> None:
    code, _, calls, log = install(tmp_path, EXTRAS=extras)

    assert (code, calls) == (2, [])
    assert "input extras" in log
    assert extras not in log


def test_an_old_python_is_refused_by_name(tmp_path: Path) -> None:
    code, _, _, log = install(tmp_path, code=1)

    assert code == 2
    assert "3.11 or newer" in log
