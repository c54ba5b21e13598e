"""The command line: what it loads, and how it fails."""

import subprocess
import sys

import click
import pytest

from mmsurv import cli
from mmsurv.errors import CohortError, ConfigError

HEAVY = (
    "torch",
    "torchvision",
    "openslide",
    "pandas",
    "zarr",
    "h5py",
    "numpy",
    "sksurv",
    "matplotlib",
    "rich",
    "scipy",
)


def modules_after(code: str) -> set[str]:
    probe = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return {line.partition(".")[0] for line in done.stdout.splitlines()}


def test_help_loads_click_and_little_else() -> None:
    loaded = modules_after(
        "from mmsurv.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0"
    )
    assert "click" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    "command", ["demo", "extract", "store", "cohort", "train", "evaluate", "compare", "predict", "report"]
)
def test_every_command_helps_without_loading_a_stage(command: str) -> None:
    loaded = modules_after(
        f"from mmsurv.cli import main\ntry:\n    main(['{command}', '--help'])\nexcept SystemExit as stop:\n"
        "    assert stop.code == 0"
    )
    assert not loaded & {*HEAVY, "sklearn", "jinja2"}


def test_core_and_trainer_never_load_openslide_or_torchvision() -> None:
    loaded = modules_after(
        "import pkgutil, importlib, mmsurv, mmsurv_train\n"
        "for package in (mmsurv, mmsurv_train):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if module.name not in ('mmsurv.__main__', 'mmsurv.store.testing'):\n"
        "            importlib.import_module(module.name)"
    )
    assert not loaded & {"openslide", "torchvision", "mmsurv_extract"}


def test_every_command_has_a_summary_and_an_entry_point() -> None:
    listed = cli.cli.list_commands(click.Context(cli.cli))
    assert listed == list(cli.SUMMARIES)


@pytest.mark.parametrize(("error", "code"), [(CohortError("row 3"), 1), (ConfigError("key"), 2)])
def test_errors_become_exit_codes_without_a_traceback(error, code: int, monkeypatch, capsys) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli.cli, "get_command", lambda ctx, name: failing)
    with pytest.raises(SystemExit, match=f"^{code}$"):
        cli.main(["failing"])
    assert capsys.readouterr().err == f"{type(error).__name__}: {error}\n"


def test_a_disk_that_is_full_is_said_without_a_traceback(monkeypatch, capsys) -> None:
    @click.command()
    def failing() -> None:
        raise OSError(28, "No space left on device", "/mnt/runs")

    monkeypatch.setattr(cli.cli, "get_command", lambda ctx, name: failing)
    with pytest.raises(SystemExit, match=r"^1$"):
        cli.main(["failing"])
    assert "No space left on device: '/mnt/runs'" in capsys.readouterr().err


def test_an_unknown_command_or_option_is_a_usage_error(capsys) -> None:
    for arguments in (["no-such-command"], ["store", "--no-such-option"]):
        with pytest.raises(SystemExit, match=r"^2$"):
            cli.main(arguments)


def test_python_dash_m_mmsurv_is_mmsurv() -> None:
    done = subprocess.run([sys.executable, "-m", "mmsurv", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mmsurv, version ")


def test_importing_any_module_opens_no_socket_and_reads_no_argument() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_EVERYTHING, "--no-such-option"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 80


_IMPORT_EVERYTHING = """
import importlib, pkgutil, socket, sys

def refuse(*arguments, **options):
    raise AssertionError(f"an import reached for the network: {arguments}")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
count = 0
for name in ("mmsurv", "mmsurv_extract", "mmsurv_train"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            count += 1
assert sys.argv[1:] == ["--no-such-option"]
print(count)
"""
