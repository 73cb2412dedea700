"""Names of settings and commands in other tools, and what to type here instead."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from sst2_ray.errors import did_you_mean, nearest

T = TypeVar("T")

FLAGS = {
    "learning_rate": "lr lrs max_lr peak_lr base_lr",
    "batch_size": "bs batch batchsize global_batch_size train_batch_size per_device_train_batch_size per_device_batch_size "
    "per_gpu_train_batch_size",
    "epochs": "num_epochs epoch num_train_epochs max_epochs n_epochs nb_epochs",
    "max_steps": "max_train_steps num_steps steps total_steps training_steps",
    "weight_decay": "wd decay l2",
    "warmup_fraction": "warmup_ratio warmup warmup_steps num_warmup_steps lr_warmup_steps",
    "max_length": "max_seq_length max_seq_len max_sequence_length seq_len seq_length model_max_length max_len block_size",
    "model": "model_name model_name_or_path model_id pretrained_model_name_or_path base_model checkpoint encoder",
    "tokenizer": "tokenizer_name tokenizer_name_or_path",
    "data": "dataset dataset_name data_dir data_path dataset_path train_file train_data training_data data_files task "
    "task_name csv",
    "dev_data": "validation_file eval_file val_file dev_file test_file eval_data validation_data val_data eval_dataset",
    "holdout_fraction": "validation_split val_split validation_split_percentage test_size val_size",
    "train_rows": "max_train_samples limit_train_batches num_train_samples subset",
    "dev_rows": "max_eval_samples max_val_samples limit_val_batches",
    "text_column": "text_field text_col text_column_name text_column_names sentence_column input_column text_key",
    "label_column": "label_field label_col label_column_name target_column target label_key",
    "max_grad_norm": "clip grad_clip gradient_clip gradient_clip_val gradient_clipping clip_grad_norm",
    "patience": "early_stopping_patience early_stopping early_stop",
    "precision": "fp16 bf16 mixed_precision amp dtype torch_dtype tf32 half",
    "seed": "random_seed seed_everything random_state data_seed",
    "num_seeds": "seeds n_seeds repeats",
    "storage_path": "output_dir out_dir save_dir default_root_dir root_dir results_dir log_dir logdir logging_dir local_dir "
    "project_dir output_path",
    "name": "run_name experiment_name exp_name job_name",
    "checkpoint_every_steps": "save_steps checkpointing_steps checkpoint_freq save_every",
    "keep_checkpoints": "save_total_limit save_top_k num_to_keep checkpoints_total_limit",
    "evaluations_per_epoch": "eval_steps evaluation_strategy eval_strategy val_check_interval eval_every eval_interval",
    "choose_by": "metric_for_best_model metric monitor best_metric objective",
    "num_workers": "workers n_workers num_gpus n_gpus n_gpu ngpus gpus devices num_processes nproc_per_node num_devices "
    "world_size dataloader_num_workers",
    "use_gpu": "gpu cuda accelerator device no_cuda cpu use_cpu",
    "cpus_per_worker": "num_cpus cpus cpus_per_trial num_threads threads",
    "engine": "strategy deepspeed ds_config zero_stage use_deepspeed fsdp",
    "compile": "torch_compile",
    "attention": "attn_implementation use_flash_attention_2 flash_attention",
    "label_smoothing": "label_smoothing_factor smoothing",
    "dry_run": "dryrun plan fast_dev_run",
    "trackers": "report_to logger wandb mlflow tensorboard with_tracking log_with tracker",
    "max_retries": "max_failures max_restarts retries fault_tolerance",
    "num_samples": "num_trials n_trials trials samples",
    "search": "search_alg sampler search_algorithm",
    "scheduler": "pruner",
    "max_concurrent": "max_concurrent_trials n_jobs jobs parallel",
    "budget_hours": "time_budget_s time_budget max_time timeout",
    "out": "output_file out_file save_to destination",
    "input": "input_file file test_data predict_file",
    "text": "sentence sentences texts prompt",
    "model_dir": "model model_path model_name_or_path checkpoint run",
    "lines": "tail n num_lines",
    "watch": "follow f",
    "limit": "top n head",
}  # fmt: skip
"""Field here -> names in other tools, separated by blanks."""

ADVICE = {
    "gradient_accumulation_steps accumulate_grad_batches grad_accum accumulation_steps micro_batch_size": "--batch-size is the "
    "whole batch, over all workers; gradients accumulate by themselves, --micro-batch-tokens bounds their memory",
    "num_seeds seeds n_seeds repeats": "a run has one --seed; sst2-ray sweep --num-seeds runs several",
    "resume resume_from_checkpoint ckpt_path overwrite_output_dir restore": "the same command resumes an interrupted run; a "
    "new --name begins anew",
    "lr_scheduler_type lr_scheduler scheduler_type": "the learning rate rises over --warmup-fraction and falls linearly to 0",
    "optim optimizer": "the optimizer is AdamW: --weight-decay, --adam-beta1, --adam-beta2, --adam-eps",
    "logging_steps log_every_n_steps log_every": "logs/ in the run's folder has the steps; sst2-ray status shows the newest",
    "do_train do_eval do_predict train": "no flag is needed: train scores every epoch, sst2-ray predict labels",
    "num_nodes nnodes num_machines main_process_port master_port local_rank": "workers are placed on the nodes of the "
    "cluster: --num-workers",
    "per_device_eval_batch_size eval_batch_size val_batch_size": "evaluations choose their batches; --micro-batch-tokens "
    "bounds the memory of training",
    "save_strategy load_best_model_at_end": "the best epoch's model is kept always: sst2-ray train --help-all, Checkpoints",
    "push_to_hub hub_model_id": "sst2-ray push uploads a finished model",
    "cache_dir": "HF_HOME in the environment names the cache",
    "hf_token token use_auth_token": "HF_TOKEN in the environment is used",  # nosec B105: names of flags
    "trust_remote_code": "code of the hub is never run",
    "num_labels": "the classes are read from the data; --labels names them",
    "verbose v debug log_level q quiet": "everything is in logs/ of the run's folder: sst2-ray logs NAME",
    "yes y force": "nothing asks; no flag is needed",
    "ray_address address": "RAY_ADDRESS in the environment names the cluster; without it Ray starts here",
}  # fmt: skip
"""Names in other tools, separated by blanks -> what stands in for them, where no flag of the command does."""

COMMANDS = {
    "train": "fit finetune fine-tune run start",
    "sweep": "tune hpo search grid optimize hyperparameter-search",
    "ls": "list runs",
    "status": "ps show info describe watch progress",
    "logs": "log tail",
    "stop": "kill cancel abort terminate",
    "results": "leaderboard rank table result",
    "report": "html plot plots summary",
    "compare": "diff versus",
    "predict": "infer inference label classify evaluate eval test score",
    "export": "convert onnx openvino quantize",
    "push": "upload publish",
    "serve": "deploy server",
    "doctor": "check validate lint diagnose",
    "up": "launch create provision cluster",
    "submit": "job jobs exec",
    "cost": "price prices bill",
    "down": "teardown destroy delete",
    "gc": "clean cleanup prune rm",
    "presets": "preset experiments recipes examples",
    "completion": "complete autocomplete",
}
"""Command here -> names in other tools, separated by blanks."""

COMMAND_ADVICE = {
    "resume restart continue": "give the interrupted command again: it goes on where it stopped",
    "models datasets data": "sst2-ray train --help names the models and the data",
    "init login config configure setup": "nothing needs setting up; begin with sst2-ray train --preset demo",
}
"""Names of commands in other tools, separated by blanks -> what stands in for them here."""


def _plain(word: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower().replace("-", "_").lstrip("_")


def hint(
    spelled: str,
    fields: Collection[str],
    *,
    show: Callable[[str], str] = str,
    is_training: bool = True,
    otherwise: str = "sst2-ray train --help-all lists the settings",
) -> str:
    """Return the end of the line that refuses an unknown flag, key or keyword: the field that was meant, advice, or where to look.

    Args:
        spelled: The name as typed.
        fields: Fields that there are.
        show: How a field is written where the name stood, e.g. as its flag.
        is_training: Whether these are settings of training, which the advice is for.
        otherwise: Where to look.
    """
    name = _plain(spelled)
    meant = [field for field, others in FLAGS.items() if name in others.split() or name == field]
    known = [one for field in meant for one in (field, f"{field}s") if one in fields]
    if name in fields or known:
        return f"did you mean {show(name if name in fields else known[0])}?"
    for words, advice in ADVICE.items():
        if name in words.split() and is_training:
            return advice
    near = nearest(name, fields)
    return f"did you mean {' or '.join(map(show, near))}?" if near else otherwise


def say_what_was_meant(
    within: Mapping[str, type] | None = None, hidden: Collection[str] = ()
) -> Callable[[type[T]], type[T]]:
    """Make a decorator of dataclasses: a keyword that is no field is a TypeError with the field that was meant.

    Args:
        within: Fields that hold a dataclass themselves, whose fields may be meant as well.
        hidden: Fields of those that are never meant.
    """
    inner = {
        name: f"{field}={cls.__name__}({name}=...)"
        for field, cls in (within or {}).items()
        for name in vars(cls)["__dataclass_fields__"]
        if name not in hidden
    }

    def decorate(cls: type[T]) -> type[T]:
        fields, init = vars(cls)["__dataclass_fields__"], cls.__init__
        shown = inner | {name: name for name in fields}

        @functools.wraps(init)
        def checked(self: T, *args: object, **values: object) -> None:
            if unknown := [name for name in values if name not in fields]:
                raise TypeError(
                    f"{cls.__name__}: no setting {unknown[0]!r}; {hint(unknown[0], shown, show=shown.__getitem__)}"
                )
            init(self, *args, **values)

        cls.__init__ = checked  # type: ignore[assignment, method-assign]
        return cls

    return decorate


def command_hint(spelled: str, commands: Iterable[str]) -> str:
    """Return the end of the line that refuses an unknown command: the one that was meant, or where they are listed."""
    name, known = _plain(spelled).replace("_", "-"), list(commands)
    for command, others in COMMANDS.items():
        if name == command or name in others.split():
            return f"did you mean {command}?"
    for words, advice in COMMAND_ADVICE.items():
        if name in words.split():
            return advice
    near = did_you_mean(name, known)
    return near if near.startswith("did") else "sst2-ray --help lists them"
