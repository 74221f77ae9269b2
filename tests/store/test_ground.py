"""Which machines count as alike."""

from __future__ import annotations

import pytest

from qbench.store.ground import BYTES_DEPEND_ON, device_class, unlike


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"device": "cpu", "platform": "Linux x86_64", "device_name": "one"}, "cpu x86_64"),
        ({"device": "cpu", "platform": "Darwin arm64"}, "cpu arm64"),
        ({"device": "cuda", "platform": "Linux x86_64", "device_name": "NVIDIA H100"}, "cuda NVIDIA H100"),
        ({"device": "cuda:1", "device_name": "NVIDIA H100"}, "cuda NVIDIA H100"),
        ({}, "unknown"),
    ],
)
def test_the_class_is_the_device_and_not_the_machine(environment: dict[str, str], expected: str) -> None:
    assert device_class(environment) == expected


def test_equal_ground_is_equal_in_all_that_bytes_depend_on() -> None:
    here = {name: "same" for name in BYTES_DEPEND_ON} | {"qbench": "1"}
    assert unlike(here, {**here, "qbench": "2", "datasets": "3"}) == {}
    for name in BYTES_DEPEND_ON:
        assert unlike(here, {**here, name: "other"}) == {name: ("same", "other")}
        assert unlike(here, {key: value for key, value in here.items() if key != name}) == {name: ("same", "-")}
