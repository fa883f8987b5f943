"""The shape of the tree: what a wheel installs, which way imports point, and what no module may do."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree, ignore_patterns, which

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("server", "cache", "graphs", "handlers", "tools")

VALUES = {"graphs.rows", "graphs.signature"}
MESSAGES = {"graphs.proto_tables"}
MAY_IMPORT = {
    "tools": {"tools", "server", "handlers", "cache", "graphs"},
    "server": {"server", "handlers", "cache", "graphs"},
    "handlers": {"handlers", *VALUES, *MESSAGES},
    "cache": {"cache", *VALUES},
    "graphs": {"graphs"},
}
# Who may import a package; no other file may. An entry is a file or, with a slash at its end, a folder.
ONLY_IN = {
    # The second is a program of its own, in which a damaged file may do its worst.
    "lmdb": {"cache/lmdb_store.py", "cache/walk.py"},
    "tensorflow": {"graphs/", "tools/efficientnet.py", "tools/digits.py", "tools/export.py"},
    "keras": {"tools/digits.py"},
    "openvino": {"graphs/openvino_engine.py", "graphs/openvino_loading.py"},
    "twisted": {"server/", "graphs/thread.py", "tools/"},
    "klein": {"server/"},
    "treq": {"server/", "tools/"},
    "google": {"graphs/proto_tables.py", "graphs/saved_model.py", "graphs/onnx_model.py"},
    "flatbuffers": {"handlers/graphpipe_tensors.py", "handlers/graphpipe_metadata.py"},
    "grpc": {"server/grpc_lane.py"},
    # The demo's weights come as a PyTorch state dict, which is a pickle; its reader allows a few names only.
    "pickle": {"tools/torch_weights.py"},
    **{package: set() for package in ("marshal", "shelve", "dill", "cloudpickle", "joblib", "torch")},
    **{package: set() for package in ("tests", "benchmarks")},
}
# Plain values and functions without input or output: a test, a tool or another server can drive them.
PURE = {"handlers/", "cache/keys.py", "cache/record.py", "graphs/rows.py", "graphs/signature.py"}
IMPURE = {"twisted", "klein", "treq", "lmdb", "tensorflow", "socket", "asyncio", "subprocess"}
MAINS = {"server/__main__.py", "tools/"}
LONGEST = 300
# Packages of extras; the modules that import them are themselves imported only where somebody asks for them.
LATE = {"grpc"}
# How a module says where it runs; what is pure runs anywhere.
THREADS = r"\b(threads?|reactor|pool|process|program|pure)\b"
NOT_SOURCE = (".git", ".venv", ".tox", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build")
# These two names are the design's; no other file may have that of a standard or third-party module.
SHADOWS = {"site", "multipart"}
VAGUE = {"utils", "util", "helpers", "manager", "base", "common", "misc"}


@dataclass(frozen=True)
class Import:
    """One import: its full dotted name, its line, and whether importing the module that holds it runs it."""

    name: str
    line: int
    eager: bool

    def of(self, package: str) -> bool:
        return self.name == package or self.name.startswith(package + ".")


def _modules() -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


MODULES = _modules()
each_module = pytest.mark.parametrize("module", MODULES)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), module)


def _walk(node: ast.AST, *, eager: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it runs when its module is imported."""
    for child in ast.iter_child_nodes(node):
        yield child, eager
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield part, False
                yield from _walk(part, eager=False)
            for part in child.orelse:
                yield part, eager
                yield from _walk(part, eager=eager)
        else:
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, eager=eager and not inner)


