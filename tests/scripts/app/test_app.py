"""What the command says of a bad line, which names the page answers to, and whom it warns of."""

import socket
from pathlib import Path

import pytest
import uvicorn

from scripts.app.__main__ import main
from scripts.app.safety import address_of, bound_socket, host_names, is_loopback
from tests.scripts.app.made import Made


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[uvicorn.Server]:
    """The servers that would have run."""
    servers: list[uvicorn.Server] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: servers.append(server))
    return servers


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_page_tells_its_address(made: Made, runs: list[uvicorn.Server], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--index", made.index, "--port", 0) == 0
    assert len(runs) == 1 and runs[0].config.limit_concurrency
    told = capsys.readouterr()
    assert told.out.startswith("the page is at http://127.0.0.1:") and "warning" not in told.err


def test_a_page_for_others_is_warned_of(
    made: Made, runs: list[uvicorn.Server], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--index", made.index, "--port", 0, "--host", "0.0.0.0", "--max-upload-mib", 3) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert str(made.index) in warning and "3 MiB" in warning and "no password" in warning


def test_bad_lines_end_in_one_line(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, said in (
            (["--index", tmp_path], "holds no index; make one with"),
            (["--index", made.index, "--checkpoint", tmp_path], "holds no model.safetensors"),
            (["--index", made.index, "--checkpoint", made.answering], "other weights or settings"),
            (["--index", made.index, "--answer", made.searching], "cannot answer; give one fine-tuned by train_vqa.py"),
            (["--index", made.index, "--port", port], "Address already in use; name others"),
            (["--index", made.index, "--host", "no.such.host.invalid"], "give an address or a name of this machine"),
            (["--index", made.index, "--host", "192.0.2.1"], "--host 192.0.2.1 --port 0"),
        ):
            line = ["--port", 0, *words] if "--port" not in words else words
            assert run(*line) == 2
            errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
            assert len(errors) == 1 and said in errors[0], errors
    for words in (["--top", 0], ["--rerank", -1], ["--port", 70000], ["--max-upload-mib", 0]):
        with pytest.raises(SystemExit, match="2"):
            run("--index", made.index, *words)


@pytest.mark.parametrize(
    ("host", "more", "names", "loopback"),
    [
        ("127.0.0.1", [], {"localhost", "127.0.0.1", "[::1]"}, True),
        ("localhost", ["Box.Local"], {"localhost", "127.0.0.1", "[::1]", "box.local"}, True),
    ],
)
def test_a_local_page_answers_to_local_names_alone(host: str, more: list[str], names: set[str], loopback: bool) -> None:
    with bound_socket(host, 0) as bound:
        assert set(host_names(host, bound, more)) == names and is_loopback(bound) == loopback
        assert address_of(host, bound) == f"http://{host}:{bound.getsockname()[1]}"


def test_an_open_page_answers_to_the_names_of_its_machine() -> None:
    with bound_socket("0.0.0.0", 0) as bound:
        names = host_names("0.0.0.0", bound, [])
        assert socket.gethostname().lower() in names and not is_loopback(bound) and "*" not in names


def test_an_open_page_answers_to_the_addresses_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the machine's own name is resolved to 127.0.1.1; the address is one that it would send from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        address = outward.getsockname()[0]
    own = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    with bound_socket("0.0.0.0", 0) as bound, monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lambda *rest: own)
        names = host_names("0.0.0.0", bound, [])
    assert address in names and "127.0.1.1" in names and "127.0.0.1" in names
    with bound_socket("127.0.0.1", 0) as bound:
        assert address not in host_names("127.0.0.1", bound, [])


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_addresses_of_ipv6_are_in_brackets() -> None:
    try:
        bound = bound_socket("::1", 0)
    except ValueError:
        pytest.skip("this machine has no IPv6")
    with bound:
        assert address_of("::1", bound).startswith("http://[::1]:") and is_loopback(bound)
        assert set(host_names("::1", bound, [])) == {"localhost", "127.0.0.1", "[::1]"}
