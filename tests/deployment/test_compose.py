"""The Compose file and the files that it mounts agree with each other and with the service."""

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.manifests import DEPLOY, ROOT, mappings, unknown_settings
from pacesetter_service.settings import Settings
from pacesetter_service.store.postgres import READERS

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
REPLICAS = ["pacesetter-1", "pacesetter-2", "pacesetter-3"]
HAPROXY = (DEPLOY / "compose/haproxy.cfg").read_text()


def test_each_service_belongs_to_a_profile() -> None:
    """One service starts by default; the others belong to the profile `scale`."""
    assert {each["profiles"][0] for each in SERVICES.values()} == {"default", "scale"}
    assert [name for name, each in SERVICES.items() if each["profiles"] == ["default"]] == [
        "pacesetter"
    ]
    assert "COMPOSE_PROFILES=default\n" in (ROOT / ".env").read_text()


def test_what_is_mounted_is_in_the_repository() -> None:
    """For a path that does not exist, Docker would create an empty folder of root's."""
    sources = [
        volume.partition(":")[0]
        for each in SERVICES.values()
        for volume in each.get("volumes", [])
        if volume.startswith(".")
    ]
    assert sources
    assert not [source for source in sources if not (ROOT / source).exists()]


def test_secrets_are_files_and_stay_out_of_the_repository(tmp_path: Path) -> None:
    """The script draws each declared secret, once, and Git and the image ignore them."""
    script = DEPLOY / "compose/secrets.sh"
    folder = tmp_path / "secrets"
    subprocess.run([script, folder], check=True, capture_output=True)
    drawn = {each.name: each.read_text() for each in folder.iterdir()}
    assert set(drawn) == set(COMPOSE["secrets"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert drawn["postgres_password"] in drawn["database_url"]
    assert drawn["postgres_password"] in drawn["pgbouncer_users"]
    assert len(drawn["admin_token"]) == 48
    subprocess.run([script, folder], check=True, capture_output=True)
    assert {each.name: each.read_text() for each in folder.iterdir()} == drawn
    used = {secret for each in SERVICES.values() for secret in each.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    paths = [each["file"] for each in COMPOSE["secrets"].values()]
    assert all(path.startswith("deploy/compose/secrets/") for path in paths)
    assert "/deploy/compose/secrets/\n" in (ROOT / ".gitignore").read_text()
    assert not (ROOT / ".dockerignore").read_text().count("!deploy")


def test_no_image_moves_by_itself() -> None:
    """Each image that is pulled is pinned by a tag with a version."""
    fetched = [each["image"] for each in SERVICES.values() if "build" not in each]
    fetched = [image for image in fetched if image != "pacesetter"]
    assert len(fetched) == 4
    assert all(re.search(r":v?\d+(\.\d+)*", image) for image in fetched), fetched


def test_containers_are_confined() -> None:
    """All but PostgreSQL have a read-only root and no capabilities."""
    for name, each in SERVICES.items():
        assert "no-new-privileges:true" in each["security_opt"], name
        if name != "postgres":
            assert each["read_only"], name
            assert each["cap_drop"] == ["ALL"], name


def test_ports_are_published_for_this_machine_alone() -> None:
    """Every published port is bound to loopback until PACESETTER_BIND says otherwise."""
    ports = [port for each in SERVICES.values() for port in each.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith(("127.0.0.1:", "${PACESETTER_BIND:-127.0.0.1}:")) for port in ports)


@pytest.mark.parametrize("backend", ["replicas", "alive"])
def test_the_balancer_knows_every_replica(backend: str) -> None:
    """So does Prometheus; a replica that one of them lacks would not be noticed."""
    (section,) = re.findall(rf"^backend {backend}\n((?:[ \t].*\n|\n)+)", HAPROXY, re.MULTILINE)
    servers = re.findall(r"server (\S+) (\S+):7070", section)
    assert servers == [(name, name) for name in REPLICAS]
    assert [name for name in SERVICES if name.startswith("pacesetter-")] == REPLICAS
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = [each for each in prometheus["scrape_configs"] if each["job_name"] == "pacesetter"]
    assert job["static_configs"] == [{"targets": [f"{name}:7070" for name in REPLICAS]}]


def test_the_balancer_cuts_no_quiet_feed() -> None:
    """It allows a silence far longer than a feed's, and buffers nothing on the way."""
    heartbeat = Settings.model_fields["feed_heartbeat"].default
    for side in ("client", "server"):
        (minutes,) = re.findall(rf"timeout {side} (\d+)m", HAPROXY)
        assert int(minutes) * 60 > 10 * heartbeat
    assert "no option http-buffer-request" in HAPROXY


def test_the_balancer_repeats_what_changes_nothing_twice() -> None:
    """An order without an Idempotency-Key is not repeated."""
    rules = re.findall(r"acl repeatable (.*)", HAPROXY)
    assert rules == ["method GET HEAD", "path_end /sync", "req.hdr(idempotency-key) -m found"]
    assert "http-request disable-l7-retry unless repeatable" in HAPROXY


def test_pgbouncer_has_a_connection_for_each_that_replicas_open() -> None:
    """It runs in transaction mode; no replica waits for another one's connections."""
    config = configparser.ConfigParser()
    config.read(DEPLOY / "compose/pgbouncer/pgbouncer.ini")
    own = config["pgbouncer"]
    assert own["pool_mode"] == "transaction"
    assert own.getint("default_pool_size") >= len(REPLICAS) * (READERS + 1)


def test_settings_are_those_of_the_service() -> None:
    """The service reads every variable in the Compose file."""
    assert not unknown_settings(TEXT)


def test_grafana_finds_its_data_and_dashboards() -> None:
    """The provisioning names the existing Prometheus and the mounted folder."""
    provisioning = DEPLOY / "grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    boards = yaml.safe_load((provisioning / "dashboards/pacesetter.yaml").read_text())
    (mount,) = [each for each in SERVICES["grafana"]["volumes"] if each.startswith(".")]
    source, target, _ = mount.split(":")
    assert (ROOT / source).resolve() == DEPLOY / "grafana"
    assert boards["providers"][0]["options"]["path"] == f"{target}/dashboards"
    paths = [
        each["GF_PATHS_PROVISIONING"]
        for each in mappings(SERVICES["grafana"])
        if "GF_PATHS_PROVISIONING" in each
    ]
    assert paths == [f"{target}/provisioning"]
