"""The laws of named schedules, written as their sources write them, step by step.

The base is 0.1 unless a law says otherwise.
"""

import math
from bisect import bisect_right
from collections.abc import Callable

Law = Callable[[int], float]


def wave(u: float) -> float:
    """Half a cosine wave from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * u))


def cosine_exponent(t: int) -> float:
    """Optax cosine_decay_schedule: the exponent applies to the wave, before the floor."""
    return 0.1 * ((1 - 0.01) * (0.5 * (1 + math.cos(math.pi * min(t, 100) / 100))) ** 2.0 + 0.01)


def cosine_waves(t: int) -> float:
    """A cosine of one and a quarter waves, held where it is at the end."""
    return 0.001 + 0.099 * (1 + math.cos(2 * math.pi * 1.25 * min(t, 100) / 100)) / 2


def half_cosine(t: int) -> float:
    """OLMo-core HalfCosWithWarmup without a warmup."""
    eta_min, t_max = 0.01, 100
    if t >= t_max:
        return eta_min
    return eta_min + (0.1 - eta_min) * (1 + math.cos(math.pi * (t + t_max) / (2 * t_max))) / 2


def quarter_cosine(t: int) -> float:
    """ParlAI's cosine, with a floor."""
    return 0.01 + 0.09 * math.cos(math.pi * t / (2 * 100)) if t < 100 else 0.01


def polynomial_cycle(t: int) -> float:
    """NeMo _poly_decay with cycle."""
    decay_steps, min_lr = 30.0, 0.01
    decay_steps *= 1.0 if t == 0 else math.ceil(t / decay_steps)
    return (0.1 - min_lr) * math.pow(1.0 - t / decay_steps, 2.0) + min_lr


def restarts_of_transformers(t: int) -> float:
    """Transformers' cosine with hard restarts."""
    progress = t / 90
    return 0.1 * max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((4 * progress) % 1.0)))) * (progress < 1)


def sgdr_of_katsura(t: int) -> float:
    """Katsura's CosineAnnealingWarmupRestarts: the part after the warmup grows."""
    first, mult, top, low, warmup, gamma = 30, 2.0, 0.1, 0.01, 5, 0.8
    cycle, step, length = 0, t, first
    while step >= length:
        cycle, step = cycle + 1, step - length
        length = int((length - warmup) * mult) + warmup
    peak = top * gamma**cycle
    if step < warmup:
        return (peak - low) * step / warmup + low
    turn = math.cos(math.pi * (step - warmup) / (length - warmup))
    return low + (peak - low) * (1 + turn) / 2


def sgdr_of_torch(t: int) -> float:
    """Torch CosineAnnealingWarmRestarts, the cycle found by counting."""
    length = 10
    while t >= length:
        t, length = t - length, length * 3
    return 0.001 + (0.1 - 0.001) * (1 + math.cos(math.pi * t / length)) / 2


def sgdr_of_mmengine(t: int) -> float:
    """MMEngine CosineRestartLR with falling weights; after the last period the floor is held."""
    start = 0
    for index, period in enumerate((20, 50, 30)):
        if t < start + period:
            top = 0.1 * 0.5**index
            return 0.01 + 0.5 * (top - 0.01) * (1 + math.cos(math.pi * (t - start) / period))
        start += period
    return 0.01


def cosine_k_decay(t: int) -> float:
    """Timm CosineLRScheduler with k_decay."""
    if t >= 100:
        return 0.001
    return 0.001 + 0.5 * (0.1 - 0.001) * (1 + math.cos(math.pi * t**1.5 / 100**1.5))


def polynomial_k_decay(t: int) -> float:
    """Timm PolyLRScheduler with k_decay."""
    return 0.1 * (1 - t**0.7 / 100**0.7) ** 2.0 if t < 100 else 0.0


def tanh_anneal(t: int) -> float:
    """Timm TanhLRScheduler."""
    if t >= 100:
        return 0.001
    u = t / 100
    return 0.001 + 0.5 * (0.1 - 0.001) * (1 - math.tanh(-6.0 * (1.0 - u) + 3.0 * u))


def rex_of_pytorch_optimizer(t: int) -> float:
    """pytorch_optimizer REXScheduler."""
    if t >= 100:
        return 0.01
    return 0.01 + (0.1 - 0.01) * ((1.0 - t / 100) / (1.0 - t / 100 / 2.0))


def rex_of_axolotl(t: int) -> float:
    """Axolotl RexLR after its warmup."""
    if t >= 100:
        return 0.01
    z = (100 - t) / 100
    return 0.1 * (0.01 / 0.1 + (1.0 - 0.01 / 0.1) * (z / (0.1 + 0.9 * z)))


def linear_cosine(t: int) -> float:
    """TensorFlow's linear_cosine_decay."""
    t = min(t, 100)
    cosine = 0.5 * (1.0 + math.cos(math.pi * (2.0 * 1.5 * (t / 100))))
    return 0.1 * ((0.1 + (100 - t) / 100) * cosine + 0.001)


def sawtooth(t: int) -> float:
    """Ignite LinearCyclicalScheduler, monotonic."""
    return 0.001 + (0.1 - 0.001) * ((t % 20) / 20)


