"""The memory of small devices: sizes as people write them, and boards. Needs no torch."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from cifar_cnn.errors import SettingsError, did_you_mean

KIB = 1024
"""Bytes of a kB, as in the data sheets of chips."""
UNITS = {"": 1, "b": 1, "kb": KIB, "kib": KIB, "mb": KIB**2, "mib": KIB**2}

DEVICES = {
    "nano-33-ble": {"max_flash": 1024 * KIB, "max_ram": 256 * KIB},
    "pico": {"max_flash": 2048 * KIB, "max_ram": 264 * KIB},
    "nucleo-l4r5zi": {"max_flash": 2048 * KIB, "max_ram": 640 * KIB},
}
"""Flash and RAM of boards, in bytes; README.md names the data sheets."""


def _parse_size(value: Any) -> Any:
    """Return text such as 128kB as a number of bytes; pydantic checks all else."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-z]*)\s*", value.lower())
    if match is None or match[2] not in UNITS:
        raise ValueError("it has to be a size such as 128kB, 1.5MB or 131072 (1 kB = 1024 bytes)")
    return round(float(match[1]) * UNITS[match[2]])


Bytes = Annotated[int, BeforeValidator(_parse_size), Field(ge=1, strict=True)]
"""A number of bytes, or text with a unit: B, kB or KiB (1024 bytes), MB or MiB (1024²)."""


def expand_preset(limits: dict[str, Any]) -> dict[str, Any]:
    """Return limits with those of the board `device_preset` in its place; given ones stay."""
    name = limits.get("device_preset")
    if name not in (None, *DEVICES):
        hint = did_you_mean(str(name), DEVICES)
        raise SettingsError(f"unknown device preset {name!r}{hint}: one of {', '.join(DEVICES)}")
    limits = {key: limit for key, limit in limits.items() if key != "device_preset"}
    return {**DEVICES.get(str(name), {}), **limits}
