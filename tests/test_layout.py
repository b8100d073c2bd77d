"""The shape of the house: which way imports go, whose `datasets` is imported, and that every config file loads."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import datasets
from configs.load import load_any
from configs.names import run_name
from configs.schema import CONFIG_CLASSES
from models.systems import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("benchmarks", "configs", "datasets", "engine", "inference", "models", "scripts", "tasks", "tests")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ENTRY_SCRIPTS = sorted(ROOT.glob("*.py"))
TASK = re.compile(r"tasks\.\w+:\w+")
# Each folder may import itself, other people's libraries, and of ours only:
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "configs": (),
    "models": ("configs",),
    "datasets": ("configs",),
    # Where weights come from, and the format of their files, are the engine's.
    "tasks": ("configs", "models", "datasets", "engine.distributed", "engine.checkpoint_folder", "engine.hub"),
    "engine": ("configs",),
    "inference": ("configs", "models", "datasets", "tasks", "engine"),
    "scripts": ("configs", "models", "datasets", "tasks", "engine", "inference"),
    "benchmarks": ("configs", "models", "datasets", "tasks", "engine", "inference", "scripts"),
    "tests": PACKAGES,
}
# The systems' folders, each a room of its own behind a wall.
SYSTEM_FOLDERS = ("stoa", "testa", "tvts", "umt")
SHARED_BY_SYSTEMS = ("datasets", "engine", "inference", "scripts", "tasks")
TOWERS = re.compile(r"visual_encoder|text_encoder|text_decoder|vision_proj|itm_head")
# Literal tables and paths that hold a system's name, and compare it with nothing.
NAMES_A_SYSTEM = {
    "datasets/cache_home.py",  # the project's folder below the user's cache
    "scripts/parts/rows/table.py",  # the published rows of each system
}
LARGEST_SHARE = 0.3
# Files that only others name under `base:`.
BASES = sorted(path for prefix in ("base", "recipe_") for path in (ROOT / "configs").rglob(f"{prefix}*.yaml"))
# What benchmarks.reducers reads, which is no run of its own; tests/benchmarks/reducers loads them.
COMPARISONS = sorted(set((ROOT / "configs" / "comparison").glob("*.yaml")) - set(BASES))
# Folders that are not called after their task.
TASK_OF_FOLDER = {"zeroshot": "retrieval"}
CONFIGS = sorted(set((ROOT / "configs").rglob("*.yaml")) - {*BASES, *COMPARISONS})


def name_of(path: Path) -> str:
    """A file's path in the repository, by which pytest calls its case."""
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_of_ours(path: Path) -> set[str]:
    """Those of `imported` that lie in this repository."""
    ours = {*PACKAGES, *(script.stem for script in ENTRY_SCRIPTS)}
    return {name for name in imported(path) if name.partition(".")[0] in ours}


def is_within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in allowed)


def test_imports_go_one_way() -> None:
    assert SOURCES
    wrong = []
    for path in SOURCES:
        package = path.relative_to(ROOT).parts[0]
        allowed = (package, *MAY_IMPORT[package])
        if package == "tests":
            allowed += tuple(script.stem for script in ENTRY_SCRIPTS)
        wrong += [(name_of(path), name) for name in imported_of_ours(path) if not is_within(name, allowed)]
    assert wrong == []


@pytest.mark.parametrize("system", SYSTEM_FOLDERS)
def test_no_system_imports_another(system: str) -> None:
    others = tuple(f"models.{other}" for other in SYSTEM_FOLDERS if other != system)
    folder = ROOT / "models" / system
    assert folder.is_dir() and not [
        (name_of(path), name)
        for path in sorted(folder.rglob("*.py"))
        for name in imported(path)
        if is_within(name, others)
    ]


