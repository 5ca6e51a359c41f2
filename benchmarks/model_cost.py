"""What the named configurations cost: weights, arithmetic and time of an evaluation.

    python -m benchmarks.model_cost
"""

import statistics
import time

import click
import torch

from benchmarks.provenance import describe_machine
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.cost import measure_cost
from diffcodec.model.denoiser import Denoiser, ModelConfig
