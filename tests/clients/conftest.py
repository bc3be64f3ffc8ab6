"""What the clients' tests share: a node of each file's own, with the recorder in front of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.execution_apis import ExecutionApis
from tests.clients.recorder import Recorder
from tests.live_node import LiveNode


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with LiveNode(Path(tmp_path_factory.mktemp("clients")) / "node") as running:
        yield running


@pytest.fixture(scope="module")
def recorder(node: LiveNode) -> Iterator[Recorder]:
    with Recorder(node.url) as running:
        yield running


@pytest.fixture
def check_traffic(shared_data: Path) -> Callable[[Recorder], None]:
    """Holds what was recorded to the published schemas."""

    def check(recorded: Recorder) -> None:
        assert recorded.exchanges
        assert ExecutionApis(shared_data / "execution-apis").faults(recorded) == []

    return check
