"""nnU-Net's trainer with a budget in passes over the data, restartable at any moment and reproducible."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any
from unittest import mock

import numpy as np
import torch
from batchgenerators.dataloading.data_loader import DataLoader
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.common import environment, host
from nnunet_ext.common.files import atomic
from nnunet_ext.common.provenance import versions
from nnunet_ext.trainers.fold_folder import FolderLock, check_fold, remove_partial, set_aside
from nnunet_ext.weights import read_checkpoint

CUDA = torch.device("cuda")
RUNS = "nnunet_ext_runs"  # among a checkpoint's init_args: budget, seed and versions since each start and --c
INITIAL_WEIGHTS, LOADERS = 2**32 - 1, 2**32 - 2  # stand where an epoch stands in the entropy of a seed


def tiles(shape: Sequence[int], patch_size: Sequence[int]) -> int:
    """Return how many patches tile an image; of a 2D patch that covers the slice, the number of slices.

    Args:
        shape: spatial shape of a preprocessed case, three axes.
        patch_size: two or three axes.
    """
    patch = (1,) * (len(shape) - len(patch_size)) + tuple(patch_size)
    return math.prod(math.ceil(s / p) for s, p in zip(shape, patch, strict=True))


def iterations_per_pass(dataset: nnUNetBaseDataset, patch_size: Sequence[int], global_batch_size: int) -> int:
    """Return the batches whose number of samples equals the patches that tile all cases of a preprocessed dataset."""
    total = sum(tiles(dataset.load_case(k)[0].shape[1:], patch_size) for k in dataset.identifiers)
    return max(1, math.ceil(total / global_batch_size))


def reseed(*entropy: int) -> None:
    """Seed Python's, numpy's and torch's generators from a tuple of non-negative integers."""
    a, b, c = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(a))
    np.random.seed(int(b))
    torch.manual_seed(int(c))


