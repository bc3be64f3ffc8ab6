"""How a running node keeps up with what its operator changes."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from node.cli import network
from p2p.identity import IdentityInvalid


class Stub:
    """An identity and a network that count; the identity's list cannot be read the second time."""

    def __init__(self) -> None:
        self.reloads = self.drops = 0

    def reload(self) -> None:
        self.reloads += 1
        if self.reloads == 2:
            raise IdentityInvalid(Path("tls/revoked.txt"), "line 3 is no serial number")

    def drop_revoked(self) -> None:
        self.drops += 1


@pytest.mark.asyncio
async def test_the_list_of_revoked_certificates_is_looked_at_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network, "REVOKED_SECONDS", 0.001)
    stub: Any = Stub()
    caplog.set_level(logging.ERROR)
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            task = asyncio.ensure_future(network.keep_revoked(cast(Any, stub), cast(Any, stub)))
            while stub.reloads < 3:
                await asyncio.sleep(0.001)
            task.cancel()
    assert stub.drops >= 1
    assert stub.drops < stub.reloads
    assert "line 3 is no serial number; the certificates revoked before stay revoked" in caplog.text