def one_cycle_of_fastai(t: int) -> float:
    """Fastai fit_one_cycle on t / T: its final divisor is of the peak."""
    lr_max, div, div_final, pct_start = 0.1, 25.0, 1e5, 0.25
    pct = min(t / 90, 1.0)

    def anneal(start: float, end: float, pos: float) -> float:
        return start + (1 + math.cos(math.pi * (1 - pos))) * (end - start) / 2

    if pct < pct_start:
        return anneal(lr_max / div, lr_max, pct / pct_start)
    return anneal(lr_max, lr_max / div_final, (pct - pct_start) / (1 - pct_start))


def one_cycle_of_optax(t: int) -> float:
    """optax.linear_onecycle_schedule: its three knots."""
    peak, div, final = 0.1, 25.0, 1e4
    knots = [(0, peak / div), (30, peak), (85, peak / div), (100, peak / div / final)]
    index = bisect_right([at for at, _ in knots], t) - 1
    if index == 3:
        return knots[3][1]
    (a, low), (b, high) = knots[index], knots[index + 1]
    return low + (high - low) * (t - a) / (b - a)


def flat_cosine(t: int) -> float:
    """Fastai fit_flat_cos on t / T."""
    if t < 0.72 * 90:
        return 0.1
    pos = (min(t, 90) - 0.72 * 90) / (90 - 0.72 * 90)
    return 0.1 + (1 + math.cos(math.pi * (1 - pos))) * (0.001 - 0.1) / 2


def slanted_triangular(t: int) -> float:
    """AllenNLP SlantedTriangular."""
    steps, ratio = 105, 32
    t = min(t, steps)
    cut = int(steps * 0.1)
    prop = t / cut if t < cut else 1 - (t - cut) / (steps - cut)
    return 0.1 * (1 + prop * (ratio - 1)) / ratio


def tri_stage(t: int) -> float:
    """Fairseq tri_stage."""
    warmup, hold, decay, peak = 10, 20, 50, 0.1
    if t < warmup:
        return 0.01 * peak + (peak - 0.01 * peak) / warmup * t
    if t < warmup + hold:
        return peak
    if t <= warmup + hold + decay:
        return peak * math.exp(-(-math.log(0.05) / decay) * (t - warmup - hold))
    return 0.05 * peak


def cosine_linear_tail(t: int) -> float:
    """OLMo-core CosWithWarmupAndLinearDecay."""
    warmup, t_max, decay, eta_min, peak = 10, 100, 20, 0.01, 0.1

    def cosine(at: int) -> float:
        turn = math.cos(math.pi * (at - warmup) / (t_max - warmup))
        return eta_min + (peak - eta_min) * (1 + turn) / 2

    if t < warmup:
        return peak * min(t, warmup) / warmup
    if t < t_max - decay:
        return cosine(t)
    left = max(t_max - t, 0)
    return 0.002 + (cosine(t_max - decay) - 0.002) * min(left, decay) / decay


def wsd_of_olmo(t: int) -> float:
    """OLMo-core WSD."""
    warmup, t_max, decay = 10, 100, 20
    if t <= warmup:
        return 0.1 * min(t, warmup) / warmup
    if t >= t_max - decay:
        return 0.01 + (0.1 - 0.01) * min(max(t_max - t, 0), decay) / decay
    return 0.1


def power_of_olmo(t: int) -> float:
    """OLMo-core PowerLR: a warmup, a power law, and a line from where it is to the end."""
    warmup, t_max, decay, b = 10, 100, 20, -0.51
    if t <= warmup:
        return 0.1 * min(t, warmup) / warmup
    if t >= t_max - decay:
        start = 0.1 * ((t_max - decay) / warmup) ** b
        return 0.001 + (start - 0.001) * min(max(t_max - t, 0), decay) / decay
    return 0.1 * (t / warmup) ** b


def wsd_s_of_olmo(lengths: tuple[int, ...]) -> Law:
    """OLMo-core WSDS, its steps counted from 0: a boundary belongs to the next period."""

    def law(t: int) -> float:
        warmup, decay = 5, 10
        start = 0
        for length in lengths:
            if t < start + length:
                left = start + length - t
                value = 0.1 if left > decay else 0.01 + (0.1 - 0.01) * left / decay
                return value * min(t / warmup, 1.0)
            start += length
        return 0.01

    return law


def rsqrt_of_big_vision(t: int) -> float:
    """big_vision's rsqrt with warmup and cooldown, a product of its factors."""
    warmup, timescale, total, cooldown = 10, 25, 100, 20
    value = 0.1 / math.sqrt(1 + (t - warmup) / timescale) if warmup <= t else 0.1
    value *= min(1.0, t / warmup)
    return value * max(min(1.0, (total - t) / cooldown), 0.0)


def inverse_sqrt_with_floor(t: int) -> float:
    """llm-foundry-like: its own timescale, and a floor."""
    if t < 10:
        return 0.1 * t / 10
    return max(0.1 / math.sqrt((t - 10 + 40) / 40), 0.06)


