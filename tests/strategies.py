"""Hypothesis strategies that several test modules use."""

import math

from hypothesis import strategies as st

rates = st.floats(1e-8, 10.0)
factors = st.floats(0.01, 0.999)
momenta = st.one_of(st.just(0.0), st.floats(1e-6, 1.0))

metrics = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([0.5, 0.4, 0.3, 0.0, -1.0]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)
"""Metric values, non-finite ones included; repetitions are likely."""


@st.composite
def one_cycles(draw: st.DrawFn) -> dict[str, object]:
    """Draw parameters of a one-cycle schedule whose phases do not overlap."""
    total = draw(st.integers(8, 400))
    three_phase = draw(st.booleans())
    pct_start = draw(st.floats(2.5 / total, 0.45 if three_phase else 0.9))
    return {
        "max_lr": draw(st.floats(1e-4, 1.0)),
        "total_steps": total,
        "pct_start": pct_start,
        "anneal_strategy": draw(st.sampled_from(["cos", "linear"])),
        "div_factor": draw(st.floats(1.0, 100.0)),
        "final_div_factor": draw(st.floats(1.0, 1e5)),
        "three_phase": three_phase,
        "base_momentum": draw(momenta),
        "max_momentum": draw(momenta),
    }


def eases() -> st.SearchStrategy[object]:
    """Draw eases that stay between their two values."""
    powers = st.floats(0.2, 4)
    return st.one_of(
        st.sampled_from(["linear", "cosine", "quarter_cosine", "constant", "haversine"]),
        powers.map(lambda power: {"kind": "poly", "power": power}),
        powers.map(lambda power: {"kind": "power", "power": power}),
        st.floats(0, 0.95).map(lambda beta: {"kind": "rex", "beta": beta}),
    )


@st.composite
def stages(draw: st.DrawFn) -> dict[str, object]:
    """Draw schedules of stages, some of which may have no steps."""
    warmup, stable, decay = (draw(st.integers(low, 80)) for low in (0, 0, 1))
    total = {"total_steps": warmup + stable + decay, "warmup_steps": warmup}
    floor = {"min_lr": draw(st.floats(0, 0.01))}
    wsd = {"kind": "wsd", **total, **floor, "decay_steps": decay, "decay_ease": draw(eases())}
    tail = {"kind": "cosine_linear_tail", **total, **floor, "decay_steps": decay}
    cool = {"kind": "rsqrt_cooldown", **total, **floor, "cooldown_steps": decay}
    tri = {"warmup_steps": warmup, "hold_steps": stable, "decay_steps": decay}
    noam = {"kind": "noam", "warmup_steps": warmup + 1, "model_size": draw(st.floats(16, 4096))}
    return draw(st.sampled_from([wsd, tail, cool, {"kind": "tri_stage", **tri}, noam]))


@st.composite
def restarts(draw: st.DrawFn) -> dict[str, object]:
    """Draw schedules of periods: equal, growing, or written out."""
    warmup = draw(st.integers(0, 10))
    lengths = st.integers(warmup + 1, 60)
    periods = draw(
        st.one_of(
            lengths.map(lambda period: {"period": period}),
            st.builds(
                lambda period, growth, limit: {"period": period, "growth": growth, "limit": limit},
                lengths,
                st.floats(1, 3),
                st.integers(1, 4),
            ),
            st.lists(lengths, min_size=1, max_size=4).map(lambda some: {"periods": some}),
        )
    )
    return {
        "kind": "sgdr",
        "warmup_steps": warmup,
        "peak_decay": draw(st.floats(0.3, 1)),
        "min_lr": draw(st.floats(0, 0.01)),
        **periods,
    }


schedules = st.recursive(
    st.one_of(
        st.just({"kind": "constant"}),
        stages(),
        restarts(),
        st.builds(
            lambda total, count, low: {
                "kind": "cosine",
                "total_steps": total,
                "waves": count,
                "min_lr": low,
            },
            st.integers(1, 300),
            st.floats(0.1, 4),
            st.floats(0, 0.01),
        ),
        st.sampled_from(
            [
                {"kind": "expression", "value": "base * 0.9 ** (t // 7) if t > 3 else base / 2"},
                {"kind": "expression", "value": "max(base * cos(pi * t / 90), 0)"},
                {"kind": "linear_cosine", "total_steps": 90, "num_periods": 2.0},
                {"kind": "chebyshev", "num_epochs": 13, "every": 5},
                {"kind": "polynomial", "total_steps": 40, "cycle": True},
                {"kind": "multifactor", "warmup_steps": 20},
                {"kind": "noam_hold", "warmup_steps": 10, "hold_steps": 20},
                {"kind": "range_test", "steps": 60, "stairs": 7},
                {"kind": "k_decay", "total_steps": 70, "k": 1.3},
                {"kind": "tanh", "total_steps": 70},
            ]
        ),
        st.builds(
            lambda size, gamma: {"kind": "step", "step_size": size, "gamma": gamma},
            st.integers(1, 50),
            factors,
        ),
        st.builds(lambda gamma: {"kind": "exponential", "gamma": gamma}, factors),
        st.builds(
            lambda total, floor: {"kind": "cosine", "total_steps": total, "min_lr": floor},
            st.integers(1, 300),
            st.floats(0, 0.01),
        ),
        st.builds(
            lambda total, power: {"kind": "polynomial", "total_steps": total, "power": power},
            st.integers(1, 300),
            st.floats(0.1, 4),
        ),
        st.builds(
            lambda up, mode: {
                "kind": "cyclic",
                "base_lr": 0.001,
                "max_lr": 0.1,
                "step_size_up": up,
                "mode": mode,
                "gamma": 0.999,
            },
            st.integers(1, 40),
            st.sampled_from(["triangular", "triangular2", "exp_range"]),
        ),
        one_cycles().map(lambda spec: {"kind": "one_cycle", **spec}),
    ),
    lambda children: st.one_of(
        st.builds(
            lambda child, steps, mode: {
                "kind": "warmup",
                "schedule": child,
                "steps": steps,
                "mode": mode,
            },
            children,
            st.integers(1, 50),
            st.sampled_from(["prefix", "overlay", "multiply", "replace"]),
        ),
        st.builds(
            lambda first, second, steps: {
                "kind": "sequence",
                "parts": [{"schedule": first, "steps": steps}, {"schedule": second}],
            },
            children,
            children,
            st.integers(1, 80),
        ),
        st.builds(
            lambda child, at: {"kind": "freeze", "schedule": child, "at": at},
            children,
            st.integers(0, 200),
        ),
        st.builds(
            lambda child, seed, kind: {
                "kind": "noise",
                "schedule": child,
                "seed": seed,
                "distribution": kind,
            },
            children,
            st.integers(0, 2**53 - 1),
            st.sampled_from(["normal", "uniform"]),
        ),
        st.builds(
            lambda child, damper: {**damper, "schedule": child},
            children,
            st.sampled_from(
                [
                    {"kind": "jagged", "restart_steps": 40, "warmup_steps": 9},
                    {"kind": "untuned_warmup", "beta2": 0.95},
                    {"kind": "radam_warmup", "beta2": 0.95},
                    {"kind": "swa_anneal", "start": 60, "swa_lr": 0.05},
                    {"kind": "rebase", "by": 0.5},
                    {"kind": "repeat", "period": 30, "growth": 1.5, "lead": 5},
                ]
            ),
        ),
    ),
    max_leaves=4,
)
"""Specs of schedules, nested ones included."""
