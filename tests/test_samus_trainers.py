"""The ultrasound trainers under nnU-Net's own training function, with a tiny vision transformer."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from commands import folders
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import maybe_load_checkpoint, run_training
from training import (
    CPU,
    checkpoint,
    images,
    make,
    model_folder,
    one_fast,
    predict,
    resumed_equals_whole,
    train,
    two_processes,
)

from nnunet_ext import registry
from nnunet_ext.architectures.samus import checkpoint as sam_checkpoint
from nnunet_ext.architectures.samus.image_encoder import VIT_TINY
from nnunet_ext.architectures.samus.models import SAM, SAMUS, SAMUSHF
from nnunet_ext.architectures.samus.segmenter import PromptableSegmenter
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import sha256
from nnunet_ext.inference.prompts import random_clicks
from nnunet_ext.trainers.pass_trainer import RUNS
from nnunet_ext.trainers.prompted_recipe import PromptedRecipe
from nnunet_ext.weights import read_state_dict

PLANS = "nnUNetSAMUSPlans"
TRAINERS = [e for e in registry.entries("trainer") if e.planner == "SAMUSPlanner"]
BUSI = 35  # PNG, 36 x 40 pixels, one class
HF = "nnUNetTrainerSAMUSHF"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PNG dataset with one class, 35, with SAMUSPlanner's plans."""
    root = tmp_path_factory.mktemp("ultrasound")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in folders(root).items():
            patch.setenv(name, value)
        tiny.make_raw(35, tiny.BINARY, channels=("ultrasound",), png=True)
        tiny.plan_and_preprocess(35, "SAMUSPlanner")
    return root


@pytest.fixture(scope="module")
def more(prepared: Path) -> Path:
    """35 with stock plans as well, and two datasets more: 36 classes, 37 regions."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in folders(prepared).items():
            patch.setenv(name, value)
        for dataset_id, labels in ((36, tiny.CLASSES), (37, tiny.REGIONS)):
            tiny.make_raw(dataset_id, labels, channels=("ultrasound",), png=True)
            tiny.plan_and_preprocess(dataset_id, "SAMUSPlanner")
        tiny.plan_and_preprocess(35, "ExperimentPlanner")
    return prepared


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny transformer, and no SAM file."""
    for entry in TRAINERS:
        monkeypatch.setattr(entry.load(), "vit", VIT_TINY)
    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", "random")