class SeedingLoader:
    """A data loader that seeds torch in the worker it is sent to, and has it compute with one thread there.

    batchgenerators seeds numpy there and then sets the worker's number; nnU-Net's transforms draw from torch as well,
    whose state all workers would have in common. A worker is forked when this process has used torch's threads, which
    a fork does not take along: whatever waited for them would wait for ever.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def set_thread_id(self, number: int) -> None:
        """Seed torch; called once in each worker, after numpy has been seeded."""
        torch.set_num_threads(1)
        torch.manual_seed(np.random.randint(2**31))
        self.loader.set_thread_id(number)

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        return next(self.loader)


def _seeded(
    loader: DataLoader, processes: int, entropy: tuple[int, ...], device: torch.device
) -> MultiThreadedAugmenter:
    """Return a loader with worker processes whose batches follow from `entropy` alone."""
    return MultiThreadedAugmenter(
        SeedingLoader(loader),
        None,
        processes,
        num_cached_per_queue=2,
        seeds=[int(s) for s in np.random.SeedSequence(entropy).generate_state(processes)],
        pin_memory=device.type == "cuda",
        wait_time=0.002,
    )


class Progress:
    """Reports at most every `interval` seconds how far an epoch is: a pass over LiTS has 23,000 iterations.

    Args:
        total: iterations of the epoch.
        report: takes one line of text.
        interval: seconds between two lines.
    """

    def __init__(self, total: int, report: Callable[[str], None], interval: float = 60) -> None:
        self.total, self.report, self.interval = total, report, interval
        self.done = 0
        self.start = self.last = monotonic()

    def step(self, loss: float) -> None:
        """Count an iteration."""
        self.done += 1
        now = monotonic()
        if now - self.last >= self.interval:
            self.last = now
            left = (now - self.start) / self.done * (self.total - self.done)
            self.report(f"iteration {self.done}/{self.total}, loss {loss:.4f}, {left / 60:.0f} min left in this epoch")


class PassTrainer(nnUNetTrainer):
    """Stock network and recipe; an epoch is a pass over the training cases.

    A pass draws as many samples as plan patches tile the training cases. They are drawn as nnU-Net draws them (with
    replacement, foreground oversampled), so a pass is a budget, not an enumeration. Validation during training is one
    pass over the validation cases, `max_val_iterations` at most.

    Checkpoints are moved into place atomically, every `save_every` epochs. What an earlier training left in the folder
    is set aside when there is the first of them, and no second training gets into the folder meanwhile.
    NNUNET_EXT_EPOCHS, NNUNET_EXT_ITERATIONS and NNUNET_EXT_VAL_ITERATIONS shorten a run; NNUNET_EXT_SEED makes it
    reproducible (bit for bit on a CPU with nnUNet_n_proc_DA=0): everything random in an epoch follows from
    (seed, epoch, rank).
    """

    num_passes: int = 50
    max_val_iterations: int = 250
    checkpoint_interval: int = 1  # epochs

    _best_ema: float | None  # nnU-Net's

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = CUDA,
    ) -> None:
        preprocessed = Path(os.environ.get("nnUNet_preprocessed", ""), PlansManager(plans).dataset_name)
        check_fold(fold, preprocessed)  # before nnU-Net makes the fold's folder
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = environment.integer(environment.EPOCHS) or self.num_passes
        self.save_every = self.checkpoint_interval
        self.seed = environment.integer(environment.SEED, minimum=0)
        self.progress: Progress | None = None
        self._iterations = environment.integer(environment.ITERATIONS)
        self._val_iterations = environment.integer(environment.VAL_ITERATIONS)
        self._lock = FolderLock(Path(self.output_folder))
        self._is_new = False  # its first checkpoint is still to come
        self._state_loaded = False
        self.begins_with = "random weights"
        self.best = -np.inf  # of what `ranked_by` returns, what checkpoint_best has

    def initialize(self) -> None:
        """Build network, optimiser and loss, from the seed if there is one."""
        if self.seed is not None:
            reseed(self.seed, INITIAL_WEIGHTS)
        super().initialize()
        host.unwrapped(self.network).register_load_state_dict_post_hook(self._note_loaded_state)

    def _note_loaded_state(self, *_: object) -> None:
        """Remember that a checkpoint has filled the network, and say so where it is another training's."""
        self._state_loaded = True
        if found := host.pretrained_weights():
            self.begins_with = f"{found[0]} (-pretrained_weights)"
            self.print_to_log_file(f"Training begins with {self.begins_with}")

    def on_train_start(self) -> None:
        """Open the data and set the length of an epoch."""
        if self.local_rank == 0 and not self.disable_checkpointing:
            self._lock.take()
            remove_partial(Path(self.output_folder))
            self._is_new = self.current_epoch == 0
        super().on_train_start()
        if self.current_epoch:
            self._restore_best()
        patch, batch = self.configuration_manager.patch_size, self.configuration_manager.batch_size
        train, val = (iterations_per_pass(d, patch, batch) for d in self.get_tr_and_val_datasets())
        self.num_iterations_per_epoch = self._iterations or train
        self.num_val_iterations_per_epoch = self._val_iterations or min(val, self.max_val_iterations)
        self.print_to_log_file(
            f"{self.num_epochs} epochs of {self.num_iterations_per_epoch} iterations; a pass over the training cases "
            f"is {train} iterations of {batch} samples. Validation: {self.num_val_iterations_per_epoch} iterations."
        )
        self._record_run(train, min(val, self.max_val_iterations))

    def _record_run(self, iterations: int, val_iterations: int) -> None:
        """Say and store with what budget, seed and versions this training runs, and what differs from before `--c`.

        Args:
            iterations, val_iterations: of a pass.
        """
        run: dict[str, Any] = {
            "budget": {
                "epochs": self.num_epochs,
                "iterations": self.num_iterations_per_epoch,
                "validation iterations": self.num_val_iterations_per_epoch,
            },
            "seed": self.seed,
            "versions": versions(),
        }
        changed = {
            environment.EPOCHS: (self.num_epochs, self.num_passes, "the paper's", "passes"),
            environment.ITERATIONS: (self._iterations or iterations, iterations, "a pass's", "iterations"),
            environment.VAL_ITERATIONS: (
                *(self._val_iterations or val_iterations, val_iterations),
                *("a pass's", "validation iterations"),
            ),
        }
        for variable, (ours, whole, whose, what) in changed.items():
            if ours != whole:
                share = "NOT THE WHOLE BUDGET" if ours < whole else "MORE THAN THE BUDGET"
                self.print_to_log_file(f"{share}: {ours} of {whose} {whole} {what} ({variable}={ours})")
        self.print_to_log_file(f"Seed: {'none' if self.seed is None else self.seed} ({environment.SEED})")
        self.print_to_log_file(f"Versions: {', '.join(f'{name} {v}' for name, v in run['versions'].items())}")
        stored = self.my_init_kwargs.setdefault(RUNS, [])  # which goes into every checkpoint, and comes back with --c
        for what, now in run.items() if stored else ():
            if (before := stored[-1][what]) != now:
                self.print_to_log_file(f"WARNING: this training goes on with another {what}: {now} (before: {before})")
        stored.append({"epoch": self.current_epoch, "begins_with": self.begins_with, **run})

    def on_train_end(self) -> None:
        """Do what nnU-Net does, and let others train in the folder."""
        super().on_train_end()
        self._lock.release()

    def ranked_by(self, logging: Mapping[str, Sequence[float]]) -> Sequence[float]:
        """Return by epoch, of a logger's or a checkpoint's content, what `checkpoint_best` has the highest of."""
        return logging["ema_fg_dice"]

    def _restore_best(self) -> None:
        """Let checkpoint_best be what it would be without the interruption.

        nnU-Net saves checkpoint_latest before it looks whether the epoch is the best, and what checkpoint_latest knows
        of the best is older: the next epoch could replace a better one.
        """
        file = Path(self.output_folder) / "checkpoint_best.pth"
        *before, last = self.ranked_by(self.logger.get_checkpoint())
        known = [value for value in before if not np.isnan(value)]
        if file.is_file():  # of an epoch after checkpoint_latest, perhaps
            known.append(self.ranked_by(read_checkpoint(file)["logging"])[-1])
        best = max(known, default=-np.inf)
        self.best = last if last > best else best
        if self._best_ema != np.inf:  # which says that checkpoint_best is not chosen by it
            self._best_ema = self.best
        if last > best:
            self.current_epoch -= 1  # as in nnU-Net, which saves before it counts
            self.save_checkpoint(str(file))
            self.current_epoch += 1

    def get_dataloaders(self) -> tuple:
        """Return nnU-Net's loaders; with a seed, batchgenerators' ordered ones."""
        if self.seed is None:
            return super().get_dataloaders()
        processes = get_allowed_n_proc_DA()
        with mock.patch.dict(os.environ, nnUNet_n_proc_DA="0"):
            loaders = super().get_dataloaders()
        if processes == 0:
            return loaders
        entropy = (self.seed, LOADERS, self.current_epoch, self.local_rank)
        return tuple(
            _seeded(loader.data_loader, n, (*entropy, i), self.device)
            for i, (loader, n) in enumerate(zip(loaders, (processes, max(1, processes // 2)), strict=True))
        )

    def on_train_epoch_start(self) -> None:
        """Reseed, and start counting iterations."""
        super().on_train_epoch_start()
        if self.seed is not None:
            reseed(self.seed, self.current_epoch, self.local_rank)
        self.progress = Progress(self.num_iterations_per_epoch, self.print_to_log_file)

    def train_step(self, batch: dict) -> dict:
        """Do nnU-Net's training step and count it."""
        result = super().train_step(batch)
        if self.progress is not None:
            self.progress.step(float(result["loss"]))
        return result

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Do what nnU-Net does, without letting one epoch without foreground freeze checkpoint_best.

        The Dice of such an epoch is undefined; nnU-Net's moving average would stay undefined ever after, and nothing
        is better than an undefined best.
        """
        super().on_validation_epoch_end(val_outputs)
        dice, average = (self.logger.get_value(key, step=None) for key in ("mean_fg_dice", "ema_fg_dice"))
        if np.isnan(dice[-1]):
            average[-1] = average[-2] if len(average) > 1 else 0.0
        elif np.isnan(dice[:-1]).all():
            average[-1] = dice[-1]  # the first that is defined starts the average

    def save_checkpoint(self, filename: str) -> None:
        """Move a checkpoint into place: a kill leaves the previous one or the new one, both whole."""
        if self.local_rank or self.disable_checkpointing:
            super().save_checkpoint(filename)  # which writes none then, and says so
            return
        self.set_former_aside()
        with atomic(Path(filename), sync=True) as partial:
            super().save_checkpoint(str(partial))

    def set_former_aside(self) -> None:
        """Move what an earlier training left away, once this one has something to put in its place."""
        if self._is_new and not self.local_rank:
            self._is_new = False
            if place := set_aside(Path(self.output_folder), Path(self.log_file)):
                self.print_to_log_file(f"An earlier training's checkpoints, validation and logs are in {place} now.")


class nnUNetTrainerMatchedBudget(PassTrainer):
    """Stock nnU-Net network and recipe for the liver paper's 50 passes, hence the same number of samples."""


class nnUNetTrainerMatchedBudget400(PassTrainer):
    """Stock nnU-Net network and recipe for the ultrasound paper's 400 passes."""

    num_passes = 400
    checkpoint_interval = 10
