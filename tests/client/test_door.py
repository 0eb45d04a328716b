"""The public names of the package."""

import pkgutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import pacesetter


def test_all_is_sorted_and_complete():
    """`__all__` lists every public name once, in order, and each can be imported."""
    public = {
        name
        for name in dir(pacesetter)
        if not name.startswith("_") and name not in _SUBMODULES and name != "torch"
    }
    assert pacesetter.__all__ == sorted(set(pacesetter.__all__))
    assert set(pacesetter.__all__) == public | {"AsyncClient", "__version__"}
    assert pacesetter.AsyncClient.__module__ == "pacesetter._async_client"


_SUBMODULES = {module.name for module in pkgutil.iter_modules(pacesetter.__path__)}
_WITH_A_FRAMEWORK = {"torch", "distributed", "accelerate", "transformers", "lightning", "keras"}


def test_the_version_is_the_distributions():
    """`__version__` is read from the installed distribution, on access."""
    assert pacesetter.__version__ == version("pacesetter")


def test_an_unknown_name_is_an_attribute_error():
    """The lazy version does not hide misspelt names."""
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        pacesetter.Klient  # noqa: B018


def test_every_error_is_a_pacesetter_error():
    """One `except` catches whatever the package raises on purpose."""
    errors = [getattr(pacesetter, name) for name in pacesetter.__all__ if name.endswith("Error")]
    assert all(issubclass(error, pacesetter.PacesetterError) for error in errors)


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


_BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
"""


def test_httpx_is_all_that_is_needed():
    """The client works where NumPy, pydantic, FastAPI, SQLAlchemy and torch are not installed."""
    blocked = {"numpy", "pydantic", "fastapi", "sqlalchemy", "torch", "starlette", "orjson"}
    blocked |= {"pacesetter_service"}
    modules = sorted(_SUBMODULES - _WITH_A_FRAMEWORK)
    imports = "".join(f"import pacesetter.{name}\n" for name in modules)
    done = _run(_BLOCK.format(blocked=blocked) + imports + "pacesetter.Client().close()")
    assert done.stderr == ""
    assert done.returncode == 0


_WITH_HTTPX = ("_endpoint", "_transport", "_async_transport")


def test_the_transports_alone_import_httpx():
    """Only they and their shared module know httpx, so replacing it touches three files."""
    modules = sorted(_SUBMODULES - _WITH_A_FRAMEWORK - set(_WITH_HTTPX))
    code = "import sys, types\nt = types.ModuleType('t')\nt.Transport = t.AsyncTransport = None\n"
    code += f"sys.modules |= {{'pacesetter.' + name: t for name in {_WITH_HTTPX}}}\n"
    code += _BLOCK.format(blocked={"httpx", "torch"})
    code += "".join(f"import pacesetter.{name}\n" for name in modules)
    done = _run(code)
    assert done.stderr == ""


def test_torch_is_imported_by_its_own_modules_only():
    """Importing all modules but those made for a framework does not import torch."""
    imports = "".join(
        f"import pacesetter.{name}\n" for name in sorted(_SUBMODULES - _WITH_A_FRAMEWORK)
    )
    done = _run(imports + "import sys\nassert 'torch' not in sys.modules")
    assert done.stderr == ""
