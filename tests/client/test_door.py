"""The package's door."""

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
    assert set(pacesetter.__all__) == public | {"__version__"}


_SUBMODULES = {module.name for module in pkgutil.iter_modules(pacesetter.__path__)}
_WITH_A_FRAMEWORK = {"torch", "distributed", "accelerate", "transformers", "lightning", "keras"}


def test_the_version_is_the_distributions():
    """`__version__` is read from the installed distribution, when asked for."""
    assert pacesetter.__version__ == version("pacesetter")


def test_an_unknown_name_is_an_attribute_error():
    """The lazy version does not swallow typing mistakes."""
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


def test_only_one_module_imports_httpx():
    """`_transport` alone knows httpx, so that replacing it touches one file."""
    modules = sorted(_SUBMODULES - _WITH_A_FRAMEWORK - {"_transport"})
    code = "import sys, types\nsys.modules['pacesetter._transport'] = t = types.ModuleType('t')\n"
    code += "t.Transport = None\n"
    code += _BLOCK.format(blocked={"httpx", "torch"})
    code += "".join(f"import pacesetter.{name}\n" for name in modules)
    done = _run(code)
    assert done.stderr == ""


def test_torch_is_imported_by_its_own_modules_only():
    """Importing everything but the modules that are made for a framework leaves torch alone."""
    imports = "".join(
        f"import pacesetter.{name}\n" for name in sorted(_SUBMODULES - _WITH_A_FRAMEWORK)
    )
    done = _run(imports + "import sys\nassert 'torch' not in sys.modules")
    assert done.stderr == ""
