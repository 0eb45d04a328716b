"""Names of plateau rules that people look for here, with what to use instead."""

OF_CONTROLLERS: dict[str, str] = {
    "ReduceLROnPlateau": (
        "Say whose: `torch.ReduceLROnPlateau`, `keras.ReduceLROnPlateau` or"
        " `fastai.ReduceLROnPlateau`; or use `plateau`"
    ),
    "hf.reduce_lr_on_plateau": (
        "transformers hands its arguments to torch: use `torch.ReduceLROnPlateau`, and report the"
        " metric of each evaluation"
    ),
    "fairseq.reduce_lr_on_plateau": (
        "Use `plateau` with `patience` from lr_patience, `factor` from lr_shrink and `threshold`"
        " from lr_threshold, and `from_step` where the warmup ends"
    ),
    "mmengine.ReduceOnPlateauLR": (
        "Use `plateau` with `mode` from rule (less: min, greater: max), `min_lr` from min_value and"
        " `threshold_mode` from threshold_rule"
    ),
    "ignite.ReduceLROnPlateauScheduler": (
        "ignite hands its arguments to torch: use `torch.ReduceLROnPlateau`, whose `min_lr` is kept"
    ),
    "espnet.WarmupReduceLROnPlateau": (
        "Use `plateau` with `from_step` where the warmup ends, over a schedule that warms up"
    ),
}
