"""Pickles of plain data are read, of any protocol; of all others nothing runs."""

import copyreg
import os
import pickle
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.annotations import plain_pickle
from tests.datasets.annotations.folders import error_of

PLAIN = {"video-1": [["a", "b"], ["é", "\ud83d\ude00"]], "n": (1, -2.5, 10**30, True, None, ()), 3: {"x": [[]]}}


class Runs:
    """What an attacker would pickle: unpickling it writes the file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


class Stateful:
    def __init__(self) -> None:
        self.x = 1


def register_extension(code: int) -> None:
    """Make `os.system` an extension the process has met, which the unpickler then takes without asking."""
    copyreg.add_extension(os.system.__module__, "system", code)
    pickle.loads(b"\x80\x02\x82" + bytes([code]) + b".")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(PLAIN, protocol))
    assert plain_pickle.load(path) == PLAIN


CONTAINERS = {
    "set": {1, 2},
    "frozenset": frozenset([(3,)]),
    "defaultdict": defaultdict(list, {"video-1": [[1, 2.5]]}),
    "nested": defaultdict(OrderedDict, {"a": defaultdict(int, {"b": 1})}),
    "no factory": defaultdict(None, {"a": 1}),
    "OrderedDict": OrderedDict([("b", 1), ("a", [2])]),
    "Counter": Counter("aab"),
    "deque": deque([1, 2], 5),
    "unbounded": deque([{}]),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_of_the_standard_library(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(CONTAINERS, protocol))
    loaded = plain_pickle.load(path)
    assert loaded == CONTAINERS
    assert {name: type(value) for name, value in loaded.items()} == {
        name: type(value) for name, value in CONTAINERS.items()
    }
    assert loaded["deque"].maxlen == 5 and list(loaded["OrderedDict"]) == ["b", "a"]
    assert loaded["defaultdict"]["new"] == [] and loaded["nested"].default_factory is OrderedDict


def with_attributes() -> OrderedDict:
    attributed: OrderedDict = OrderedDict(a=1)
    attributed.keep = [1]  # type: ignore[attr-defined]
    return attributed


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"ccollections\ndefaultdict\n(cos\nsystem\ntR.", "os.system"),
        (b"ccollections\ndefaultdict\n(cbuiltins\neval\ntR.", "builtins.eval"),
        (b"ccollections\ndefaultdict\n(I1\ntR.", "collections.defaultdict with a factory"),
        (b"ccollections\ndefaultdict\n(cbuiltins\nlist\nI1\ntR.", "collections.defaultdict with a factory"),
        (pickle.dumps(list), "the class builtins.list"),
        (pickle.dumps([{"a": (1, Counter)}]), "the class collections.Counter"),
        # Attributes set on a class would stay in the process.
        (b"ccollections\nCounter\n(N(S'update'\ncbuiltins\nlist\ndtb.", "a change of collections.Counter"),
        (pickle.dumps(with_attributes()), "attributes of a OrderedDict"),
        (b"cbuiltins\nint\n(S'9'\ntR.", "a call of builtins.int"),
        (b"cbuiltins\nlist\n(cbuiltins\nlist\ntR.", "a call of builtins.list"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14defaultdict.__init__\x93.", "collections.defaultdict.__init__"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x04true\x85R.", "os.system"),
        (b"ccollections\nabc.sys.modules\n.", "collections.abc.sys.modules"),
    ],
)
def test_containers_open_no_way_to_anything_else(tmp_path: Path, content: bytes, wanted: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    before = vars(Counter).copy()
    assert error_of(lambda: plain_pickle.load(path)).startswith(f"{path}: the pickle asks for {wanted}")
    assert vars(Counter) == before


def test_a_factory_that_runs_a_command_does_not_run(tmp_path: Path) -> None:
    path, proof = tmp_path / "a.pkl", tmp_path / "proof"
    path.write_bytes(pickle.dumps(defaultdict(list, {"a": defaultdict(int, {"b": Runs(proof)})})))
    assert "asks for" in error_of(lambda: plain_pickle.load(path)) and not proof.exists()
    pickle.loads(path.read_bytes())
    assert proof.exists(), "the attack is none: the test shows nothing"


def test_real_times_of_queryd(real_data: Path) -> None:
    times = plain_pickle.load(real_data / "annotations/queryd/times_captions_combined_filtered-v2.pkl")
    assert isinstance(times, defaultdict) and len(times) == 2926
    listed = (real_data / "annotations/queryd/train_list.txt").read_text().split()
    spans = [span for name in listed for span in times.get(name, [])]
    assert spans and all(len(span) == 2 and span[0] <= span[1] for span in spans)


@pytest.mark.parametrize(
    "content",
    [
        b"(dp0\nS'video-1'\np1\n(lp2\n(lp3\nS'caf\\xc3\\xa9'\np4\naas.",  # protocol 0: S is Python 2's str
        b"\x80\x02}q\x00U\x07video-1q\x01]q\x02]q\x03U\x05caf\xc3\xa9q\x04aas.",  # protocol 2: so is U
    ],
)
def test_texts_of_python_2(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    assert plain_pickle.load(path) == {"video-1": [["café"]]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_function_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    path, proof = tmp_path / "a.pkl", tmp_path / "proof"
    path.write_bytes(pickle.dumps({"a": [Runs(proof)]}, protocol))
    text = error_of(lambda: plain_pickle.load(path))
    assert text.startswith(f"{path}: the pickle asks for {os.system.__module__}.system, which is not plain data")
    assert not proof.exists()
    pickle.loads(path.read_bytes())
    assert proof.exists(), "the attack is none: the test shows nothing"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (pickle.dumps(Stateful(), 1), "copy_reg._reconstructor"),
        (pickle.dumps(Stateful(), 4), f"{__name__}.Stateful"),
        (pickle.dumps(np.zeros(2), 2), f"{np.zeros(2).__reduce__()[0].__module__}._reconstruct"),
        (pickle.dumps(range(3), 2), "__builtin__.xrange"),
        (pickle.dumps(ChainMap({}), 2), "collections.ChainMap"),
        (pickle.dumps(b"ab", 2), "_codecs.encode"),
        (pickle.dumps(len, 0), "__builtin__.len"),
        (b"(cos\nsystem\nS'true'\no.", "os.system"),  # OBJ
        (b"(S'true'\nios\nsystem\n.", "os.system"),  # INST
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x10getattr.__self__\x93.", "builtins.getattr.__self__"),
        (b"\x80\x02X\x03\x00\x00\x00keyQ.", "an object kept outside the file, 'key'"),  # BINPERSID
        (b"Pkey\n.", "an object kept outside the file, 'key'"),
    ],
)
def test_what_it_asks_for_is_named(tmp_path: Path, content: bytes, wanted: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    text = error_of(lambda: plain_pickle.load(path))
    assert text.startswith(f"{path}: the pickle asks for {wanted}, which is not plain data and may run code")


@pytest.mark.parametrize("opcode", [b"\x82\xf2", b"\x83\xf2\x00", b"\x84\xf2\x00\x00\x00"])
def test_an_extension_that_the_process_has_met_does_not_run(tmp_path: Path, opcode: bytes) -> None:
    path, proof = tmp_path / "a.pkl", tmp_path / "proof"
    command = f"touch {proof}".encode()
    path.write_bytes(b"\x80\x02" + opcode + b"X" + len(command).to_bytes(4, "little") + command + b"\x85R.")
    register_extension(242)
    try:
        assert f"asks for {os.system.__module__}.system" in error_of(lambda: plain_pickle.load(path))
        assert not proof.exists()
        pickle.loads(path.read_bytes())
        assert proof.exists(), "the attack is none: the test shows nothing"
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 242)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle\n",
        b"PK\x03\x04",
        pickle.dumps(PLAIN)[:-9],
        b"\x80\x63.",
        b"\x80\x02\x82\xf1.",  # an extension nobody has registered
        b"\x80\x05N\x97.",  # a buffer that came separately
        b"\x80\x02h\x07.",  # a memo entry that is not there
        b"\x80\x02U\x02\xff\xfe.",  # Python 2 bytes that are no text
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",  # a text of 2^63 bytes
        b"\x80\x02}}b.",  # a state for a dict
        b"\x80\x02]]\x85R.",  # a call of a list
        b"\x80\x02])\x81.",  # an object of the class list()
    ],
)
def test_damaged_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    text = error_of(lambda: plain_pickle.load(path))
    assert text.startswith(f"{path}: not a pickle of plain data (") and "docs/DATASETS.md" in text