@cache
def _imports(module: str) -> tuple[Import, ...]:
    found = []
    for node, eager in _walk(_tree(module)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, eager) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            found += [Import(f"{start}.{alias.name}", node.lineno, eager) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            named = node.args[0] if node.args else None
            name = named.value if isinstance(named, ast.Constant) else "?"
            found.append(Import(str(name), node.lineno, eager))
    return tuple(found)


def _among(module: str, places: set[str]) -> bool:
    return any(module.startswith(place) if place.endswith("/") else module == place for place in places)


def _editable() -> bool:
    spec = find_spec("rowserve.server.site")
    return spec is not None and "site-packages" not in str(spec.origin)


def _can_compile() -> bool:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return which(compiler) is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def _dotted(module: str) -> str:
    return "rowserve." + module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports_eagerly(module: str, names: list[str]) -> bool:
    return any(imported.eager and imported.of(name) for imported in _imports(module) for name in names)


def _at(module: str, imported: Import) -> str:
    return f"{module}:{imported.line} imports {imported.name}"


# What is installed


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this tree, built from a copy of it to keep it clean."""
    tree = tmp_path_factory.mktemp("copy") / "tree"
    copytree(ROOT, tree, symlinks=True, ignore=ignore_patterns(*NOT_SOURCE))
    for earlier in ("lib", "lib.of-a-platform"):
        stale = tree / "build" / earlier / "rowserve" / "server" / "stale.py"
        stale.parent.mkdir(parents=True)
        stale.write_text("# Left by an earlier build, before its module was renamed.")
    out = tmp_path_factory.mktemp("dist")
    _build(tree, f"b.build_wheel({str(out)!r}); b.build_sdist({str(out)!r})", ROWSERVE_PURE="1")
    assert not (tree / "build" / "lib.of-a-platform").exists()
    return out


def _build(tree: Path, calls: str, **environment: str) -> str:
    """Makes these calls of the build backend; what it says on stderr."""
    code = f"from setuptools import build_meta as b; {calls}"
    command = [sys.executable, "-c", code]
    made = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert made.returncode == 0, made.stderr
    return made.stderr


def test_a_wheel_installs_rowserve_and_nothing_else(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names}
    assert all(top == "rowserve" or re.fullmatch(r"rowserve-[\d.]+\.dist-info", top) for top in tops), tops
    assert {name for name in names if name.endswith(".py")} == {f"rowserve/{module}" for module in MODULES}
    for folder in FOLDERS:
        assert f"rowserve/{folder}/py.typed" in names


def test_a_wheel_without_compiled_modules_can_be_asked_for(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.slow
def test_a_compiler_that_fails_leaves_a_wheel_of_python(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    copytree(ROOT, tree, symlinks=True, ignore=ignore_patterns(*NOT_SOURCE))
    said = _build(tree, f"b.build_wheel({str(tmp_path)!r})", CC="false")
    count = len(_compiled())
    assert f"{count} of {count} modules did not compile and stay Python" in said
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name for name in names if name.endswith(".py")} == {f"rowserve/{module}" for module in MODULES}
    assert not [name for name in names if name.endswith(".so")]


def test_an_sdist_holds_what_a_build_and_a_test_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"setup.py", "pyproject.toml", "LICENSE", "Makefile", "tox.ini", "tests/test_layout.py"}
    assert wanted | set(MODULES) | {f"{folder}/py.typed" for folder in FOLDERS} <= names
    assert not [name for name in names if name.startswith(".types")]


def _compiled() -> list[str]:
    """The modules that setup.py names to be compiled, as paths."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED":
            named: dict[str, str] = ast.literal_eval(node.value)
            return [f"{folder}/{name}.py" for folder, names in named.items() for name in names.split()]
    raise AssertionError("setup.py has no COMPILED")


def test_what_is_to_be_compiled_is_there() -> None:
    assert not set(_compiled()) - set(MODULES)


@pytest.mark.skipif(_editable(), reason="an editable install is not compiled")
@pytest.mark.skipif(not _can_compile(), reason="there is no C compiler, or no headers of this Python")
def test_a_wheel_is_compiled_where_there_is_a_compiler() -> None:
    found = {name: find_spec(_dotted(name)) for name in _compiled()}
    assert not [name for name, spec in found.items() if spec is None or str(spec.origin).endswith(".py")]


def test_the_type_checkers_links_name_the_folders() -> None:
    links = sorted((ROOT / ".types" / "rowserve").iterdir())
    assert {link.name: str(link.readlink()) for link in links} == {f: f"../../{f}" for f in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_typed_and_its_init_is_only_a_docstring(folder: str) -> None:
    assert (ROOT / folder / "py.typed").read_bytes() == b""
    body = _tree(f"{folder}/__init__.py").body
    assert len(body) == 1
    assert ast.get_docstring(_tree(f"{folder}/__init__.py"))


def test_there_is_no_package_at_the_root_or_under_tests() -> None:
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "rowserve").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


# Which way imports point


@each_module
def test_imports_point_one_way(module: str) -> None:
    allowed = {f"rowserve.{name}" for name in MAY_IMPORT[module.split("/")[0]]}
    for imported in _imports(module):
        assert not imported.name.startswith("."), _at(module, imported)
        assert not any(imported.of(folder) for folder in FOLDERS), _at(module, imported)
        if imported.of("rowserve"):
            assert any(imported.of(name) for name in allowed), _at(module, imported)


@each_module
def test_a_package_is_imported_only_where_it_is_someones_job(module: str) -> None:
    for imported in _imports(module):
        for package, places in ONLY_IN.items():
            assert not imported.of(package) or _among(module, places), _at(module, imported)
        if _among(module, PURE):
            assert imported.name.split(".")[0] not in IMPURE, _at(module, imported)


@each_module
def test_what_a_module_always_imports_is_required(module: str) -> None:
    for imported in _imports(module):
        package = imported.name.split(".")[0]
        if imported.eager and package not in {"rowserve", *LATE, *sys.stdlib_module_names}:
            assert _distributions(package) & _required(), f"{_at(module, imported)}, which setup.py does not require"


@cache
def _requirements() -> tuple[Requirement, ...]:
    """setup.py's install_requires."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            return tuple(Requirement(each) for each in ast.literal_eval(node.value))
    raise AssertionError("setup.py has no install_requires")


@cache
def _required() -> frozenset[str]:
    return frozenset(canonicalize_name(each.name) for each in _requirements())


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed() -> None:
    lowest = [next(part.version for part in each.specifier if part.operator == ">=") for each in _requirements()]
    allowed = [f"{each.name}=={version}" for each, version in zip(_requirements(), lowest, strict=True)]
    lines = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == allowed


@cache
def _distributions(package: str) -> set[str]:
    """What brings a package, by the names of distributions."""
    return {canonicalize_name(name) for name in packages_distributions().get(package, ())}


@each_module
def test_only_the_mains_import_the_global_reactor(module: str) -> None:
    for imported in _imports(module):
        if imported.of("twisted.internet.reactor"):
            assert _among(module, MAINS), _at(module, imported)
            assert not imported.eager, _at(module, imported)


def test_tensorflow_is_never_imported_by_importing_something_else() -> None:
    heavy: set[str] = set()
    names = ["tensorflow", "keras"]
    while more := {m for m in MODULES if _imports_eagerly(m, names)} - heavy:
        heavy |= more
        names = [_dotted(module) for module in heavy]
    assert {m for m in heavy if not _among(m, ONLY_IN["tensorflow"])} == set()


@pytest.mark.skipif("tools/cli.py" not in MODULES, reason="there is no command line yet")
def test_the_command_line_answers_without_tensorflow_or_a_reactor() -> None:
    code = "import sys, rowserve.tools.cli; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"tensorflow", "keras", "twisted.internet.reactor"} & set(ran.stdout.split()) == set()


# What no module may do


@each_module
def test_nothing_runs_text_as_code(module: str) -> None:
    for node, _ in _walk(_tree(module)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            at = f"{module}:{node.lineno} calls {called}"
            assert called not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}, at
            told = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
            assert told.get("shell", "False") == "False", at
            assert told.get("allow_pickle", "False") == "False", at


@each_module
def test_a_module_says_its_thread_and_keeps_short(module: str) -> None:
    text = ast.get_docstring(_tree(module)) or ""
    assert text, f"{module} has no docstring"
    if not module.startswith("tools/"):
        told = "\n".join(text.split("\n\n")[:2])
        assert re.search(THREADS, told, re.IGNORECASE), f"{module}: its docstring names no thread"
    lines = len((ROOT / module).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{module} has {lines} lines: split it"


@each_module
def test_a_modules_name_is_a_noun_of_its_own(module: str) -> None:
    stem = Path(module).stem
    assert stem not in VAGUE
    assert stem in SHADOWS or stem not in {*sys.stdlib_module_names, *ONLY_IN, "numpy", "click", "multipart"}
