import pytest

from benchmarks.model_cost import main


def test_a_row_for_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--config", "tiny", "--evaluations", "1"])
    lines = capsys.readouterr().out.splitlines()
    name, objective, parameters, flop, alone, together = lines[2].strip("| ").split(" | ")
    assert (name, objective, parameters, flop) == ("`tiny`", "`vlb`", "0.07 M", "0.07")
    assert float(alone) > 0
    assert float(together) > 0
    assert "torch" in lines[-1]
