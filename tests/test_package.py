"""What is handed on: the wheel and the source archive, an environment that gets nothing but the wheel, and the citation."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = (ROOT / "constraints/cpu.txt").read_text(encoding="utf-8").splitlines()
PAPERS = {
    "Fastened CROWN: Tightened Neural Network Robustness Certificates": 2020,
    "Towards Stable and Efficient Training of Verifiably Robust Neural Networks": 2020,
    "A Convex Relaxation Barrier to Tight Robustness Verification of Neural Networks": 2019,
    "Lipschitz-Certifiable Training with a Tight Outer Bound": 2020,
    "Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond": 2020,
}


def test_uv_installs_the_torch_that_is_pinned():
    assert PROJECT["tool"]["uv"]["constraint-dependencies"] == [pin for pin in PINS if pin.startswith("torch==")]


def test_every_package_of_a_developer_is_pinned():
    extras = PROJECT["project"]["optional-dependencies"]
    named = [*PROJECT["project"]["dependencies"], *(one for extra in extras.values() for one in extra)]
    wanted = {re.split(r"[><=\[]", name)[0] for name in named} - {"boundlab", "pillow"}  # matplotlib brings pillow
    assert wanted <= {pin.split("==")[0] for pin in PINS if not pin.startswith("#")}


def test_the_citation_names_the_version_and_the_papers():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['project']['version']}\n" in text and text.startswith("cff-version: 1.2.0\n")
    assert '\n  - name: "The boundlab developers"\n' in text
    references = text.split("\nreferences:\n")[1].split("  - type: conference-paper\n")[1:]
    found = {re.search(r'title: "(.*)"', one)[1]: int(re.search(r"year: (\d+)", one)[1]) for one in references}
    assert found == PAPERS
    for line in text.splitlines():  # what this subset of YAML may be: no tabs, and lists and maps two spaces deep
        assert re.fullmatch(r"(  )*(- )?([\w-]+: ?.*|\{.*\}|[\w ]+)", line), line


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("build", reason="the package 'build' is not installed: pip install 'boundlab[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_wheel_holds_all_that_the_library_reads(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("boundlab/")}
        metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("/METADATA"))).decode()
    files = {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "boundlab").rglob("*") if path.is_file()}
    assert held == {name for name in files if "__pycache__" not in name}
    kinds = {Path(name).suffix for name in held}
    assert {".py", ".toml", ".html", ".typed"} <= kinds and "boundlab/py.typed" in held
    assert "\nLicense-Expression: Apache-2.0\n" in metadata and "\nRequires-Python: >=3.11\n" in metadata


@pytest.mark.slow
def test_the_source_archive_holds_tests_and_docs_and_no_caches(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for name in ("tests/test_package.py", "docs/install.md", "constraints/cpu.txt", "benchmarks/__main__.py", "CITATION.cff",
                 "examples/ci/github-certify.yml",
                 "vnncomp/run_instance.sh", "LICENSE", "CHANGELOG.md", "Makefile", "src/boundlab/py.typed"):
        assert name in names
    unwanted = [name for name in names if "cache" in name or name.endswith((".pyc", ".part"))]
    assert not unwanted + [name for name in names if name.startswith((".venv", "dist/"))]


@pytest.mark.slow
def test_the_wheel_alone_runs_the_demo(built, tmp_path):
    """In an environment of its own, outside the repository, with nothing of this one on the path."""
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def ran(*command):
        done = subprocess.run([programs / command[0], *command[1:]], capture_output=True, text=True, timeout=1500, env=clean,
                              cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    ran("python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints/cpu.txt", f"{next(built.glob('*.whl'))}[demo]")
    assert ran("boundlab", "--version") == f"boundlab {PROJECT['project']['version']}\n"
    place = ran("python", "-c", "import boundlab; print(boundlab.__file__)")
    assert Path(place.strip()).is_relative_to(tmp_path)
    assert "certified CROWN" in ran("boundlab", "demo") and (tmp_path / "demo-results/digits.json").is_file()
    assert "digits-smoke" in ran("boundlab", "train", "--list")
