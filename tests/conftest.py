"""What all tests share: no hub, no network, the devices, and how chance is drawn."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

# Read once, when the libraries are imported: a hub name given by mistake fails at once instead of hanging.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# A sum depends on how many threads share it: the same number on every machine, so that tests see the same floats.
os.environ["OMP_NUM_THREADS"] = "2"
# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Waiting threads that spin would take the core another process is working on.
os.environ["OMP_WAIT_POLICY"] = "passive"

import psutil
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch

settings.register_profile("qbench", deadline=None, derandomize=True, database=None)
settings.load_profile("qbench")


def pytest_runtest_setup(item: pytest.Item) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)  # a draw without a generator is the same one whichever tests ran before
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Run the test on the CPU, and on a CUDA device where there is one."""
    import torch

    return torch.device(request.param)


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that reaches for another machine, unless it is marked `network`."""
    if request.node.get_closest_marker("network") is None:
        connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

        def guarded_connect(self: socket.socket, address: Any) -> None:
            _refuse_remote(self.family, address)
            connect(self, address)

        def guarded_connect_ex(self: socket.socket, address: Any) -> int:
            _refuse_remote(self.family, address)
            return connect_ex(self, address)

        def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            _refuse_remote(socket.AF_INET, (host,))
            return getaddrinfo(host, *args, **kwargs)

        monkeypatch.setattr(socket.socket, "connect", guarded_connect)
        monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    yield


def _refuse_remote(family: int, address: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_this_machine(address[0]):
        # Not an OSError: a library that retries or goes on without the network would hide it.
        pytest.fail(f"a test reached for {address[0]}: mark it `network`, or give it its data", pytrace=True)


# Processes of a cluster on one machine speak to one another by the address that it has for others.
OWN_ADDRESSES = {one.address for family in psutil.net_if_addrs().values() for one in family}


def _is_this_machine(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost") or name in OWN_ADDRESSES:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
