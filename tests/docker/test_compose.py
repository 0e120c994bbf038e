"""The compose file as it is written: the specification's schema, and what no service of ours may have.

Starts nothing.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gate import __version__
from gate.cli import app
from tests.docker.reading import COMPOSE, ROOT, services


def every() -> list[Any]:
    return [pytest.param(name, service, id=name) for name, service in services().items()]


def test_is_what_the_compose_specification_says() -> None:
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed: pip install check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "service"), every())
def test_no_service_has_privileges(name: str, service: dict[str, Any]) -> None:
    user = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["user"])
    assert re.fullmatch(r"[1-9]\d*:\d+", user), user
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode"} & set(service)
    assert "docker.sock" not in json.dumps(service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize(("name", "service"), every())
def test_images_are_pinned_by_version(name: str, service: dict[str, Any]) -> None:
    image, _, tag = service["image"].partition(":")
    assert re.search(r"\d", tag), service["image"]
    if image == "quantgate":
        assert tag.removesuffix("-cpu") == __version__


def test_the_gate_has_a_gpu_and_places_that_last() -> None:
    gate = services()["gate"]
    (device,) = gate["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    kept = {volume.split(":")[1] for volume in gate["volumes"]}
    assert {"/var/cache/gate/huggingface", "/var/cache/gate/quantgate"} <= kept
    assert gate["build"] == {"context": "..", "dockerfile": "docker/Dockerfile", "args": {"DEVICE": "cuda"}}
    assert services()["gate-cpu"]["build"]["args"] == {"DEVICE": "cpu"}
    assert "profiles" not in gate


def test_the_database_is_checked_and_its_password_written_nowhere() -> None:
    database = services()["db"]
    assert database["profiles"] == ["service"]
    assert database["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert database["environment"]["POSTGRES_PASSWORD_FILE"].startswith("/run/secrets/")
    assert "POSTGRES_PASSWORD" not in database["environment"]
    document = yaml.safe_load(COMPOSE.read_text())
    assert document["secrets"] == {"database-password": {"environment": "QUANTGATE_DATABASE_PASSWORD"}}
    assert document["networks"]["database"] == {"internal": True}


def test_nothing_pretends_that_the_service_is_there() -> None:
    """Goes red on the day `gate serve` exists, so that these words go too."""
    missing = CliRunner().invoke(app, ["serve", "--help"]).exit_code != 0
    service = services()["service"]
    assert service["profiles"] == ["service"]
    assert service["command"][0] == "serve"
    assert ("`gate serve`, the dashboard, does not exist" in COMPOSE.read_text()) is missing
    assert ("`gate serve` does not exist yet" in (ROOT / "docs" / "github.md").read_text()) is missing
    assert service["restart"] == "no"
