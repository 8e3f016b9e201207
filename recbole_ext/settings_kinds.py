"""Settings by what they are for: what a warm start, a resume or a digest of settings leaves out."""

STAGE_KEYS = {
    "epochs",
    "learning_rate",
    "train_batch_size",
    "stopping_step",
    "weight_decay",
    "callbacks",
    "output_dir",
    "model",
    "dataset",
    "pretrain",
    "pretrained_path",
    "pretrain_epochs",
    "pretrain_config",
    "allow_keys",
    "learner",
    "clip_grad_norm",
    "enable_amp",
    "enable_scaler",
    "eval_step",
    "valid_metric",
    "metrics",
    "topk",
}
"""Settings of a training, not of what is trained: a warm start does not take them over."""

WARM_START_KEYS = {
    "pretrain": "auto",
    "pretrained_path": None,
    "pretrain_epochs": None,
    "pretrain_config": None,
}
"""Settings that only models with a warm start read, and their defaults."""

PLACE_KEYS = {
    "features_dir",
    "accelerate",
    "malloc_tuning",
    "eval_memory_mib",
    "memory_limit_mib",
    "memory_dir",
    "output_dir",
    "data_path",
    "checkpoint_dir",
    "show_progress",
    "state",
    "gpu_id",
    "use_gpu",
    "log_wandb",
    "wandb_project",
    "save_dataset",
    "save_dataloaders",
    "dataset_save_path",
    "dataloaders_save_path",
    "worker",
}
"""Settings of where and how a run is done: they do not change its result."""

RESUME_KEYS = {
    "epochs",
    "stopping_step",
    "show_progress",
    "state",
    "gpu_id",
    "use_gpu",
    "data_path",
    "eval_memory_mib",
    "memory_limit_mib",
    "memory_dir",
}
"""Settings that a resume may change."""

OF = ("item", "user")
"""What a feature has a row for."""
