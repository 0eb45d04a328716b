"""What is shipped is what is declared: the locks, the licence, the wheel, an import's effects."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-build.lock")

PIN = re.compile(r"^(?P<pin>\S+==[^\\\n]+?) \\\n(?P<rest>(?:[ ].*\n?)+)", re.MULTILINE)


def pins(lock: str) -> Iterator[tuple[Requirement, str]]:
    """Return the pins of a lock, each with the lines below it: its hashes and its dependents."""
    for found in PIN.finditer((ROOT / lock).read_text()):
        yield Requirement(found["pin"]), found["rest"]


def version_of(pin: Requirement) -> Version:
    """Return the one version that a pin names."""
    (specifier,) = pin.specifier
    return Version(specifier.version)


def wanted() -> Mapping[str, Requirement]:
    """Return what pyproject.toml requires for the image: the client, the service, PostgreSQL."""
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *extras["service"], *extras["postgres"]]
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_each_package_by_version_and_hash(lock: str) -> None:
    """No line of a lock is anything but a pin with SHA-256 digests, or a comment."""
    found = list(pins(lock))
    text = (ROOT / lock).read_text()
    assert found
    assert len(found) == len(re.findall(r"^[^\s#]", text, re.MULTILINE))
    for pin, rest in found:
        assert [each.operator for each in pin.specifier] == ["=="]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", rest), pin


def test_the_lock_and_the_project_agree() -> None:
    """Each requirement of pyproject.toml is pinned within its bounds, and nothing is left over."""
    asked = {
        canonicalize_name(pin.name)
        for pin, rest in pins("requirements.lock")
        if "pacesetter (pyproject.toml)" in rest
    }
    assert asked == set(wanted()), "run `make lock`"
    for pin, _ in pins("requirements.lock"):
        requirement = wanted().get(canonicalize_name(pin.name))
        if requirement is not None:
            assert requirement.specifier.contains(version_of(pin)), f"{pin}: run `make lock`"


def test_the_lock_of_the_build_pins_the_build_backend() -> None:
    """The image's wheel is built with the backend of pyproject.toml."""
    found = {canonicalize_name(pin.name): version_of(pin) for pin, _ in pins(LOCKS[1])}
    for requirement in map(Requirement, PROJECT["build-system"]["requires"]):
        assert requirement.specifier.contains(found[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_a_platform_gets_one_version_of_each_package(machine: str, python: str) -> None:
    """The markers of a lock for several platforms leave none with two pins of a name."""
    environment = {
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    names = [
        pin.name
        for pin, _ in pins("requirements.lock")
        if pin.marker is None or pin.marker.evaluate(environment)
    ]
    assert len(names) == len(set(names))
    assert set(wanted()) <= set(map(canonicalize_name, names))


def test_the_image_installs_by_hash_alone() -> None:
    """Each package that the Dockerfile installs from an index must match a lock's hash."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    commands = re.findall(r"pip\S*(?: --python \S+)? (?:install|wheel)[^&\n]*", text)
    assert len(commands) == 4
    for command in commands:
        assert "--require-hashes" in command or "--no-index --no-deps" in command, command


def test_the_license_is_the_one_that_is_declared() -> None:
    """The file and the metadata both say Apache-2.0."""
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text


@pytest.fixture(name="wheel", scope="module")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return our wheel, built as pip builds it, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_our_two_packages_and_nothing_that_runs_by_itself(wheel: Path) -> None:
    """It has no `.pth` file, which Python would run at each start, and no other package."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(each for each in names if each.endswith(".dist-info/METADATA"))
        said = archive.read(metadata).decode()
    tops = {name.split("/")[0] for name in names}
    assert {each for each in tops if not each.endswith(".dist-info")} == {
        "pacesetter",
        "pacesetter_service",
    }
    assert not [name for name in names if name.endswith((".pth", ".so", ".pyc", ".egg-link"))]
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    dashboard = ROOT / "service/pacesetter_service/dashboard"
    shown = {*(dashboard / "pages").iterdir(), *(dashboard / "static").rglob("*.*")}
    assert {path.relative_to(ROOT / "service").as_posix() for path in shown} <= set(names)
    assert "\nLicense-Expression: Apache-2.0\n" in said


WATCHED = """
import sys, threading
def hook(event, arguments):
    if event.split(".")[0] in ("socket", "subprocess") or event in ("os.system", "os.exec"):
        print(event, arguments)
sys.addaudithook(hook)
import pacesetter, pacesetter.cli.entry, pacesetter.cli.app
import pacesetter_service.__main__, pacesetter_service.store.postgres
assert threading.active_count() == 1, threading.enumerate()
"""


def test_an_import_opens_no_socket_and_starts_nothing() -> None:
    """Neither the client nor the service touches the network, a process or a thread by itself."""
    command = [sys.executable, "-c", WATCHED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
