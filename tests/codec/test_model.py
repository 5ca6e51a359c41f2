import dataclasses

import numpy as np
import pytest
import torch

from diffcodec.codec.effort import plan_for_effort, plan_for_evaluations
from diffcodec.codec.encoder import HANDOVER_GAMMA
from diffcodec.codec.model import LARGEST_BATCH, CodecModel
from diffcodec.codec.plan import HopPlan, count_evaluations
from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.errors import CheckpointError
from diffcodec.model.denoiser import Denoiser

RANDOM = np.random.default_rng(0)


def test_an_estimate_does_not_depend_on_threads_layout_or_flushing(model: CodecModel) -> None:
    z = RANDOM.standard_normal((3, 3, 16, 16))
    first = model.estimate(z, 500)
    assert first.dtype == np.float64
    assert np.abs(first).max() <= 1.0
    columns = np.asfortranarray(z)
    torch.set_flush_denormal(True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(model.estimate(columns, 500), first)
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("count", [LARGEST_BATCH, LARGEST_BATCH + 1, 2 * LARGEST_BATCH + 3])
def test_many_tiles_are_evaluated_in_whole_batches(count: int, model: CodecModel) -> None:
    z = RANDOM.standard_normal((count, 3, 16, 16))
    together = model.estimate(z, 300)
    for start in range(0, count, LARGEST_BATCH):
        part = np.zeros((LARGEST_BATCH, 3, 16, 16))
        part[: len(z[start : start + LARGEST_BATCH])] = z[start : start + LARGEST_BATCH]
        expected = model.estimate(part, 300)[: len(z[start : start + LARGEST_BATCH])]
        np.testing.assert_array_equal(together[start : start + LARGEST_BATCH], expected)


def test_a_model_on_another_grid_is_refused(model: CodecModel) -> None:
    config = dataclasses.replace(model.checkpoint.config, schedule=ScheduleConfig(steps=500))
    checkpoint = dataclasses.replace(model.checkpoint, denoiser=Denoiser(config))
    with pytest.raises(CheckpointError, match="1000 steps"):
        CodecModel(checkpoint)


def test_the_error_curve_goes_through_the_checkpoint_s_points(model: CodecModel) -> None:
    curve = model.checkpoint.error_curve
    at = [model.schedule.step_at_gamma(gamma) for gamma in curve.gamma]
    np.testing.assert_allclose(model.error_curve[at], curve.error, rtol=1e-9)


def test_more_effort_is_more_evaluations(model: CodecModel) -> None:
    final_step = model.schedule.step_at_gamma(HANDOVER_GAMMA)
    counts = []
    for effort in range(1, 10):
        plan = plan_for_effort(effort)
        hops = HopPlan(plan, model.schedule, model.error_curve, 3 * 16 * 16, final_step)
        counts.append(count_evaluations(hops))
    assert counts == sorted(counts)
    assert counts[-1] > 3 * counts[0]


@pytest.mark.parametrize("effort", [0, 10, -1])
def test_there_is_no_other_effort(effort: int) -> None:
    with pytest.raises(ValueError, match="effort of 1 to 9"):
        plan_for_effort(effort)


@pytest.mark.parametrize("wanted", [20, 40, 80])
def test_a_plan_for_a_number_of_evaluations_comes_close_from_below(
    wanted: int, model: CodecModel
) -> None:
    plan, needed = plan_for_evaluations(model, wanted)
    assert 0.7 * wanted <= needed <= wanted
    if plan.growth_index:
        finer = dataclasses.replace(plan, growth_index=plan.growth_index - 1)
        final_step = model.schedule.step_at_gamma(HANDOVER_GAMMA)
        hops = HopPlan(finer, model.schedule, model.error_curve, 3 * 16 * 16, final_step)
        assert count_evaluations(hops) > wanted


def test_too_few_evaluations_give_the_fewest_there_are(model: CodecModel) -> None:
    plan, needed = plan_for_evaluations(model, 1)
    assert plan.growth_index == 63
    assert needed > 1
