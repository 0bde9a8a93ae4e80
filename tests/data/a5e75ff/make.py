"""Write the files of this folder with a checkout of commit a5e75ff, whose package and tests must be importable.

PYTHONPATH=CHECKOUT:CHECKOUT/tests python make.py

Weights and moments are patterns that repeat themselves, for files that compress to nothing and outputs that are not
trivial; everything else is what that commit wrote by itself.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import sys
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace

os.environ.update(nnUNet_def_n_proc="1", nnUNet_compile="f", NNUNET_EXT_SLIM_CHECKPOINTS="1")
os.environ.update({f"NNUNET_EXT_{name}": "1" for name in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS")})
HERE = Path(__file__).resolve().parent
ROOT = Path(tempfile.mkdtemp())
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    (ROOT / name).mkdir()
    os.environ[name] = str(ROOT / name)

import tiny  # noqa: E402
import torch  # noqa: E402
from nnunetv2.run.run_training import get_trainer_from_args  # noqa: E402

from nnunet_ext import registry  # noqa: E402
from nnunet_ext.cli import main  # noqa: E402

MODELS = (
    (29, "nnUNetTrainerRAUNet", "nnUNetRAUNetPlans"),
    (35, "nnUNetTrainerSAMUSHFTiny", "nnUNetSAMUSPlans"),
)


def repeat(t: torch.Tensor, name: str) -> None:
    """Fill a tensor with a pattern of seven values, of a size that suits its number of inputs."""
    step = 1 + zlib.crc32(name.encode()) % 6
    values = ((torch.arange(t.numel()) * step) % 7 - 3.0).to(t.dtype).view(t.shape)
    t.copy_(values / 2 / max(1, t[0].numel() if t.ndim else 1) ** 0.5 + (name.endswith("norm.weight")))


def image(size: tuple[int, int]) -> torch.Tensor:
    """Return an image (1, 1, H, W) in [0, 1] that follows from its size."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    return (0.5 + 0.3 * torch.sin(9 * x + 4 * y) + 0.2 * torch.cos(7 * x * y))[None, None]


def model(dataset: int, trainer_name: str, plans: str) -> None:
    """Store a trained model's folder, and what its network computes."""
    trainer = get_trainer_from_args(str(dataset), "2d", 0, trainer_name, plans, device=torch.device("cpu"))
    trainer.run_training()  # which writes checkpoint_final and checkpoint_best
    folder = Path(trainer.output_folder)
    with torch.no_grad():
        for key, tensor in trainer.network.state_dict().items():
            if tensor.is_floating_point():
                repeat(tensor, key)
        for state in trainer.optimizer.state.values():
            for key in ("exp_avg", "exp_avg_sq"):
                repeat(state[key], key)
    trainer.current_epoch = 0
    trainer.save_checkpoint(str(folder / "checkpoint_latest.pth"))
    if trainer_name != "nnUNetTrainerRAUNet":
        trainer.optimizer.state.clear()  # one checkpoint with moments is enough
        trainer.save_checkpoint(str(folder / "checkpoint_best.pth"))
    out = HERE / trainer_name
    out.mkdir(exist_ok=True)
    for file in folder.glob("checkpoint_*.pth"):
        if file.name != "checkpoint_final.pth" and (file.name != "checkpoint_best.pth" or dataset != 29):
            (out / f"{file.name}.xz").write_bytes(lzma.compress(file.read_bytes(), preset=9))
    for name in ("plans.json", "dataset.json"):
        (out / name).write_bytes((folder.parent / name).read_bytes())
    with torch.no_grad():
        logits = trainer.network.eval()(image((40, 40) if dataset == 29 else (256, 256)))
    numbers = {"sum": logits.double().sum().item(), "squares": logits.double().square().sum().item()}
    numbers["some"] = logits[0, 1, :: logits.shape[-2] // 8, :: logits.shape[-1] // 8].tolist()
    (out / "logits.json").write_text(json.dumps(numbers, indent=1) + "\n")


def state_dicts() -> dict[str, list]:
    """Return the number of tensors of every trainer's network, and the checksum of names, shapes and types."""
    found = {}
    for entry in registry.entries("trainer"):
        trainer = entry.load()
        if not hasattr(trainer, "build_network"):
            continue
        with torch.device("meta"):
            network = trainer.build_network(
                SimpleNamespace(normalization_schemes=["RGBTo01Normalization"]), 1, 2, False
            )
        lines = [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in network.state_dict().items()]
        found[entry.name] = [len(lines), hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()]
    return found


if __name__ == "__main__":
    tiny.make_raw(29, tiny.BINARY)
    tiny.make_raw(35, tiny.BINARY, channels=("ultrasound",), png=True)
    tiny.plan_and_preprocess(29)
    tiny.plan_and_preprocess(35, "SAMUSPlanner")
    os.environ["nnUNet_n_proc_DA"] = "0"
    for arguments in MODELS:
        model(*arguments)
    raw = ROOT / "nnUNet_raw" / "Dataset035_Tiny"
    trained = ROOT / "nnUNet_results" / "Dataset035_Tiny" / "nnUNetTrainerSAMUSHFTiny__nnUNetSAMUSPlans__2d"
    options = ("-i", raw / "imagesTr", "-o", ROOT / "out", "--from-reference", raw / "labelsTr", "-device", "cpu")
    assert main([*map(str, ("predict", "-m", trained, *options))]) == 0
    record = (ROOT / "out" / "prompts_used.json").read_text()
    (HERE / "prompts_used.json").write_text(record.replace(str(ROOT), "ROOT"))
    (HERE / "state_dicts.json").write_text(json.dumps(state_dicts(), indent=1) + "\n")
    sys.stdout.write(f"{HERE}: {sum(f.stat().st_size for f in HERE.rglob('*') if f.is_file()):,} bytes\n")
