"""The ledger's units: what an integer or a byte string stands for.

Energy is in Wh, power in W, money in wei, an energy price in wei per Wh, time in ms since the Unix epoch. The types
exist for the reader and the type checker only; at run time they are plain `int` and `bytes`.
"""

from typing import NewType

Wh = NewType("Wh", int)
Watt = NewType("Watt", int)
Wei = NewType("Wei", int)
Ms = NewType("Ms", int)
Height = NewType("Height", int)
Gas = NewType("Gas", int)
TokenId = NewType("TokenId", int)
Address = NewType("Address", bytes)  # 20 bytes
Hash = NewType("Hash", bytes)  # 32 bytes

ZERO_ADDRESS = Address(bytes(20))
ZERO_HASH = Hash(bytes(32))

UINT64_MAX = 2**64 - 1
UINT256_MAX = 2**256 - 1
PRICE_MAX = 2**128 - 1  # wei, and wei per Wh: energy x price stays far below 256 bits

MS_PER_SECOND = 1_000
MS_PER_HOUR = 3_600_000


def hex_of(data: bytes) -> str:
    """`data` as lower-case hexadecimal with its `0x`."""
    return "0x" + data.hex()
