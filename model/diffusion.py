"""Noise, loss and conditional denoising sampling.

What lies outside the mask is known. While sampling it is replaced, at every step, by the source noised to
that step's level, so that the network only ever has the mouth to invent and the rest keeps its detail
(conditional denoising sampling, as in DiffTalk, arXiv 2301.03786). Noise schedules and solvers are
diffusers'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from syncdiff.model.config import DiffusionConfig
from syncdiff.model.network import Conditions

Scheduler: TypeAlias = Any  # diffusers' classes carry no types
Network: TypeAlias = Callable[[Tensor, Tensor, Conditions], Tensor]


def _schedule(config: DiffusionConfig) -> dict[str, Any]:
    """What the training schedule and the solvers have in common."""
    return {
        "num_train_timesteps": config.timesteps,
        "beta_schedule": config.schedule,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "prediction_type": config.prediction,
        "rescale_betas_zero_snr": config.zero_terminal_snr,
        # From the noisiest step on: the only spacing that fits a schedule that ends in pure noise, and the
        # best with few steps (Lin et al. 2024, arXiv 2305.08891, section 3.3).
        "timestep_spacing": "trailing",
    }


def training_schedule(config: DiffusionConfig) -> Scheduler:
    """The schedule that noises training pictures."""
    return DDPMScheduler(**_schedule(config), clip_sample=False)


def solver(config: DiffusionConfig, clip: bool) -> Scheduler:
    """A fresh solver (DPM-Solver++ keeps a history). `clip` bounds DDIM's estimate to [-1, 1]: for pixels."""
    if config.sampler == "ddim":
        return DDIMScheduler(**_schedule(config), clip_sample=clip)
    return DPMSolverMultistepScheduler(
        **_schedule(config), algorithm_type="dpmsolver++", final_sigmas_type="zero"
    )


def predict(
    network: Network,
    schedule: Scheduler,
    config: DiffusionConfig,
    noisy: Tensor,
    timesteps: Tensor,
    conditions: Conditions,
) -> Tensor:
    """Predicted noise or velocity [B,C,S,S] float32; with `data_std`, of a preconditioned network.

    If pictures are spread by d around a prior p, the best linear guess from x_t = a x + s e alone is
    p + (x_t - a p) a d^2 / (a^2 d^2 + s^2), and s d / sqrt(a^2 d^2 + s^2) is its error: the network supplies
    only what is missing, at unit scale (Karras et al. 2022, arXiv 2206.00364, section 5 and appendix B.6,
    here for a^2 + s^2 = 1). With d = 1 around zero this is v-prediction. The smaller d is, the less of the
    noise has to pass through the network.
    """
    output = network(noisy, timesteps, conditions).float()
    if config.data_std is None:
        return output
    signal = schedule.alphas_cumprod.to(noisy.device)[timesteps].view(-1, 1, 1, 1)
    a, s, d = signal.sqrt(), (1 - signal).sqrt(), config.data_std
    prior = conditions.identity if config.prior == "identity" else torch.zeros_like(noisy)
    variance = (a * d) ** 2 + s**2
    picture = prior + (noisy - a * prior) * (a * d**2 / variance) + output * (s * d / variance.sqrt())
    velocity: Tensor = (a * noisy - picture) / s
    return velocity


def denoising_loss(
    network: Network,
    schedule: Scheduler,
    config: DiffusionConfig,
    target: Tensor,
    mask: Tensor,
    conditions: Conditions,
    generator: torch.Generator | None = None,
    timesteps: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the predicted noise or velocity, over the mask or the whole picture.

    target [B,C,S,S]; mask [B,1,S,S] bool; timesteps [B] int64, by default random ones. The area of a mask
    does not change a sample's weight. Noise and time steps come from the CPU generator, so that they do not
    depend on the device.
    """
    noise = torch.randn(target.shape, generator=generator).to(target)
    if timesteps is None:
        timesteps = torch.randint(config.timesteps, (len(target),), generator=generator).to(target.device)
    noisy = schedule.add_noise(target, noise, timesteps)
    wanted = noise if config.prediction == "epsilon" else schedule.get_velocity(target, noise, timesteps)
    error = (predict(network, schedule, config, noisy, timesteps, conditions) - wanted.float()).square()
    region = mask.to(error.dtype) if config.loss_region == "mask" else torch.ones_like(error[:, :1])
    per_sample = (error * region).sum((1, 2, 3)) / (region.sum((1, 2, 3)).clamp(min=1) * error.shape[1])
    if config.loss_weight == "picture":
        # From the squared error of the prediction to that of the picture it stands for. With x_t = a x + s e:
        # x = a x_t - s v, and x = (x_t - s e) / a; so s^2 for the velocity and s^2 / a^2 for the noise (table
        # 1 of Salimans and Ho 2022, arXiv 2202.00512). It puts the effort on the noisy steps, where it is
        # decided how far the mouth opens.
        signal = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        per_sample = per_sample * ((1 - signal) / (1 if config.prediction == "v_prediction" else signal))
    return per_sample.mean()


@torch.no_grad()
def sample(
    network: Network,
    config: DiffusionConfig,
    masked_input: Tensor,
    mask: Tensor,
    conditions: Conditions,
    noise: Tensor,
    clip: bool,
) -> Tensor:
    """Invent the mouth of masked_input [B,C,S,S] inside mask [B,1,S,S], from noise [B,C,S,S] and conditions.

    Whatever `masked_input` holds inside the mask is never looked at. `noise` serves as the start and as the
    noise of the known region: on DDIM's deterministic path that is one and the same noise. Returns
    `masked_input` outside the mask.
    """
    scheduler = solver(config, clip)
    scheduler.set_timesteps(config.sampling_steps, device=noise.device)
    schedule = training_schedule(config)
    both = conditions + conditions.without_audio() if config.guidance != 1.0 else conditions
    picture = noise
    for step in scheduler.timesteps:
        timesteps = step.expand(len(noise))
        picture = torch.where(mask, picture, scheduler.add_noise(masked_input, noise, timesteps))
        if config.guidance == 1.0:
            predicted = predict(network, schedule, config, picture, timesteps, both)
        else:
            doubled = predict(
                network, schedule, config, picture.repeat(2, 1, 1, 1), timesteps.repeat(2), both
            )
            heard, without_audio = doubled.chunk(2)
            predicted = without_audio + config.guidance * (heard - without_audio)
        picture = scheduler.step(predicted, step, picture, return_dict=False)[0]
    return torch.where(mask, picture, masked_input)
