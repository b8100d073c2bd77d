"""What the tests of the page share: a small index, its models, and the page over them."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from inference.search.searcher import Searcher
from scripts.app.checkpoints import Checkpoints
from scripts.app.server import PageSettings, make_app
from tests.scripts.app.made import Made, make

UPLOAD_BYTES = 60_000
SETTINGS = PageSettings(host_names=["localhost", "127.0.0.1"], upload_bytes=UPLOAD_BYTES, top=5, rerank=3)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def searcher(made: Made) -> Searcher:
    return Searcher.open(made.index)


@pytest.fixture(scope="session")
def checkpoints(searcher: Searcher, made: Made) -> Checkpoints:
    return Checkpoints(searcher.model, {"answer": str(made.answering)})


@pytest.fixture
def client(searcher: Searcher, checkpoints: Checkpoints) -> Iterator[TestClient]:
    with TestClient(make_app(searcher, checkpoints, SETTINGS), base_url="http://localhost:7860") as client:
        yield client