def test_only_benchmarks_import_a_system() -> None:
    """Above all `models/parts`, the mechanism of checkpoints, and what all systems share, name its pieces as text."""
    systems = tuple(f"models.{system}" for system in SYSTEM_FOLDERS)
    apart = [ROOT / "models" / system for system in SYSTEM_FOLDERS] + [ROOT / "benchmarks", ROOT / "tests"]
    shared = [path for path in SOURCES if not any(path.is_relative_to(folder) for folder in apart)]
    found = {name_of(path) for path in shared if any(is_within(name, systems) for name in imported(path))}
    assert found == set()


@pytest.mark.parametrize("package", SHARED_BY_SYSTEMS)
def test_what_systems_share_names_no_tower_and_no_system(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert TOWERS.findall(text) == [], name_of(path)
        constants = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        names = constants & {*SYSTEM_FOLDERS, *SYSTEMS}
        assert bool(names) == (name_of(path) in NAMES_A_SYSTEM), f"{name_of(path)}: {names}"


def test_rooms_import_each_other_in_no_circle() -> None:
    edges: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for path in SOURCES:
        package = path.relative_to(ROOT).parts[0]
        edges[package] |= {name.partition(".")[0] for name in imported_of_ours(path)} & edges.keys() - {package}
    assert edges["tasks"] >= {"models", "datasets"}
    tuple(TopologicalSorter(edges).static_order())  # CycleError, with the circle, if there is one


def test_no_room_has_too_much_of_the_source() -> None:
    lines = dict.fromkeys((package for package in PACKAGES if package != "tests"), 0)
    for path in SOURCES:
        package = path.relative_to(ROOT).parts[0]
        if package in lines:
            lines[package] += len(path.read_text(encoding="utf-8").splitlines())
    shares = {package: count / sum(lines.values()) for package, count in lines.items()}
    assert max(shares.values()) <= LARGEST_SHARE, shares


@pytest.mark.parametrize("path", ENTRY_SCRIPTS, ids=name_of)
def test_entry_scripts_import_no_more_than_they_need_at_first_and_name_one_task(path: Path) -> None:
    names = imported_of_ours(path)
    assert {
        name for name in names if not is_within(name, ("configs", "engine.command_line", "tasks.annotations"))
    } == set()
    (task,) = TASK.findall(path.read_text(encoding="utf-8"))
    assert pkgutil.resolve_name(task).__module__ == task.partition(":")[0]


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["--config", CONFIGS[0], "optim.lrr=1"], 2)])
def test_entry_scripts_answer_before_they_import_torch(words: list[object], status: int) -> None:
    for script in ENTRY_SCRIPTS:
        assert ended_before_torch(script, words) == status


