"""docker-compose.prod.yml against the Compose schema, and against what it mounts and promises."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag.settings import Settings
from tests.support.waiting import REPOSITORY

FILE = REPOSITORY / "docker-compose.prod.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MADE_BY_THE_OPERATOR = {"./vector_db", "./certificates"}


def schema_faults(path: Path) -> str:
    """What the Compose schema has against the file; empty for nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_compose_file_satisfies_the_compose_schema() -> None:
    assert schema_faults(FILE) == ""


def test_the_schema_would_notice_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yml"
    wrong.write_text(FILE.read_text(encoding="utf-8").replace("mem_limit:", "mem_limits:", 1), encoding="utf-8")
    assert "mem_limits" in schema_faults(wrong)


def test_the_server_alone_runs_by_default_and_profiles_bring_the_rest() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "rag-server": [],
        "redis": ["redis"],
        "postgres": ["postgres"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
        "nginx": ["nginx"],
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined_limited_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert {"mem_limit", "pids_limit", "healthcheck"} <= service.keys()
    assert "privileged" not in service
    tag = service["image"].partition(":")[2]
    assert tag
    assert tag != "latest" or name == "rag-server"


def test_what_is_mounted_from_this_folder_exists_and_is_read_only() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    # Read-only unless the operator says otherwise.
    mounted = [volume.replace("${INDEX_MOUNT:-ro}", "ro").split(":") for volume in volumes]
    from_here = [parts for parts in mounted if parts[0].startswith(".")]
    assert from_here
    assert {parts[0] for parts in from_here if parts[2:] != ["ro"]} == set()
    missing = {parts[0] for parts in from_here if not (REPOSITORY / parts[0]).is_file()}
    assert missing == MADE_BY_THE_OPERATOR
    named = {parts[0] for parts in mounted if not parts[0].startswith(".")}
    assert named == set(COMPOSE["volumes"])


def test_only_the_chat_is_reachable_from_other_machines() -> None:
    open_to_all = {name for name, service in SERVICES.items() for port in service.get("ports", [])
                   if not port.startswith("127.0.0.1:")}  # fmt: skip
    assert open_to_all == {"rag-server", "nginx"}


def test_the_server_believes_exactly_the_nginx_of_the_project() -> None:
    address = SERVICES["nginx"]["networks"]["default"]["ipv4_address"]
    assert SERVICES["rag-server"]["environment"]["FORWARDED_ALLOW_IPS"] == f"${{FORWARDED_ALLOW_IPS:-{address}}}"


def test_only_settings_that_exist_are_set_for_the_server() -> None:
    known = {spec.metadata["variable"] for spec in fields(Settings)}
    assert set(SERVICES["rag-server"]["environment"]) <= known


def test_prometheus_scrapes_the_server_as_the_example_beside_the_rules_does() -> None:
    ours = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
    example = yaml.safe_load((REPOSITORY / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    [job], [shown] = ours.pop("scrape_configs"), example.pop("scrape_configs")
    assert ours == example
    assert job["job_name"] == shown["job_name"]
    assert job["static_configs"] == [{"targets": ["rag-server:8000"]}]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    [source] = yaml.safe_load(COMPOSE["configs"]["grafana-datasource"]["content"])["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    [provider] = yaml.safe_load(COMPOSE["configs"]["grafana-dashboards"]["content"])["providers"]
    targets = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert any(target.startswith(f"{provider['options']['path']}/") for target in targets)
    given = {
        name for service in SERVICES.values() for config in service.get("configs", []) for name in [config["source"]]
    }
    assert given == set(COMPOSE["configs"])
