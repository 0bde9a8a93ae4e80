"""The ultrasound paper's networks: contract, parity with a plain implementation, checkpoints, frozen parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from contract import Build, NetworkContract
from samus_reference import ReferenceSAMUS
from segment_anything.modeling import ImageEncoderViT, PromptEncoder
from segment_anything.modeling.mask_decoder import MaskDecoder as SAMMaskDecoder
from torch import nn

from nnunet_ext.architectures.samus import checkpoint
from nnunet_ext.architectures.samus.image_encoder import VIT_B, VIT_H, VIT_L, Attention, ViT, WindowAttention
from nnunet_ext.architectures.samus.models import SAM, SAMUS, SAMUSHF
from nnunet_ext.architectures.samus.prompted_model import PromptedModel
from nnunet_ext.architectures.samus.segmenter import PromptableSegmenter
from nnunet_ext.common.errors import InputError

SMALL = ViT(
    embed_dim=48, depth=3, num_heads=4, global_blocks=(1,), window_size=3, position_grid=16,
    stem_channels=(8, 8, 16), out_channels=32,
)  # fmt: skip
MEMBERS: dict[str, partial] = {
    "SAM": partial(SAM, vit=SMALL, image_size=64),
    "SAMUS": partial(SAMUS, vit=SMALL, image_size=64),
    "SAMUS-HF": partial(SAMUSHF, vit=SMALL, image_size=64),
    "control": partial(SAMUSHF, vit=SMALL, image_size=64, picture="grey"),
    "literal gate": partial(SAMUSHF, vit=SMALL, image_size=64, fusion="literal_gate"),
    "input": partial(SAMUSHF, vit=SMALL, image_size=64, fusion="input"),
}


def build(member: str, **changes: object) -> PromptedModel:
    """A small network with no parameter at zero, so that none is out of reach of the gradient."""
    torch.manual_seed(0)
    model = MEMBERS[member](**changes)
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return model


def segmenter(member: str, *, in_channels: int = 1, out_channels: int = 2, binary: bool = True) -> PromptableSegmenter:
    return PromptableSegmenter(
        model=build(member), in_channels=in_channels, out_channels=out_channels, has_regions=not binary
    )


@pytest.mark.parametrize("member", MEMBERS)
class TestContract(NetworkContract):
    members = {name: partial(segmenter, name) for name in MEMBERS}
    sizes = ((24, 20), (17, 31), (1, 9), (64, 64))

    def test_classes_have_the_background_first(self, build: Build) -> None:
        net = PromptableSegmenter(model=build().model, out_channels=4)
        out = net(self.image())
        assert out.shape == (2, 4, *self.sizes[0])
        assert not out[:, 0].any()

    def test_number_of_channels(self, build: Build) -> None:
        with pytest.raises(InputError, match="one grey channel or three"):
            build(in_channels=2)


def count(model: nn.Module, *, trained: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


@pytest.mark.parametrize(
    ("model", "parameters", "trained"),
    [
        (SAMUS, 133_323_568, 39_653_120),
        (SAMUSHF, 133_323_568 + 1_213_936, 39_653_120 + 1_213_936),
        (partial(SAMUSHF, fusion="input"), 133_323_568 + 576, 39_653_120 + 576),
        (SAM, 90_737_200, 3_506_304),
        (partial(SAM, image_size=1024), 93_735_472, 3_506_304),  # SAM's published 93.7 M
    ],
)
def test_counts(model: partial, parameters: int, trained: int) -> None:
    with torch.device("meta"):
        net = model()
    assert (count(net), count(net, trained=True)) == (parameters, trained)


@pytest.mark.slow
@pytest.mark.parametrize("vit", [VIT_L, VIT_H])
def test_large_and_huge(vit: ViT) -> None:
    """SAM's checkpoints of these sizes load: their keys and shapes, in a network without memory."""
    with torch.device("meta"):
        net = SAMUS(vit=vit)
        image = torch.empty(1, 1, 256, 256)
        out = net.predict_low_res(image, torch.empty(1, 1, 2), torch.empty(1, 1))
    assert out.shape == (1, 1, 128, 128)


