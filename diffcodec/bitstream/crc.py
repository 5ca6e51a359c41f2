"""Checks: CRC-8 and CRC-16, most significant bit first.

Names, parameters and check values are those of the catalogue of parametrised CRC algorithms
(reveng.sourceforge.io/crc-catalogue). Any CRC of w bits detects every burst of at most w bits,
so every damaged single byte.
"""

import binascii


def _table(polynomial: int) -> tuple[int, ...]:
    """The CRC-8 of each byte value under ``polynomial``, without initial or final value."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value & 0x80 else 0)
        table.append(value & 0xFF)
    return tuple(table)


_CRC8_TABLE = _table(0x107)


def crc8(data: bytes) -> int:
    """CRC-8/I-432-1: polynomial x⁸ + x² + x + 1 (0x07), initial value 0, final exclusive or 0x55.

    The final value keeps a run of zero bytes from passing its own check.

    >>> hex(crc8(b"123456789"))
    '0xa1'
    """
    register = 0
    for byte in data:
        register = _CRC8_TABLE[register ^ byte]
    return register ^ 0x55


def crc16(data: bytes) -> int:
    """CRC-16/IBM-3740: polynomial x¹⁶ + x¹² + x⁵ + 1 (0x1021), initial value 0xFFFF.

    >>> hex(crc16(b"123456789"))
    '0x29b1'
    """
    return binascii.crc_hqx(data, 0xFFFF)


def crc32(data: bytes) -> int:
    """CRC-32/ISO-HDLC, the one of zlib and PNG.

    >>> hex(crc32(b"123456789"))
    '0xcbf43926'
    """
    return binascii.crc32(data)
