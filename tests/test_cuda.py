"""What is computed on a GPU is what a CPU computes, and training, AMP, compilation and prediction work there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import training
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from training import images, model_folder, predict, train

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # torch's compiler warns of itself, of something else in every version; the CPU's tests stop at warnings
    pytest.mark.filterwarnings("ignore"),
]
CUDA = torch.device("cuda")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the trainers of `training` compute on the GPU."""
    monkeypatch.setattr(training, "CPU", CUDA)
    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", "random")


def predict_on_gpu(folder: Path, cases: list[list[str]]) -> list[np.ndarray]:
    predictor = nnUNetPredictor(device=CUDA, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    return predictor.predict_from_files_sequential(cases, None)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    ("trainer", "dataset", "configuration"),
    [
        ("nnUNetTrainerRAUNet", 29, "2d"),
        ("nnUNetTrainerUNet3D", 29, "3d_fullres"),
        ("nnUNetTrainerMatchedBudget", 29, "2d"),
        ("nnUNetTrainerSAMUSHFTiny", 34, "2d"),
    ],
)
def test_trains_and_predicts_what_a_cpu_predicts(
    trainer: str,
    dataset: int,
    configuration: str,
    compiled: bool,
    datasets: Path,
    kinds: Path,
    on_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("nnUNet_compile", "t" if compiled else "f")
    plans = "nnUNetRAUNetPlans"
    train(trainer, dataset, configuration, plans)
    torch._dynamo.reset()
    folder = model_folder(datasets, trainer, plans, configuration, dataset)
    monkeypatch.setattr(training, "CPU", torch.device("cpu"))
    monkeypatch.setenv("nnUNet_compile", "f")
    case = images(kinds, dataset)[:1]
    [on_gpu_mask], [on_cpu_mask] = predict_on_gpu(folder, case), predict(folder, case)
    # half precision moves a voxel at a tie, and an untrained network has many near ties
    assert np.mean(on_gpu_mask != on_cpu_mask) < 0.02


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("trainer", ["nnUNetTrainerRAUNet", "nnUNetTrainerUNet", "nnUNetTrainerSAMUSHFTiny"])
def test_outputs_and_gradients_are_those_of_a_cpu(
    trainer: str, recompute: bool, datasets: Path, kinds: Path, on_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNET_EXT_RECOMPUTE", "1" if recompute else "0")
    made = training.make(trainer, 34)
    made.initialize()
    network = made.network.eval().double()  # in which rounding is no excuse
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for device in (CUDA, torch.device("cpu")):
        network.to(device).zero_grad()
        output = network(image.to(device))
        output = output[0] if isinstance(output, (list, tuple)) else output
        output.square().mean().backward()
        gradients = {n: p.grad.cpu().clone() for n, p in network.named_parameters() if p.grad is not None}
        found.append((output.detach().cpu(), gradients))
    (gpu, gpu_gradients), (cpu, cpu_gradients) = found
    torch.testing.assert_close(gpu, cpu, rtol=1e-5, atol=1e-6)
    assert gpu_gradients.keys() == cpu_gradients.keys()
    scale = max(float(g.abs().max()) for g in cpu_gradients.values())
    for name, gradient in cpu_gradients.items():
        difference = float((gpu_gradients[name] - gradient).abs().max())
        assert difference < 1e-5 * scale, name


def test_a_session_on_the_gpu_draws_the_same_mask(datasets: Path, kinds: Path, on_gpu: None) -> None:
    import nnunet_ext

    train("nnUNetTrainerSAMUSHFTiny", 34)
    folder = model_folder(datasets, "nnUNetTrainerSAMUSHFTiny", dataset=34)
    masks = []
    for device in ("cuda", "cpu"):
        session = nnunet_ext.Session(folder, device=device)
        session.set_image(images(kinds, 34)[0][0])
        session.add_point(18, 20)
        masks.append(session.probability())
    assert np.allclose(*masks, atol=2e-2)  # half precision on the one, single on the other
