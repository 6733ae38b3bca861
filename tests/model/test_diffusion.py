"""Noise, loss and sampling, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from syncdiff.model.config import DiffusionConfig
from syncdiff.model.diffusion import denoising_loss, predict, sample, training_schedule
from syncdiff.model.network import Conditions

V = DiffusionConfig(
    schedule="squaredcos_cap_v2", zero_terminal_snr=True, prediction="v_prediction", sampling_steps=4
)
EPSILON = DiffusionConfig(prediction="epsilon", sampling_steps=10)


def nothing(batch: int, side: int = 8) -> Conditions:
    picture = torch.zeros(batch, 3, side, side)
    yes = torch.ones(batch, dtype=torch.bool)
    return Conditions(picture, picture, picture, yes, torch.zeros(batch, 5, 4), yes)


def lower_half(batch: int, side: int = 8) -> Tensor:
    mask = torch.zeros(batch, 1, side, side, dtype=torch.bool)
    mask[:, :, side // 2 :] = True
    return mask


def oracle(truth: Tensor, config: DiffusionConfig) -> Any:
    """A network that knows the picture, and so the exact noise or velocity at any step."""
    alphas = training_schedule(config).alphas_cumprod

    def predict(noisy: Tensor, steps: Tensor, conditions: Conditions) -> Tensor:
        a = alphas[steps].sqrt().view(-1, 1, 1, 1)
        s = (1 - alphas[steps]).sqrt().view(-1, 1, 1, 1)
        noise = (noisy - a * truth) / s
        return noise if config.prediction == "epsilon" else a * noise - s * truth

    return predict


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("config", [V, EPSILON], ids=["v", "epsilon"])
def test_an_exact_network_gives_the_exact_picture(config: DiffusionConfig, sampler: str) -> None:
    config = replace(config, sampler=sampler)
    truth = torch.rand(2, 3, 8, 8) * 1.8 - 0.9
    generated = sample(
        oracle(truth, config), config, truth, lower_half(2), nothing(2), torch.randn(2, 3, 8, 8), True
    )
    assert torch.allclose(generated, truth, atol=2e-3)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_the_known_region_is_kept_and_the_hidden_one_never_read(sampler: str) -> None:
    config = replace(V, sampler=sampler)
    seen: list[Tensor] = []

    def predict(noisy: Tensor, steps: Tensor, conditions: Conditions) -> Tensor:
        seen.append(noisy.clone())
        return noisy * 0.3

    masked_input, mask, noise = torch.rand(1, 3, 8, 8), lower_half(1), torch.randn(1, 3, 8, 8)
    generated = sample(predict, config, masked_input, mask, nothing(1), noise, True)
    assert torch.equal(generated[~mask.expand_as(generated)], masked_input[~mask.expand_as(masked_input)])
    first = list(seen)
    seen.clear()
    changed = torch.where(mask, torch.full_like(masked_input, 100.0), masked_input)
    again = sample(predict, config, changed, mask, nothing(1), noise, True)
    assert torch.equal(generated, again)
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))


def test_the_known_region_carries_the_noise_of_its_step() -> None:
    schedule = training_schedule(V)
    masked_input, mask, noise = torch.rand(1, 3, 8, 8), lower_half(1), torch.randn(1, 3, 8, 8)
    levels = []

    def predict(noisy: Tensor, steps: Tensor, conditions: Conditions) -> Tensor:
        expected = schedule.add_noise(masked_input, noise, steps)
        assert torch.allclose(noisy[:, :, :4], expected[:, :, :4], atol=1e-6)
        levels.append(int(steps[0]))
        return torch.zeros_like(noisy)

    sample(predict, V, masked_input, mask, nothing(1), noise, True)
    assert levels == [999, 749, 499, 249], "from pure noise on"


def test_guidance_is_the_stated_combination() -> None:
    config = replace(V, guidance=3.0, sampling_steps=1)

    def predict(noisy: Tensor, steps: Tensor, conditions: Conditions) -> Tensor:
        return torch.where(conditions.has_audio.view(-1, 1, 1, 1), -0.2, -0.1).expand_as(noisy).clone()

    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    generated = sample(
        predict, config, torch.zeros(1, 3, 8, 8), mask, nothing(1), torch.randn(1, 3, 8, 8), True
    )
    # One step from pure noise: x = -v, and v = -0.1 + 3 (-0.2 + 0.1).
    assert torch.allclose(generated, torch.full_like(generated, 0.4), atol=1e-3)


@pytest.mark.parametrize("config", [V, EPSILON], ids=["v", "epsilon"])
@pytest.mark.parametrize("weight", ["prediction", "picture"])
def test_an_exact_network_has_no_loss(config: DiffusionConfig, weight: str) -> None:
    config = replace(config, loss_weight=weight)
    truth = torch.rand(4, 3, 8, 8)
    loss = denoising_loss(
        oracle(truth, config), training_schedule(config), config, truth, lower_half(4), nothing(4)
    )
    assert loss < 1e-6


def test_the_loss_sees_the_mask_only_where_asked() -> None:
    truth, mask = torch.zeros(2, 3, 8, 8), lower_half(2)

    def wrong_above(noisy: Tensor, steps: Tensor, conditions: Conditions) -> Tensor:
        exact = oracle(truth, EPSILON)(noisy, steps, conditions)
        exact[:, :, :4] += 1.0
        return exact

    schedule = training_schedule(EPSILON)
    inside = denoising_loss(wrong_above, schedule, EPSILON, truth, mask, nothing(2))
    whole = denoising_loss(
        wrong_above, schedule, replace(EPSILON, loss_region="whole"), truth, mask, nothing(2)
    )
    assert inside < 1e-6
    assert whole == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("config", [V, EPSILON], ids=["v", "epsilon"])
def test_picture_weight_is_the_error_of_the_picture(config: DiffusionConfig) -> None:
    """A prediction that is off by d means a picture that is off by s d, or by s d / a for the noise."""
    config = replace(config, loss_weight="picture", loss_region="whole")
    schedule, truth = training_schedule(config), torch.rand(1, 3, 8, 8)
    errors: list[float] = []

    def off(noisy: Tensor, steps: Tensor, conditions: Conditions) -> Tensor:
        predicted = oracle(truth, config)(noisy, steps, conditions) + 0.1
        signal = schedule.alphas_cumprod[steps].view(-1, 1, 1, 1)
        a, s = signal.sqrt(), (1 - signal).sqrt()
        picture = (noisy - s * predicted) / a if config.prediction == "epsilon" else a * noisy - s * predicted
        errors.append(float((picture - truth).square().mean()))
        return predicted

    for seed in range(5):
        torch.manual_seed(seed)
        loss = denoising_loss(off, schedule, config, truth, lower_half(1), nothing(1))
        assert float(loss) == pytest.approx(errors[-1], rel=2e-2)


def test_the_area_of_a_mask_does_not_weigh() -> None:
    truth, mask = torch.zeros(2, 3, 8, 8), lower_half(2)
    mask[1, :, 4:7] = False

    def off(noisy: Tensor, steps: Tensor, conditions: Conditions) -> Tensor:
        return oracle(truth, EPSILON)(noisy, steps, conditions) + torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)

    loss = denoising_loss(off, training_schedule(EPSILON), EPSILON, truth, mask, nothing(2))
    assert loss == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("prior", ["zero", "identity"])
def test_preconditioning_asks_for_what_the_linear_guess_lacks(prior: str) -> None:
    """Of pictures from N(prior, d^2) the best linear guess leaves an error of unit scale and no trend."""
    torch.manual_seed(0)
    config = replace(V, data_std=0.25, prior=prior)
    schedule, count = training_schedule(config), 4000
    conditions = replace(nothing(count, 1), identity=torch.full((count, 3, 1, 1), 0.4))
    mean = 0.4 if prior == "identity" else 0.0
    for step in (50, 400, 900, 999):
        steps = torch.full((count,), step)
        truth = mean + 0.25 * torch.randn(count, 3, 1, 1)
        noise = torch.randn_like(truth)
        noisy = schedule.add_noise(truth, noise, steps)
        velocity = schedule.get_velocity(truth, noise, steps)
        zero = predict(lambda x, t, g: torch.zeros_like(x), schedule, config, noisy, steps, conditions)
        one = predict(lambda x, t, g: torch.ones_like(x), schedule, config, noisy, steps, conditions)
        wanted = (velocity - zero) / (one - zero)
        assert wanted.std() == pytest.approx(1.0, abs=0.05)
        assert abs(float(torch.corrcoef(torch.stack([wanted.flatten(), noisy.flatten()]))[0, 1])) < 0.05


def test_preconditioning_for_unit_spread_is_velocity_prediction() -> None:
    config = replace(V, data_std=1.0)
    noisy, steps = torch.randn(3, 3, 8, 8), torch.tensor([10, 500, 999])
    predicted = predict(lambda x, t, g: x + 1, training_schedule(config), config, noisy, steps, nothing(3))
    assert torch.allclose(predicted, -(noisy + 1), atol=2e-3)
