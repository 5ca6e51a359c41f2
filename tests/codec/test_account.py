"""A file's account sums to its length and agrees with what the encoder said."""

import numpy as np
import pytest

from diffcodec.bitstream.container import Container
from diffcodec.codec.account import account_for
from diffcodec.codec.encoder import Encoded, EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import PlanConfig
from diffcodec.errors import BitstreamError

PLAN = PlanConfig(growth_index=63, parts=4, code_id=0)


def _total(encoded: Encoded, model: CodecModel) -> int:
    account = account_for(Container.open(encoded.data, "a.dfc"), model)
    hops = sum(hop.correction_bits + hop.code_bits for hop in account.hops)
    return (
        account.header_bits
        + hops
        + account.padding_bits
        + account.check_bits
        + account.last_stage_bits
    )


@pytest.mark.parametrize("bpd", [None, 2.0])
def test_every_bit_has_a_place(
    grouped: Encoded, pixel_model: CodecModel, bpd: float | None, picture: np.ndarray
) -> None:
    encoded = grouped
    if bpd is not None:
        encoded = encode_image(picture, pixel_model, EncoderSettings(PLAN, bpd=bpd))
    assert _total(encoded, pixel_model) == 8 * len(encoded.data)


def test_a_lossless_file_s_account_is_the_encoder_s(
    grouped: Encoded, pixel_model: CodecModel
) -> None:
    account = account_for(Container.open(grouped.data, "a.dfc"), pixel_model)
    assert account.exact
    assert account.last_stage_ideal_bits == pytest.approx(grouped.last_stage_bits, rel=1e-12)
    kl = sum(entry.kl_bits for entry in grouped.ledger)
    paid = sum(entry.paid_bits for entry in grouped.ledger)
    assert sum(hop.kl_bits for hop in account.hops) == pytest.approx(kl, rel=1e-9)
    assert sum(hop.correction_bits + hop.code_bits for hop in account.hops) == paid
    assert sum(hop.packets for hop in account.hops) == len(grouped.ledger)
    assert account.hops[0].t == 1000
    assert account.hops[-1].s == grouped.header.final_step


def test_a_truncated_file_has_none(grouped: Encoded, pixel_model: CodecModel) -> None:
    with pytest.raises(BitstreamError, match=r"^a\.dfc: .* truncated"):
        account_for(Container.open(grouped.data[:-1], "a.dfc"), pixel_model)


def test_stored_pixels_have_none(stored: Encoded, model: CodecModel) -> None:
    with pytest.raises(ValueError, match="no account"):
        account_for(Container.open(stored.data, "a.dfc"), model)
