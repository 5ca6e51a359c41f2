"""What files pay above the model's own bound: the plan's share and the channel code's, by step.

A perfect coder pays Σ L_u of unit hops from exact samples (`benchmarks.theory`). A file's hops are
longer, its samples come from the channel code, and each bit of KL has a price.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.real_files import FileMeasurement, by_step
from benchmarks.theory import Theory, curve
from diffcodec.diffusion.schedule import Schedule
from diffcodec.units import bits_per_dimension

STRIDE = 5
"""One of so many of the ledger's steps has a row."""


def summarize_excess(
    files: Sequence[FileMeasurement], theories: Sequence[Theory], schedule: Schedule
) -> dict[str, Any] | None:
    """Bits of the hops beside the finest grid's, over the images that have both; ready for JSON.

    ``rows``, from noise to the hand-over: down to ``step`` the finest grid pays ``fine_kl_bpd`` and
    has the error ``fine_rmse``; files have ``kl_bpd`` in their hops, pay ``paid_bpd``, and reach
    ``rmse``, for which the finest grid pays ``fine_kl_at_rmse_bpd`` (None beyond its ends).
    ``bound_bpd`` is the prior, the finest grid down to the hand-over and the files' ideal last
    stage; ``lossless_bpd`` what the files take. None where no file has hops.

    Args:
        files, theories: of the same images, in the same order.
    """
    pairs = [(f, t) for f, t in zip(files, theories, strict=False) if not f.stored]
    ledger = by_step([file for file, _ in pairs])
    if ledger is None:
        return None
    curves = [curve(theory, schedule) for _, theory in pairs]
    fine_bpd = np.mean([c.rate_bpd for c in curves], axis=0)
    fine_rmse = np.sqrt(np.mean([c.mse for c in curves], axis=0))
    # np.interp wants a rising axis; an undertrained network's error need not fall at every step.
    rising = np.maximum.accumulate(fine_rmse)
    rows = []
    last = len(ledger["step"]) - 1
    for place in dict.fromkeys([*range(STRIDE, last, STRIDE), last]):
        step, rmse = round(ledger["step"][place]), ledger["rmse"][place]
        within = rising[0] <= rmse <= rising[-1]
        rows.append(
            {
                "step": step,
                "gamma": float(schedule.gamma[step]),
                "fine_kl_bpd": float(fine_bpd[step]),
                "fine_rmse": float(fine_rmse[step]),
                "kl_bpd": ledger["kl_bpd"][place],
                "paid_bpd": ledger["paid_bpd"][place],
                "rmse": rmse,
                "fine_kl_at_rmse_bpd": float(np.interp(rmse, rising, fine_bpd)) if within else None,
            }
        )
    bounds_bpd = [
        theory.prior_bpd
        + fine.rate_bpd[file.handover_step]
        + bits_per_dimension(file.last_stage_bits, file.dimensions)
        for (file, theory), fine in zip(pairs, curves, strict=True)
    ]
    return {
        "images": len(pairs),
        "rows": rows,
        "bound_bpd": float(np.mean(bounds_bpd)),
        "lossless_bpd": float(np.mean([file.lossless_bpd for file, _ in pairs])),
    }
