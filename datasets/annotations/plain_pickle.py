"""Pickles of plain data (texts, numbers, containers of the standard library), read so that nothing in them can run."""

import copyreg
import io
import pickle
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

BUILTINS = ("builtins", "__builtin__")
"""The name of the module in Python 3 and in Python 2; pickles of protocol 2 and older use the latter."""

CONTAINERS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, kind.__name__): kind for module in BUILTINS for kind in (dict, list, tuple, set, frozenset)},
    **{("collections", kind.__name__): kind for kind in (defaultdict, OrderedDict, Counter, deque)},
}
"""What a pickle may ask for by name, and call with plain data."""

NUMBERS_AND_TEXTS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, kind.__name__): kind for module in BUILTINS for kind in (int, float, bool, str)},
    **{("__builtin__", "long"): int, ("__builtin__", "unicode"): str},
}
"""What a pickle may name as the factory of a `defaultdict`, but not call."""


class _Refused(Exception):
    """The pickle asks for something that is not plain data; the message says what."""


class _Named:
    """Stands for a container that the pickle has asked for by name.

    The unpickler never gets the class itself, because a pickle can call whatever it gets and set attributes on it. Here
    calls are checked, and attributes are refused.
    """

    __slots__ = ("_kind", "_name")

    def __init__(self, kind: Callable[..., Any], name: str) -> None:
        self._kind, self._name = kind, name

    def __call__(self, *arguments: object) -> Any:
        if self._kind is defaultdict:
            factory, *rest = arguments or (None,)
            if rest or not (factory is None or isinstance(factory, _Named)):
                raise _Refused(f"{self._name} with a factory that is no plain container")
            return defaultdict(None if factory is None else factory._kind)
        if self._kind in NUMBERS_AND_TEXTS.values() or any(isinstance(argument, _Named) for argument in arguments):
            raise _Refused(f"a call of {self._name}")
        return self._kind(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise _Refused(f"a change of {self._name}")

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self._name} is no data")


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler without classes, functions or objects stored elsewhere: the rest of the format is data."""

    def __init__(self, content: bytes) -> None:
        # Python 2 stored texts as bytes.
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self.asked_for_names = False

    def find_class(self, module: str, name: str) -> _Named:
        kind = CONTAINERS.get((module, name)) or NUMBERS_AND_TEXTS.get((module, name))
        if kind is None:
            raise _Refused(f"{module}.{name}")
        self.asked_for_names = True
        return _Named(kind, f"{module}.{name}")

    def persistent_load(self, identifier: object) -> NoReturn:
        raise _Refused(f"an object kept outside the file, {identifier!r}")


def load(path: Path) -> Any:
    """Read one pickle of plain data, of any protocol and of Python 2 or 3.

    Plain data are texts, bytes, numbers, and dict, list, tuple, set, frozenset, defaultdict, OrderedDict, Counter and
    deque of these. ValueError, naming the file and the request, if the pickle asks for any other class, a function, or
    anything but data; none of it is imported or called. ValueError, too, if the file is damaged.
    """
    content = path.read_bytes()

    # A pickle may name a function by a number that the process has registered. Python caches such functions; clear the
    # cache, so that `find_class` checks them too.
    copyreg.clear_extension_cache()
    unpickler = _PlainUnpickler(content)
    try:
        value = unpickler.load()
        if unpickler.asked_for_names:
            _check_plain(value)
        return value
    except _Refused as refused:
        raise ValueError(
            f"{path}: the pickle asks for {refused}, which is not plain data and may run code; nothing of it was run, "
            "get the file from where docs/DATASETS.md says"
        ) from None
    except Exception as error:
        # Damaged content may raise anything, as the documentation of `pickle` says.
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path}: not a pickle of plain data ({text}); get the file again, docs/DATASETS.md says where"
        ) from None


def _check_plain(value: Any) -> None:
    """`_Refused` if the data contain a class, or a container on which attributes were set."""
    waiting, seen = [value], {id(value)}
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Named):
            raise _Refused(f"the class {item._name}")
        if getattr(item, "__dict__", None):
            raise _Refused(f"attributes of a {type(item).__name__}")

        inside: list[Any] = []
        if isinstance(item, dict):
            inside = [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset, deque)):
            inside = list(item)

        # Containers may contain themselves: look into each object once.
        for other in inside:
            if not isinstance(other, (str, int, float)) and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
