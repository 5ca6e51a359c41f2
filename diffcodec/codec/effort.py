"""Effort levels and evaluation counts as hop plans."""

from diffcodec.codec.encoder import HANDOVER_GAMMA
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import HopPlan, PlanConfig, count_evaluations
from diffcodec.codec.tiles import TILE_CHANNELS

GROWTH_INDICES = range(64)

# Effort 1…9: growth index, parts, channel code.
_EFFORTS = (
    (40, 4, 1),
    (28, 4, 0),
    (19, 4, 0),
    (13, 4, 0),
    (8, 4, 2),
    (6, 4, 2),
    (5, 4, 2),
    (3, 4, 2),
    (1, 2, 2),
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
        plan = HopPlan(config, model.schedule, model.error_curve, dimensions, final_step)
        needed = count_evaluations(plan)
        if needed <= evaluations:
            break
    return config, needed
