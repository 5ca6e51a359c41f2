"""Effort levels and evaluation counts as hop plans.

Imports no torch, so that commands can name levels in their options.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from diffcodec.codec.plan import HopPlan, PlanConfig, count_evaluations
from diffcodec.codec.tiles import TILE_CHANNELS

if TYPE_CHECKING:
    from diffcodec.codec.model import CodecModel

GROWTH_INDICES = range(64)

_PLANS = {
    1: PlanConfig(growth_index=40, parts=4, code_id=1),
    2: PlanConfig(growth_index=28, parts=4, code_id=0),
    3: PlanConfig(growth_index=19, parts=4, code_id=0),
    4: PlanConfig(growth_index=13, parts=4, code_id=0),
    5: PlanConfig(growth_index=8, parts=4, code_id=2),
    6: PlanConfig(growth_index=6, parts=4, code_id=2),
    7: PlanConfig(growth_index=5, parts=4, code_id=2),
    8: PlanConfig(growth_index=3, parts=4, code_id=2),
    9: PlanConfig(growth_index=1, parts=2, code_id=2),
}

EFFORTS = tuple(_PLANS)
"""Effort levels, fastest first."""
DEFAULT_EFFORT = 5
"""The level that every command, benchmark and `EncoderSettings` takes unless told otherwise."""


def plan_for_effort(effort: int) -> PlanConfig:
    """The plan of an effort level, 1 (fastest) to 9 (smallest files).

    Raises:
        ValueError: any other level.
    """
    if effort not in _PLANS:
        raise ValueError(f"expected an effort of 1 to {EFFORTS[-1]}, got {effort}")
    return _PLANS[effort]


def plan_for_evaluations(model: "CodecModel", evaluations: int) -> tuple[PlanConfig, int]:
    """The plan whose lossless file of an average image takes the most evaluations up to a number.

    Returns:
        The plan and its evaluations; more than was asked for if no plan takes as few.
    """
    # Here, since it brings torch along, as the model that is given has done.
    from diffcodec.codec.encoder import HANDOVER_GAMMA

    final_step = model.schedule.step_at_gamma(HANDOVER_GAMMA)
    dimensions = TILE_CHANNELS * model.tile_side**2
    for growth_index in GROWTH_INDICES:
        config = replace(plan_for_effort(DEFAULT_EFFORT), growth_index=growth_index)
        plan = HopPlan(config, model.schedule, model.error_curve, dimensions, final_step)
        needed = count_evaluations(plan)
        if needed <= evaluations:
            break
    return config, needed
