"""Check whether this Python can run the project, before anything else is imported.

Every entry point imports `configs` or `scripts` first, and both run the check. This file may use nothing newer than
Python 3.6 and no package, so that an old or bare Python gets a clear message instead of a traceback.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

OLDEST = (3, 11)
NEEDED = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "safetensors",
    "einops",
    "numpy",
    "av",
    "PIL",
    "ruamel.yaml",
    "tqdm",
    "tensorboard",
)
"""Modules that every command needs; the rest of requirements.txt serves a single command or the tests."""


def check_environment(version: tuple = sys.version_info[:2]) -> None:
    """End the process with status 2 and one line on stderr if this Python is too old or lacks packages."""
    if version < OLDEST:
        found = "is Python " + ".".join(map(str, version)) + ", and 3.11, 3.12 or 3.13 is needed"
    else:
        missing = [name for name in NEEDED if not is_installed(name)]
        if not missing:
            return
        found = f"lacks {', '.join(missing)}"
    print(f"error: {sys.executable} {found}: {remedy()}", file=sys.stderr)
    sys.exit(2)


def is_installed(name: str) -> bool:
    """Whether `import NAME` would find a module; imports only its parent packages."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def remedy() -> str:
    """What to do: set up the environment, or use the one that exists."""
    root = Path(__file__).resolve().parent.parent
    activate = f"run `. {root / '.venv' / 'bin' / 'activate'}`, or use {root / '.venv' / 'bin' / 'python'}"
    if (root / ".venv" / "requirements.installed").exists():
        return f"{activate}; `make setup` brings .venv up to date"
    return f"run `make setup` in {root}, then {activate}; on a cluster see environment.yml"
