"""Effort levels and evaluation counts as hop plans."""

from diffcodec.codec.encoder import HANDOVER_GAMMA
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import HopPlan, PlanConfig, count_evaluations
from diffcodec.codec.tiles import TILE_CHANNELS

GROWTH_INDICES = range(64)

# Effort 1…9: growth index, parts, channel code.
_EFFORTS = (
    (40, 8, 0),
    (28, 8, 0),
    (19, 8, 0),
    (13, 8, 2),
    (8, 8, 2),
    (6, 8, 2),
    (5, 8, 2),
    (3, 8, 2),
    (1, 2, 3),
)


def plan_for_effort(effort: int) -> PlanConfig:
    """The plan of an effort level, 1 (fastest) to 9 (smallest files).

    Raises:
        ValueError: any other level.
    """
    if not 1 <= effort <= len(_EFFORTS):
        raise ValueError(f"expected an effort of 1 to {len(_EFFORTS)}, got {effort}")
    return PlanConfig(*_EFFORTS[effort - 1])


def plan_for_evaluations(model: CodecModel, evaluations: int) -> tuple[PlanConfig, int]:
    """The plan whose lossless file of an average image takes the most evaluations up to a number.

    Returns:
        The plan and its evaluations; more than was asked for if no plan takes as few.
    """
    final_step = model.schedule.step_at_gamma(HANDOVER_GAMMA)
    dimensions = TILE_CHANNELS * model.tile_side**2
    for growth_index in GROWTH_INDICES:
        config = PlanConfig(growth_index=growth_index)
        plan = HopPlan(
            config, model.schedule, model.error_curve, model.spread_curve, dimensions, final_step
        )
        needed = count_evaluations(plan)
        if needed <= evaluations:
            break
    return config, needed
