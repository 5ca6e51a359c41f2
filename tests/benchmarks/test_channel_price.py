import pytest

from benchmarks.channel_price import PACKET_BITS, PLANNED_BITS, main, measure, measure_first
from diffcodec.coding.channel import CHANNEL_CODES

CODE = CHANNEL_CODES[0]


def test_sections_buy_what_plans_reckon_with() -> None:
    price = measure(CODE, PLANNED_BITS // CODE.new_bits, dimension=1024, trials=6)
    assert price.section_bits == pytest.approx(CODE.section_bits, abs=5 * price.error + 0.02)
    assert 0.0 < price.error < 0.1
    assert price.micros > 0.0


def test_a_first_section_buys_what_plans_reckon_with() -> None:
    first, error = measure_first(CODE, CODE.section_bits, dimension=1024, trials=6)
    assert first == pytest.approx(CODE.first_bits, abs=5 * error + 0.1)
    assert 0.0 < error < 0.5


def test_the_command_prints_a_line_for_each_packet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["channel_price", "--trials", "2", "--dimension", "96", "--code", "0"]
    monkeypatch.setattr("sys.argv", words)
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{CODE.name}, n = 96")
    packets = [line.split()[0] for line in lines[2 : 2 + len(PACKET_BITS)]]
    assert packets == [str(bits) for bits in PACKET_BITS]
    assert [line.split()[0] for line in lines if line.endswith("*")] == ["64", "first"]
    # The exact reference is there, too, and its price is above one.
    prices = [float(line.split()[2]) for line in lines[-3:]]
    assert all(price > 1.0 for price in prices)
