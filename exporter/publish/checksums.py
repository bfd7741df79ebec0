"""The checksum of two joined texts from their own checksums, without reading them again.

Python's zlib lacks the C library's `crc32_combine`.  A CRC-32 is a polynomial over the two-element field with its bits reversed:
the highest bit is 1, the next x.  Appending n bytes multiplies it by x to the power of 8n, modulo a fixed polynomial.
"""

from __future__ import annotations

from functools import lru_cache

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31


def joined(first: int, second: int, shift: int) -> int:
    """The checksum of two joined texts; `shift` is the factor for the second one's length."""
    return _times(shift, first) ^ second


def shift(length: int) -> int:
    """The factor of a checksum when `length` bytes follow: x to the power of 8 times the length."""
    product, bit = _ONE, 3
    while length:
        if length & 1:
            product = _times(_square(bit), product)
        length >>= 1
        bit += 1
    return product


@lru_cache(maxsize=64)
def _square(count: int) -> int:
    """x, squared `count` times."""
    return _ONE >> 1 if count == 0 else _times(_square(count - 1), _square(count - 1))


def _times(one: int, other: int) -> int:
    """The product of two polynomials, modulo the CRC's."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = (one << 1) & 0xFFFFFFFF
        other = other >> 1 ^ _POLYNOMIAL if other & 1 else other >> 1
    return product
