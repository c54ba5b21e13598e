"""What `pip install .` puts on a machine."""

import configparser
import re
from importlib import metadata, resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"mmsurv", "mmsurv_extract", "mmsurv_train"}


def installed_files() -> list[Path]:
    # Not metadata.files("mmsurv"): building in the tree leaves an egg-info that would be found first.
    found = metadata.distributions(name="mmsurv")
    installed = [one for one in found if Path(str(one.locate_file(""))).resolve() != ROOT]
    files = [Path(str(file)) for one in installed[:1] for file in one.files or []]
    assert files, "mmsurv is not installed"
    if any("__editable__" in file.name for file in files):
        pytest.skip("an editable install has no files of its own")
    return files


def test_the_wheel_holds_the_three_packages_and_nothing_else() -> None:
    top = {file.parts[0] for file in installed_files() if ".." not in file.parts}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


def test_every_module_of_the_tree_is_installed() -> None:
    installed = {file.as_posix() for file in installed_files()}
    for folder in (ROOT / "mmsurv", ROOT / "extract" / "mmsurv_extract", ROOT / "train" / "mmsurv_train"):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(folder.parent).as_posix() in installed


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_are_typed(package: str) -> None:
    assert resources.files(package).joinpath("py.typed").is_file()


def test_readme_opens_with_a_sentence_a_picture_and_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh setup\n(.*?)\n```$", readme, re.M | re.S)
    assert blocks == ["python -m pip install . && mmsurv demo", "python -m pip install '.[test]' && python -m pytest"]
    paragraphs = [part for part in readme.split("\n\n") if part.strip()]
    assert paragraphs[0].startswith("# ")
    assert re.match(r"!\[.+\]\(docs/images/.+\)", paragraphs[2].strip())


def test_every_local_link_in_the_docs_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_test_that_the_docs_name_exists() -> None:
    sources = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "mmsurv" / "store" / "testing").rglob("*.py")]
    defined = set(re.findall(r"def (test_\w+)", "\n".join(path.read_text(encoding="utf-8") for path in sources)))
    files = {path.name.removesuffix(".py") for path in sources}
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    named = {
        name for page in pages for name in re.findall(r"`(?:[\w/]+/)?(test_\w+)(?:\.py)?`", page.read_text("utf-8"))
    }
    assert len(named) > 40
    assert named - defined - files == set()


def test_every_required_library_is_named_in_setup_cfg() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    required = {re.split(r"[ <>=~]", line)[0] for line in config["options"]["install_requires"].split("\n") if line}
    fixed = {"torch", "torchvision", "openslide-python", "h5py", "zarr", "numpy", "scikit-survival", "click"}
    assert fixed <= required