def noam(t: int) -> float:
    """AllenNLP NoamLR, its steps counted from 1."""
    step = t + 1
    return 0.1 * (512.0 ** (-0.5) * min(step ** (-0.5), step * 40 ** (-1.5)))


def noam_of_espnet(t: int) -> float:
    """ESPnet WarmupLR, floored after the warmup."""
    step = t + 1
    value = 0.1 * 40**0.5 * min(step**-0.5, step * 40**-1.5)
    return value if step <= 40 else max(value, 0.08)


def noam_hold(t: int) -> float:
    """NeMo NoamHoldAnnealing."""
    warmup, hold, rate = 10, 20, 0.7
    if t <= warmup:
        return 0.1 * (t + 1) / (warmup + 1)
    if t < warmup + hold:
        return 0.1
    return max(0.1 * warmup**rate / (t - hold) ** rate, 0.03)


def chebyshev(t: int) -> float:
    """The paper's nodes, in its fractal order."""
    order = [0, 7, 3, 4, 1, 6, 2, 5]
    small, big = 0.05, 1.0
    place = (order[min(t // 10, 7)] + 0.5) * math.pi / 8
    return 0.1 / ((big + small) / 2 - (big - small) / 2 * math.cos(place))


def jagged(t: int) -> float:
    """Axolotl JaggedLRRestartScheduler around a constant."""
    restart, warmup, anneal, low = 30, 5, 4, 0.01
    if t < restart - anneal:
        return 0.1
    passed = t % restart
    if passed < warmup:
        part = min(1.0, passed / warmup)
    elif passed > restart - anneal:
        part = min(1.0, (restart - passed) / anneal)
    else:
        part = 1.0
    return 0.1 * (part * (1 - low) + low)


def multifactor(t: int) -> float:
    """Trax multifactor with most of its factors."""
    value = 0.1 if t < 50 else 0.03
    value *= min(1.0, t / 10)
    value *= math.sqrt(10)
    value /= math.sqrt(max(t, 10))
    value *= 0.5 ** (t // 40)
    value *= 0.5 * (1.0 + math.cos(math.pi * (max(0.0, (t - 10) / 60.0) % 1.0)))
    return max(value, 1e-4)


def range_test(t: int) -> float:
    """torch_lr_finder's exponential sweep, held at its end."""
    return float(1e-6 * (1.0 / 1e-6) ** (min(t, 99) / 99))


def range_test_in_stairs(t: int) -> float:
    """A straight sweep in eleven levels, ten before the end."""
    return 0.1 + 0.9 * math.floor(min(t, 100) * 10 / 100) / 10


def radam_warmup(t: int) -> float:
    """pytorch_warmup RAdamWarmup."""
    beta2 = 0.99

    def length(n: int) -> float:
        return limit - 2 * n * beta2**n / (1 - beta2**n)

    limit = 2.0 / (1 - beta2) - 1
    offset = next(n for n in range(1, 100) if length(n) > 4)
    rho = length(t + offset)
    return 0.1 * math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))


def infinite(t: int) -> float:
    """Infinite learning rate schedules, arXiv:2503.02844, Eq. 1; arXiv:2403.08763."""
    top, constant, low = 0.1, 0.04, 0.002
    if t < 10:
        return top * t / 10
    if t < 40:
        return constant + (top - constant) / 2 * (1 + math.cos(math.pi * (t - 10) / 30))
    if t < 80:
        return constant
    return constant * (low / constant) ** (min(t - 80, 20) / 20)


def power_scheduler(t: int) -> float:
    """Power scheduler, arXiv:2408.13359, Eqs. 7 and 8, with its own a, b and largest rate.

    32 sequences of 4,096 tokens in a step; the end is that of the authors' dolomite-engine.
    """
    batch, largest, a, b = 32, 0.02, 4.0, -0.51
    warmup, total, decay = 100, 1000, 200

    def power(step: int) -> float:
        return min(largest, batch * a * (step * batch * 4096.0) ** b)

    if t < warmup:
        return power(warmup) * t / warmup
    if t <= total - decay:
        return power(t)
    u = min(t - (total - decay), decay) / decay
    return power(total - decay) * (math.e * math.exp(-u) - 1) / (math.e - 1)


CAPPED_STEPS = (32 * 4.0 / 0.02) ** (1 / 0.51) / (32 * 4096.0)
"""Where that law comes down to its largest rate."""


def anytime(t: int) -> float:
    """Anytime schedule, arXiv:2602.03702, as the authors' repository has it after a warmup."""
    if t < 20:
        return 0.1 * t / 20
    return 0.1 * math.sqrt(50 / (t - 20 + 50))


def optimal_decay(t: int) -> float:
    """Optimal decay of functional scaling laws, arXiv:2602.06797, of an easy task with beta 1.4."""
    return float(0.1 * (1 - min(t, 100) / 100) ** (2 * 1.4 - 1))


def optimal_decay_of_a_hard_task(t: int) -> float:
    """The same of a hard task: the base until step 85, and the power over the last 15."""
    if t < 10:
        return 0.1 * t / 10
    return float(0.1 * (1 - min(max(t - 85, 0), 15) / 15) ** (2 * 1.4 - 1))