def ended_before_torch(script: Path, words: Sequence[object], said: str = "") -> int:
    """The exit status of a command, which has said something and not imported torch."""
    module = ".".join(script.relative_to(ROOT).with_suffix("").parts)
    code = (
        f"import runpy, sys; sys.argv = {[str(word) for word in (script, *words)]}\n"
        f"try: runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop: sys.exit(str((stop.code, 'torch' in sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    status, has_torch = ast.literal_eval(done.stderr.splitlines()[-1])
    assert not has_torch and said in done.stderr, done.stderr
    return status


BAD_LINES = {"captions.jsonl": '{"video": "a.mp4", "caption": 3}\n', "qa.jsonl": '{"video": "a.mp4"}\n'}


@pytest.mark.parametrize(
    ("script", "config", "file"),
    [
        ("train_retrieval.py", "debug/clips.yaml", "captions.jsonl"),
        ("train_vqa.py", "debug/clips_qa.yaml", "qa.jsonl"),
        ("pretrain.py", "testa/pretrain/testa_f8.yaml", "captions.jsonl"),
        ("scripts/check_dataset/__main__.py", "debug/clips.yaml", "captions.jsonl"),
    ],
)
def test_a_bad_line_of_a_manifest_is_named_before_torch_is_imported(
    tmp_path: Path, script: str, config: str, file: str
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / file).write_text(BAD_LINES[file])
    words = ["--config", ROOT / "configs" / config, f"data.root={tmp_path}"]
    assert ended_before_torch(ROOT / script, words, said=f"{tmp_path / file}:1: ") == (2 if "train" in script else 1)


def test_the_import_check_sees_every_form_of_import(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        "import models.parts.bert as t, os\nfrom tasks import base\ndef f():\n    from engine.run import run\n"
    )
    assert imported_of_ours(path) == {"models.parts.bert", "tasks.base", "engine.run.run"}
    assert is_within("engine.run.run", ("engine.run",)) and not is_within("engine.runner", ("engine.run",))


def test_datasets_is_ours_and_its_package_file_imports_nothing() -> None:
    assert datasets.__file__ is not None and Path(datasets.__file__) == ROOT / "datasets" / "__init__.py"
    assert list(imported(ROOT / "datasets" / "__init__.py")) == []


def test_every_module_imports() -> None:
    wrong = {}
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "tests":
            continue
        try:
            importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        except ImportError as error:
            wrong[name_of(path)] = str(error)
    assert wrong == {}


def test_training_never_imports_the_trainer_that_wants_another_datasets() -> None:
    tasks = [task for script in ENTRY_SCRIPTS for task in TASK.findall(script.read_text(encoding="utf-8"))]
    code = "".join(f"import {module}\n" for module in ("engine.run", *(task.partition(":")[0] for task in tasks)))
    code += "import sys; print({'transformers.trainer', 'evaluate'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr


def test_files_stay_short() -> None:
    assert SOURCES and ENTRY_SCRIPTS
    files = [*SOURCES, *ENTRY_SCRIPTS]
    assert [name_of(path) for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 350] == []


def test_no_file_names_the_folder_of_real_data() -> None:
    """Tests find it by REAL_DATA and users name their own."""
    folder = "sha" + "red"
    named = re.compile(rf"\.\./{folder}\b|/{folder}/|[\"']{folder}[\"']")
    files = [*SOURCES, *ENTRY_SCRIPTS, *CONFIGS, *COMPARISONS, *BASES, *ROOT.glob("*.yml")]
    assert [name_of(path) for path in files if named.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_config_loads(path: Path) -> None:
    """Every file says its task; a system's folders are named after theirs."""
    # Where the data lie is the user's to say.
    config = load_any(CONFIG_CLASSES, path, ["data.root=/data"])
    folders = path.relative_to(ROOT / "configs").parts
    assert folders[0] == "debug" or TASK_OF_FOLDER.get(folders[1], folders[1]) == config.task


def test_no_two_configs_share_a_name() -> None:
    """A run's default folder is called after its file."""
    assert len({run_name(path) for path in CONFIGS}) == len(CONFIGS)
    assert run_name(Path("configs/testa/retrieval/didemo_f32.yaml")) == "didemo_f32"
    assert run_name(Path("configs/debug/../debug/clips.yaml")) == run_name(Path("/mine/clips.yaml")) == "clips"
    assert run_name(ROOT / "configs/tvts/retrieval/didemo_b16.yaml") == "tvts/retrieval/didemo_b16"


def test_every_base_is_named_by_a_config() -> None:
    named = set()
    for path in [*CONFIGS, *COMPARISONS]:
        base = YAML(typ="safe", pure=True).load(path).get("base", [])
        named |= {(path.parent / name).resolve() for name in ([base] if isinstance(base, str) else base)}
    # This one users put in the place of recipe_release.yaml.
    assert set(BASES) - named == {ROOT / "configs" / "testa" / "recipe_paper.yaml"}


def test_the_cluster_environment_differs_from_the_requirements_in_torch_alone() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    conda = YAML(typ="safe", pure=True).load(ROOT / "environment.yml")
    cluster = dict(line.split("==") for line in conda["dependencies"][-1]["pip"])
    assert cluster.keys() == pinned.keys()
    assert {name for name in pinned if pinned[name] != cluster[name]} == {"torch", "torchvision"}