@pytest.mark.parametrize("entry", one_fast([e for e in TRAINERS if "1024" not in e.name], HF))
def test_every_trainer_trains_validates_and_predicts(entry: registry.Entry, datasets: Path, prepared: Path) -> None:
    train(entry.name, BUSI, plans=PLANS)
    folder = model_folder(datasets, entry.name, PLANS, dataset=BUSI)
    summary = json.loads((folder / "fold_0" / "validation" / "summary.json").read_text())
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1
    assert len(summary["metric_per_case"]) == 2
    case = images(prepared, BUSI)[:1]
    if "Click" in entry.name:
        with pytest.raises(InputError, match="nnunet_ext predict"):
            predict(folder, case)
    else:
        assert predict(folder, case)[0].shape == (1, 40, 36)


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "channels"), [(36, 3), (37, 2)], ids=["classes", "regions"])
def test_classes_and_regions(dataset: int, channels: int, datasets: Path, more: Path) -> None:
    train(HF, dataset, plans=PLANS)
    folder = model_folder(datasets, HF, PLANS, dataset=dataset)
    tokens = checkpoint(folder)["network_weights"]["prompts.seg_layers.tokens"]
    assert tokens.shape == (2, 2, VIT_TINY.out_channels)
    [segmentation] = predict(folder, images(more, dataset)[:1])
    assert segmentation.shape == (1, 40, 36)
    predictor = nnUNetPredictor(device=CPU, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    with torch.no_grad():
        assert predictor.network.eval()(torch.rand(1, 1, 256, 256)).shape == (1, channels, 256, 256)


@pytest.mark.slow
def test_stock_plans_rescale_and_say_so(datasets: Path, more: Path, capsys: pytest.CaptureFixture) -> None:
    train(HF, BUSI, plans="nnUNetPlans")
    out = capsys.readouterr().out
    assert "ZScoreNormalization does not give [0, 1]: every sample is rescaled" in out
    assert "-pl SAMUSPlanner" in out
    assert predict(model_folder(datasets, HF, "nnUNetPlans", dataset=BUSI), images(more, BUSI)[:1])


def test_recipe(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNUNET_EXT_EPOCHS")
    trainer = initialized(HF)
    assert (trainer.num_epochs, trainer.save_every, trainer.batch_size) == (400, 10, 4)
    assert trainer.inference_allowed_mirroring_axes is None
    group = trainer.optimizer.param_groups[0]
    assert isinstance(trainer.optimizer, torch.optim.Adam)
    assert (group["lr"], group["weight_decay"]) == (5e-4, 0)
    trained = {id(p) for p in trainer.network.parameters() if p.requires_grad}
    assert {id(p) for p in group["params"]} == trained
    trainer.lr_scheduler.step(399)
    assert group["lr"] == 5e-4


def initialized(trainer: str, dataset: int = BUSI):
    trainer = make(trainer, dataset, plans=PLANS)
    trainer.initialize()
    return trainer


@pytest.mark.slow
def test_only_what_is_trained_has_gradients_and_optimizer_state(datasets: Path) -> None:
    trainer = initialized(HF)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    before = {n: t.clone() for n, t in trainer.network.state_dict().items()}
    for _ in range(2):  # the high-frequency stem has a gradient from the second step on
        trainer.train_step(next(trainer.dataloader_train))
    trained = {n for n, p in trainer.network.named_parameters() if p.requires_grad}
    changed = {n for n, t in trainer.network.state_dict().items() if not torch.equal(t, before[n])}
    assert changed <= trained
    assert {n for n in trained if "Space_Adapter.k.bias" not in n} <= changed
    assert len(trainer.optimizer.state) == len(trained)
    assert all(p.grad is None for n, p in trainer.network.named_parameters() if n not in trained)
    trainer.on_train_end()


@pytest.mark.slow
def test_one_seed_pairs_the_ablation(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Common initial weights, data, clicks: and, before anything is learnt, the same loss bit for bit."""
    monkeypatch.setenv("NNUNET_EXT_SEED", "7")
    seen = []
    for name in ("nnUNetTrainerSAMUS", "nnUNetTrainerSAMUSHF", "nnUNetTrainerSAMUSHFControl"):
        trainer = initialized(name)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        batches = [next(trainer.dataloader_train) for _ in range(2)]
        points, _ = random_clicks(*trainer.maps(batches[0]["target"]), trainer._click_generator)
        trainer.on_train_epoch_start()
        loss = trainer.train_step(batches[0])["loss"]
        seen.append((trainer.network.state_dict(), batches[1]["data"], points, loss))
        trainer.on_train_end()
    samus, *others = seen
    for other in others:
        assert torch.equal(samus[1], other[1])
        assert torch.equal(samus[2], other[2])
        assert samus[3] == other[3]
    first = initialized("nnUNetTrainerSAMUS").network.state_dict()
    for name in ("nnUNetTrainerSAMUSHF", "nnUNetTrainerSAMUSHFControl"):
        state = initialized(name).network.state_dict()
        assert all(torch.equal(state[n], t) for n, t in first.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "slim"),
    [(HF, False), (HF, True), ("nnUNetTrainerSAMUSHFLiteralGate", True)],
    ids=["whole", "slim", "norm"],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    trainer: str, slim: bool, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNET_EXT_SLIM_CHECKPOINTS", str(int(slim)))
    monkeypatch.setattr(PromptedRecipe, "checkpoint_interval", 1)
    monkeypatch.setattr(PromptedRecipe, "correction_share", 1.0)  # of the half with clicks
    latest, final = resumed_equals_whole(trainer, BUSI, PLANS, datasets, tmp_path / "again", monkeypatch)
    assert (len(latest["network_weights"]) < len(final["network_weights"])) == slim


@pytest.mark.slow
def test_slim_checkpoint_without_its_other_part(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNET_EXT_SLIM_CHECKPOINTS", "1")
    trainer = initialized(HF)
    latest = str(Path(trainer.output_folder) / "checkpoint_latest.pth")
    trainer.save_checkpoint(latest)
    initialized(HF).load_checkpoint(latest)
    trainer.slim.file.unlink()
    with pytest.raises(InputError, match=r"checkpoint_frozen\.pth is gone"):
        initialized(HF).load_checkpoint(latest)


@pytest.mark.slow
def test_validation_takes_the_same_samples_in_every_epoch(datasets: Path) -> None:
    trainer = initialized(HF)
    trainer.on_train_start()
    passes = []
    for _ in range(2):
        trainer.on_validation_epoch_start()
        drawn = np.random.get_state()[1].copy()
        batch = next(trainer.dataloader_val)
        assert np.array_equal(drawn, np.random.get_state()[1])
        passes.append((list(batch["keys"]), batch["data"]))
        np.random.rand()
    assert passes[0][0] == passes[1][0] == ["case_2", "case_3", "case_2", "case_3"]
    assert torch.equal(passes[0][1], passes[1][1])
    trainer.on_train_end()


@pytest.mark.slow
def test_best_checkpoint_is_that_of_the_lowest_validation_loss(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET_EXT_EPOCHS", "4")
    losses = iter([0.5, 0.7, 0.3, 0.4])
    original = PromptedRecipe.on_validation_epoch_end

    def replace_loss(self: PromptedRecipe, outputs: list) -> None:
        loss = next(losses)
        original(self, [{**o, "loss": np.float32(loss)} for o in outputs])

    monkeypatch.setattr(PromptedRecipe, "on_validation_epoch_end", replace_loss)
    train("nnUNetTrainerSAMUS", BUSI, plans=PLANS, disable_checkpointing=False)
    best = checkpoint(model_folder(datasets, "nnUNetTrainerSAMUS", PLANS, dataset=BUSI), "best")
    assert best["current_epoch"] == 3


@pytest.mark.slow
def test_training_without_sam_is_an_error_that_says_what_to_do(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", str(tmp_path / "sam_vit_b.pth"))
    with pytest.raises(InputError, match=r"sam_vit_b.pth does not exist(.|\n)*nnunet_ext weights download"):
        train("nnUNetTrainerSAMUS", BUSI, plans=PLANS)
    train("nnUNetTrainerSAMUSHFTiny", BUSI, plans=PLANS)  # needs none


@pytest.mark.slow
def test_random_weights_are_said_in_the_log(datasets: Path, capsys: pytest.CaptureFixture) -> None:
    train("nnUNetTrainerSAMUS", BUSI, plans=PLANS)
    assert "RANDOM image encoder" in capsys.readouterr().out


@pytest.fixture
def sam_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with SAM's tensors in tiny sizes that is not the official one."""
    torch.manual_seed(11)
    file = tmp_path / "sam.pth"
    torch.save(SAM(vit=VIT_TINY, image_size=1024).state_dict(), file)
    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", str(file))
    return file


@pytest.mark.parametrize("kind", [SAM, SAMUS, SAMUSHF])
def test_training_begins_with_any_file_that_fits(
    kind: type, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAM's own, MedSAM's and one's own are of SAM's tensors; SAMUS's official one has more."""
    torch.manual_seed(12)
    file = tmp_path / "mine.pth"
    given = kind(vit=VIT_TINY).state_dict()
    torch.save(given, file)
    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", str(file))
    trainer = initialized("nnUNetTrainerSAMUS")
    trainer.on_train_start()
    trainer.on_train_end()
    state = trainer.segmenter.model.state_dict()
    assert all(torch.equal(state[name], given[name]) for name in state if name in given and "pos" not in name)
    [log] = (text.read_text() for text in Path(trainer.output_folder).glob("training_log_*.txt"))
    what = f"{file} (tensors of {kind.__name__}, not SAM's official vit_b; SHA-256 {sha256(file)})"
    assert f"Training begins with {what}" in log
    assert ("of its tensors are not used, such as image_encoder.high" in log) == (kind is SAMUSHF)
    assert trainer.my_init_kwargs[RUNS][-1]["begins_with"] == what


def test_a_file_that_claims_to_be_official_is_verified(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(SAM(vit=VIT_TINY).state_dict(), file)
    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", str(file))
    with pytest.raises(InputError, match=rf"{file} has [\d,]+ bytes, not 375,042,383, and SHA-256"):
        initialized("nnUNetTrainerSAMUS").on_train_start()


def odd(tensor: torch.Tensor, rng: random.Random) -> object:
    """A tensor, or what stands in its place, as no SAM has it."""
    return rng.choice(
        (
            lambda: tensor.long(),
            lambda: tensor.to(torch.complex64),
            lambda: tensor.to_sparse(),
            lambda: tensor.to(torch.float8_e4m3fn),
            lambda: tensor.half(),
            lambda: tensor.bool(),
            lambda: tensor[..., :0],
            lambda: tensor.flatten()[0],
            lambda: tensor[None],
            lambda: tensor.transpose(0, -1),
            lambda: tensor * float("nan"),
            lambda: tensor.to("meta"),
            lambda: tensor.numpy(),
            lambda: {"a": tensor},
            lambda: None,
            lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        )
    )()


@pytest.mark.parametrize("rounds", [30, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:quantize:DeprecationWarning", "ignore:.*deprecated:UserWarning")
def test_odd_tensors_are_messages(rounds: int) -> None:
    whole = SAM(vit=VIT_TINY).state_dict()
    model = SAMUS(vit=VIT_TINY)
    refused = 0
    for number in range(rounds):
        rng = random.Random(number)
        state: dict = dict(whole)
        for name in rng.choices(list(whole), k=rng.choice((1, 1, 3))):
            state[name] = odd(whole[name], rng)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        try:
            state = read_state_dict(state)
            sam_checkpoint.load(model, state, state)
        except InputError:
            refused += 1
            assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        with contextlib.suppress(InputError):
            SAMUS.from_checkpoint(state)
    assert rounds / 2 < refused < rounds


def test_validation_is_at_the_resolution_of_training(datasets: Path) -> None:
    """The papers choose their model by the loss at 128 x 128."""
    trainer = initialized(HF)
    sizes = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        sizes.append((tuple(output.shape), tuple(target.shape)))
        return output.mean()

    trainer.loss = loss
    data, target = torch.rand(4, 1, 256, 256), torch.zeros(4, 1, 256, 256, dtype=torch.int16)
    target[:, :, 100:140, 90:120] = 1
    result = trainer.validation_step({"data": data, "target": target})
    assert sizes == [((4, 2, 128, 128), (4, 1, 128, 128))]
    assert result["tp_hard"] + result["fn_hard"] == 4 * 20 * 15


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", [SAM, SAMUS, SAMUSHF])
def test_other_precisions(kind: type, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = PromptableSegmenter(model=kind(vit=VIT_TINY)).eval()
    image, click = torch.rand(1, 1, 256, 256), torch.tensor([[[[120.0, 88.0]]]])
    with torch.no_grad():
        expected = [network(image), network(image, click, torch.ones(1, 1, 1))]
        found = [network.to(dtype)(image.to(dtype)), network(image.to(dtype), click, torch.ones(1, 1, 1))]
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == dtype
        torch.testing.assert_close(b.float(), a, rtol=0, atol=1e-3 if dtype == torch.float64 else 0.2)


@pytest.mark.parametrize("name", ["vit_l", "vit_h"])
def test_larger_transformers_ask_for_their_own_weights(
    name: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NNUNET_EXT_SAM_CHECKPOINT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=rf"sam_{name}_\w+\.pth does not exist(.|\n)*weights download {name}"):
        train(f"{HF}ViT{name[-1].upper()}", BUSI, plans=PLANS)


@pytest.mark.slow
def test_training_begins_with_sams_weights(datasets: Path, more: Path, sam_file: Path) -> None:
    train("nnUNetTrainerSAMUS", BUSI, plans=PLANS)
    folder = model_folder(datasets, "nnUNetTrainerSAMUS", PLANS, dataset=BUSI)
    state, sam = checkpoint(folder)["network_weights"], torch.load(sam_file)
    for name in ("image_encoder.blocks.0.attn.qkv.weight", "mask_decoder.iou_token.weight"):
        assert torch.equal(state[f"model.{name}"], sam[name])
    sam_file.unlink()  # no use for it from here on
    assert predict(folder, images(more, BUSI)[:1])
    run_training(str(BUSI), "2d", 0, "nnUNetTrainerSAMUS", PLANS, device=CPU, only_run_validation=True)
    pretrained = str(folder / "fold_0" / "checkpoint_final.pth")
    train("nnUNetTrainerSAMUS", 36, plans=PLANS, pretrained_weights=pretrained)  # to two classes
    other = checkpoint(model_folder(datasets, "nnUNetTrainerSAMUS", PLANS, dataset=36))["network_weights"]
    name = "model.image_encoder.blocks.0.attn.qkv.weight"
    assert torch.equal(other[name], state[name])


@pytest.mark.slow
def test_pretrained_weights_bring_the_prompts_that_belong_to_them(datasets: Path, more: Path) -> None:
    train("nnUNetTrainerSAMUSHFTiny", BUSI, plans=PLANS)
    pretrained = (
        model_folder(datasets, "nnUNetTrainerSAMUSHFTiny", PLANS, dataset=BUSI) / "fold_0" / "checkpoint_final.pth"
    )
    trainer = make("nnUNetTrainerSAMUSHFTiny", 36, plans=PLANS)
    maybe_load_checkpoint(trainer, False, False, str(pretrained))
    trainer.on_train_start()
    model, prompts = trainer.segmenter.model, trainer.segmenter.prompts
    end = model.prompt_encoder.not_a_point_embed.weight[0]
    assert all(torch.equal(tokens[1], end) for tokens in prompts.seg_layers["tokens"])
    trainer.on_train_end()


@pytest.mark.parametrize(("first", "second"), [("nnUNetTrainerSAMUS", HF), (HF, "nnUNetTrainerSAMUS")])
def test_pretrained_weights_go_from_samus_to_samus_hf_and_back(first: str, second: str, datasets: Path) -> None:
    trainer = initialized(first)
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.add_(0.01)
    file = str(Path(trainer.output_folder) / "checkpoint_final.pth")
    trainer.save_checkpoint(file)
    other = make(second, BUSI, plans=PLANS)
    maybe_load_checkpoint(other, False, False, file)
    given, state = torch.load(file, weights_only=False)["network_weights"], other.network.state_dict()
    shared = [name for name in state if name in given and "seg_layers" not in name]
    assert len(shared) > 100
    assert all(torch.equal(state[name], given[name]) for name in shared)
    added = [name for name in state if name not in given]
    assert added == [name for name in added if ".high_frequency." in name]
    assert bool(added) == (second == HF)
    [log] = Path(other.output_folder).glob("training_log_*.txt")
    assert f"Training begins with {file} (-pretrained_weights)" in log.read_text()
    assert ("they begin as always" in log.read_text()) == (second == HF)
    assert other.network.state_dict().keys() == state.keys()


def test_learned_prompts_begin_at_sams_click_in_the_middle(datasets: Path, sam_file: Path) -> None:
    trainer = initialized("nnUNetTrainerSAMUS")
    trainer.on_train_start()
    sam = torch.load(sam_file)
    tokens = trainer.segmenter.prompts.seg_layers["tokens"]
    assert torch.equal(tokens[0, 1], sam["prompt_encoder.not_a_point_embed.weight"][0])
    trainer.on_train_end()


def test_augmentation_is_samus(datasets: Path) -> None:
    """Rotation, zoom, gamma and contrast; no flip; the segmentation follows the image."""
    transform = make(HF, BUSI, plans=PLANS).get_training_transforms(
        (64, 64), (0, 0), None, (), False, foreground_labels=(1,)
    )
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    mask = ((x - 0.3) ** 2 + (y + 0.1) ** 2 < 0.2)[None]
    torch.manual_seed(0)
    np.random.seed(0)
    areas, unchanged = [], 0
    for _ in range(60):
        out = transform(image=mask.float() * 0.8 + 0.1, segmentation=mask.to(torch.int16))
        image, seg = out["image"], out["segmentation"]
        assert image.shape == (1, 64, 64)
        assert seg.min() >= 0
        inside, outside = image[seg > 0].median(), image[seg == 0].median()
        assert inside > outside
        areas.append(float(seg.float().mean()))
        unchanged += torch.equal(seg, mask.to(torch.int16))
    area = float(mask.float().mean())
    assert 0.95 * area < min(areas)
    assert 1.2 * area < max(areas) < 1.3**2 * 1.05 * area
    assert 5 < unchanged < 30  # a quarter is neither rotated nor enlarged


@pytest.mark.slow
def test_distributed(short_runs: Path) -> None:
    """Both ranks end with the same weights, and no parameter waits for a gradient in vain."""
    two_processes(short_runs, str(BUSI), "nnUNetTrainerSAMUSHFTiny", PLANS, batch_size=2)


@pytest.mark.slow
def test_torch_compile_keeps_the_output(datasets: Path) -> None:
    network = initialized(HF).network.eval()
    compiled = torch.compile(network, backend="eager")
    image = torch.rand(1, 1, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trainer", ["nnUNetTrainerSAMUSHFTiny", "nnUNetTrainerSAMUSHFTinyClick"])
def test_only_mixed_prompts_have_boxes_and_corrections(
    trainer: str, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptedRecipe, "box_share", 0.5)
    monkeypatch.setattr(PromptedRecipe, "correction_share", 1.0)
    monkeypatch.setenv("NNUNET_EXT_SEED", "1")
    made = initialized(trainer)
    made.on_train_start()
    made.on_train_epoch_start()
    batch, asked, forward = next(made.dataloader_train), [], PromptableSegmenter.forward

    def kept(self: PromptableSegmenter, *args, **kwargs) -> torch.Tensor:
        asked.append((torch.is_grad_enabled(), self.training, kwargs))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(PromptableSegmenter, "forward", kept)
    for _ in range(3):
        made.train_step(batch)
    steps = [kwargs for gradients, _, kwargs in asked if gradients]
    seen = [training for gradients, training, _ in asked if not gradients]
    assert len(steps) == 3
    labels = torch.stack([kwargs["labels"] for kwargs in steps])
    if trainer.endswith("Click"):
        assert seen == []
        assert (labels[..., 0] <= 1).all()
        assert all("corrected" not in kwargs for kwargs in steps)
    else:
        assert seen == [False] * sum("corrected" in kwargs for kwargs in steps) != []  # masks are made as in prediction
        assert {(1, -1), (2, 3)} == {tuple(pair) for pair in labels.flatten(0, 2).tolist()}
        assert all(torch.equal(kwargs.get("corrected", kwargs["clicked"]), kwargs["clicked"]) for kwargs in steps)
    assert made.segmenter.training
    made.on_train_end()


def test_looking_at_a_mask_changes_nothing(datasets: Path) -> None:
    """Not even the running statistics of a batch norm."""
    made = initialized("nnUNetTrainerSAMUSHFLiteralGate")
    made.network.train()
    before = {name: t.clone() for name, t in made.network.state_dict().items()}
    chosen, points, labels = torch.tensor([True, False, True]), torch.rand(3, 1, 2, 2), torch.tensor([[[1, -1]]] * 3)
    masks = made._masks(torch.rand(3, 1, 64, 64), chosen, points, labels)
    assert masks.shape == (2, 1, 64, 64)
    assert masks.dtype == torch.bool
    assert all(torch.equal(t, before[name]) for name, t in made.network.state_dict().items())
    assert made.network.training