def test_trained_parameters_by_name() -> None:
    net = build("SAMUS")
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {
        name
        for name, _ in net.named_parameters()
        if any(part in name for part in ("cnn_embed", "post_pos_embed", "Adapter", "blocks.1.attn.rel_pos"))
    }


def test_training_mode_leaves_frozen_modules_in_evaluation() -> None:
    net = segmenter("SAMUS-HF").train()
    assert net.model.image_encoder.cnn_embed.training
    assert not net.model.mask_decoder.training
    assert not net.model.image_encoder.blocks[0].training
    assert not any(m.training for m in net.eval().modules())


def plain_and_fast(size: int) -> tuple[ReferenceSAMUS, SAMUS]:
    """Both implementations with the same weights; windows of 3 x 3 tokens cover 64 pixels with padding, 48 without."""
    torch.manual_seed(1)
    vit = ViT(embed_dim=48, depth=3, num_heads=4, global_blocks=(1,), window_size=3, position_grid=size // 4)
    fast = SAMUS(vit=vit, image_size=size)
    with torch.no_grad():
        for name, p in fast.named_parameters():
            if "rel_pos" in name or name.endswith("pos_embed"):
                p.normal_(std=0.3)
    plain = ReferenceSAMUS(image_size=size, embed_dim=48, depth=3, num_heads=4, global_blocks=(1,), window_size=3)
    plain.load_state_dict(fast.state_dict())
    return plain, fast


@pytest.mark.parametrize("size", [64, 48])
def test_equals_the_plain_implementation(size: int) -> None:
    plain, fast = plain_and_fast(size)
    image, xy = torch.rand(2, 1, size, size), torch.tensor([[[5.0, 9.0]], [[30.0, 2.0]]])
    labels = torch.tensor([[1], [0]])
    expected = plain.predict_low_res(image, xy, labels)
    out = fast.predict_low_res(image, xy, labels)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("size", [64, 48])
def test_gradients_equal_the_plain_implementations(size: int) -> None:
    """In double precision, where rounding hides nothing: embedding and every gradient of the image encoder."""
    encoders = [net.image_encoder.double() for net in plain_and_fast(size)]
    image, weight = torch.rand(2, 1, size, size).double(), torch.randn(2, 256, size // 8, size // 8).double()
    embeddings = [encoder(image) for encoder in encoders]
    torch.testing.assert_close(*embeddings)
    for embedding in embeddings:
        (embedding * weight).sum().backward()
    plain, fast = (dict(encoder.named_parameters()) for encoder in encoders)
    for name, p in fast.items():
        assert p.requires_grad == plain[name].requires_grad, name
        if p.requires_grad:
            torch.testing.assert_close(p.grad, plain[name].grad, msg=name)


def test_attention_is_sams() -> None:
    sam = ImageEncoderViT(
        img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=3, use_rel_pos=True, window_size=3,
        global_attn_indexes=(1,),
    )  # fmt: skip
    for block, ours in zip(
        sam.blocks, (WindowAttention(dim=24, num_heads=3, grid=3), Attention(dim=24, num_heads=3, grid=4)), strict=True
    ):
        nn.init.normal_(block.attn.rel_pos_h)
        nn.init.normal_(block.attn.rel_pos_w)
        ours.load_state_dict(block.attn.state_dict())
        x = torch.randn(2, 4, 4, 24)
        for p in block.mlp.parameters():
            nn.init.zeros_(p)
        torch.testing.assert_close(x + ours(block.norm1(x)), block(x), rtol=1e-5, atol=1e-5)


def test_sam_encodes_as_sam_does() -> None:
    net = build("SAM")
    sam = ImageEncoderViT(
        img_size=64, embed_dim=48, depth=3, num_heads=4, out_chans=32, use_rel_pos=True, window_size=3,
        global_attn_indexes=(1,), norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    sam.load_state_dict(net.image_encoder.state_dict())
    grey = torch.rand(2, 1, 64, 64)
    colour = (255 * grey.expand(-1, 3, -1, -1) - net.pixel_mean) / net.pixel_std
    torch.testing.assert_close(net.encode(grey), sam(colour), rtol=1e-4, atol=1e-4)


def test_prompts_and_masks_are_sams() -> None:
    net = build("SAMUS")
    xy, labels = torch.tensor([[[3.0, 60.0], [20.0, 7.5]]]), torch.tensor([[1, 0]])
    prompts = net.prompt_encoder
    sparse, dense = PromptEncoder.forward(prompts, points=(xy, labels), boxes=None, masks=None)
    tokens = prompts.points(xy, labels)
    torch.testing.assert_close(tokens, sparse, rtol=0, atol=1e-6)
    assert torch.equal(prompts.image_positions(), prompts.get_dense_pe())
    embedding = torch.randn(1, 32, 8, 8)
    expected, _ = SAMMaskDecoder.forward(net.mask_decoder, embedding, prompts.get_dense_pe(), sparse, dense, False)
    torch.testing.assert_close(net.decode(embedding, tokens[:, None]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clicks", [0, 2])
def test_boxes_are_sams(clicks: int) -> None:
    prompts = build("SAMUS").prompt_encoder
    xy, labels = torch.tensor([[[3.0, 60.0], [20.0, 7.5]]])[:, :clicks], torch.tensor([[1, 0]])[:, :clicks]
    box = torch.tensor([[4.0, 6.0, 50.0, 33.0]])
    sparse, _ = PromptEncoder.forward(prompts, points=(xy, labels) if clicks else None, boxes=box, masks=None)
    corners = torch.cat([xy, box.view(1, 2, 2)], 1), torch.cat([labels, torch.tensor([[2, 3]])], 1)
    torch.testing.assert_close(prompts.points(*corners, end=False), sparse, rtol=0, atol=1e-6)
    nothing = prompts.points(torch.zeros(1, 1, 2), torch.tensor([[-1]]), end=False)
    torch.testing.assert_close(nothing[0], prompts.not_a_point_embed.weight)


def test_several_requests_equal_one_at_a_time() -> None:
    net = build("SAMUS").eval()
    embedding, tokens = torch.randn(2, 32, 8, 8), torch.randn(2, 3, 2, 32)
    together = net.decode(embedding, tokens)
    for k in range(3):
        torch.testing.assert_close(together[:, k : k + 1], net.decode(embedding, tokens[:, k : k + 1]))


def test_colour_image_of_equal_channels_is_the_grey_one() -> None:
    net = build("SAMUS-HF").eval()
    grey = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(net.encode(grey), net.encode(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("picture", ["high_frequency", "grey"])
def test_untrained_high_frequency_network_is_samus_bit_for_bit(picture: str) -> None:
    torch.manual_seed(3)
    samus = SAMUS(vit=SMALL, image_size=64)
    torch.manual_seed(3)
    hf = SAMUSHF(vit=SMALL, image_size=64, picture=picture)
    for name, tensor in samus.state_dict().items():
        assert torch.equal(tensor, hf.state_dict()[name]), name
    image = torch.rand(2, 1, 64, 64)
    assert torch.equal(samus.encode(image), hf.encode(image))


def test_seed_goes_on_alike_after_either_network() -> None:
    after = []
    for model in (SAMUS, SAMUSHF):
        torch.manual_seed(3)
        model(vit=SMALL, image_size=64)
        after.append(torch.rand(3))
    assert torch.equal(*after)


def sam_state(vit: ViT = SMALL, grid: int = 16) -> dict[str, torch.Tensor]:
    """What a SAM checkpoint of these sizes holds: global relative positions for `grid` tokens per side."""
    return {n: torch.randn_like(t) for n, t in SAM(vit=vit, image_size=16 * grid).state_dict().items()}


def test_from_a_sam_checkpoint(tmp_path: Path) -> None:
    state = sam_state()
    torch.save(state, tmp_path / "sam.pth")
    net = SAMUS.from_checkpoint(tmp_path / "sam.pth", image_size=64)
    own = net.state_dict()
    assert net.vit.global_blocks == (1,)
    assert net.vit.num_heads == 4
    for name, tensor in state.items():
        if "blocks.1.attn.rel_pos" in name:  # 31 rows become 15
            resized = nn.functional.interpolate(tensor.T[None], size=15, mode="linear")[0].T
            torch.testing.assert_close(own[name], resized)
        else:
            assert torch.equal(own[name], tensor), name


@pytest.mark.parametrize("vit", [VIT_B, VIT_L, VIT_H], ids=["b", "l", "h"])
def test_sizes_are_read_from_sams_checkpoints(vit: ViT) -> None:
    with torch.device("meta"):
        state = SAM(vit=vit, image_size=1024).state_dict()
    assert checkpoint.infer(state, "sam.pth") == vit


def test_from_a_samus_checkpoint() -> None:
    state = build("SAMUS").state_dict()
    net = SAMUS.from_checkpoint({f"module.{k}": v for k, v in state.items()}, image_size=64)
    assert net.vit == SMALL
    assert all(torch.equal(a, state[n]) for n, a in net.state_dict().items())
    hf = SAMUSHF.from_checkpoint(state, image_size=64)
    assert all(torch.equal(hf.state_dict()[n], a) for n, a in state.items())


def without(state: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if part not in name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv.weight": torch.ones(1)}, "not a checkpoint of SAM or SAMUS"),
        (without(build("SAMUS").state_dict(), "mask_decoder"), "mask_decoder"),
        (without(build("SAMUS").state_dict(), "blocks.1.MLP_Adapter"), "missing"),
        ({**sam_state(), "image_encoder.neck.0.weight": torch.full((32, 48, 1, 1), torch.nan)}, "NaN or infinite"),
        ({**sam_state(), "image_encoder.neck.2.weight": torch.ones(32, 32, 1, 1)}, "shape"),
    ],
    ids=["other", "no decoder", "half a SAMUS", "nan", "shape"],
)
def test_wrong_checkpoints(state: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SAMUS.from_checkpoint(state, image_size=64)


def test_click_moves_with_the_image_size() -> None:
    """The middle of a pixel stays the middle of what it becomes."""
    net = segmenter("SAMUS")
    points = net.to_model(torch.tensor([[0.0, 0.0], [31.0, 15.0]]), (16, 32))
    torch.testing.assert_close(points, torch.tensor([[0.5, 1.5], [62.5, 61.5]]))


def test_samples_that_are_not_clicked_use_the_learned_prompt() -> None:
    net = segmenter("SAMUS").eval()
    image, points = torch.rand(2, 1, 64, 64), torch.tensor([[[[5.0, 5.0]]], [[[50.0, 9.0]]]])
    labels = torch.ones(2, 1, 1)
    mixed = net(image, points, labels, clicked=torch.tensor([True, False]))
    torch.testing.assert_close(mixed[0], net(image, points, labels)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1], net(image)[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixed[0], net(image)[0], atol=1e-3)


def test_rescaled_samples_are_in_the_unit_range() -> None:
    torch.manual_seed(0)
    plain = PromptableSegmenter(model=build("SAMUS")).eval()
    rescaling = PromptableSegmenter(model=build("SAMUS"), rescale=True).eval()
    rescaling.load_state_dict(plain.state_dict())
    image = torch.rand(1, 1, 64, 64)
    image = (image - image.min()) / (image.max() - image.min())
    torch.testing.assert_close(rescaling(7 * image - 3), plain(image), rtol=1e-4, atol=1e-5)
    assert rescaling(torch.ones(1, 1, 64, 64)).isfinite().all()


def test_without_learned_prompts_a_click_is_needed() -> None:
    net = PromptableSegmenter(model=build("SAMUS"), learned_prompts=False)
    assert not any("seg_layers" in name for name in net.state_dict())
    with pytest.raises(InputError, match="nnunet_ext predict"):
        net(torch.rand(1, 1, 64, 64))


def test_logits_at_the_models_resolution() -> None:
    out = segmenter("SAMUS")(torch.rand(2, 1, 40, 30), low_res=True)
    assert out.shape == (2, 2, 32, 32)
