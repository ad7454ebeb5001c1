"""Choices of how passes are computed: noise from counters, kernels by name, FP8, and what a machine lacks."""

from __future__ import annotations

import pytest
import torch

from astro_cli.cache.exchange import Stored
from astro_cli.commands.acceleration_options import AttentionKernel
from astro_cli.config.errors import StreamError
from astro_cli.core.philox import normal, philox
from astro_cli.core.rng import device_noise, stream_seed
from astro_cli.generate.acceleration import Acceleration
from astro_cli.models.wan import backends, compiled, float8
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan

CPU = torch.device("cpu")


def words(*values: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor([value]) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    """Known answers of the authors' Random123, philox4x32-10."""
    assert tuple(int(word) for word in philox(words(*counter), words(*key))) == expected


def test_device_noise_is_normal_and_belongs_to_sample_and_frame():
    uses = [("x_T", frame) for frame in range(3)]
    noise = device_noise((4, 30, 30), [1, 2], uses, CPU)
    assert noise.shape == (2, 3, 4, 30, 30)
    assert abs(noise.mean()) < 0.02  # 21,600 numbers: 1 / sqrt(21600) = 0.007
    assert abs(noise.std() - 1) < 0.02
    assert torch.equal(device_noise((4, 30, 30), [2], uses[1:2], CPU)[0, 0], noise[1, 1])
    assert torch.equal(normal([stream_seed(2, "x_T", 1)], 3600, CPU).view(4, 30, 30), noise[1, 1])


def test_kernels_are_checked_against_plain_attention():
    assert set(backends.NAMES) == {name.value for name in AttentionKernel}
    assert backends.check("flash", 2, 64, torch.float32, CPU) < 1e-5
    with pytest.raises(StreamError, match="cudnn: not available for float32 and heads of 64 on cpu"):
        backends.check("cudnn", 2, 64, torch.float32, CPU)
    with pytest.raises(StreamError, match="fa3: cannot be activated"):
        backends.check("fa3", 2, 64, torch.float32, CPU)


def test_a_kernel_with_wrong_numbers_is_refused(monkeypatch):
    monkeypatch.setattr(backends, "alone", lambda name, q, k, v: q * float("nan"))
    with pytest.raises(StreamError, match="largest difference from plain attention is nan"):
        backends.check("flash", 2, 64, torch.float32, CPU)


def test_what_a_kernel_cannot_take_goes_to_another():
    """A bias of scores, which FlashAttention on a GPU has no place for."""
    q = torch.randn(1, 2, 4, 8)
    with backends.using("flash"):
        biased = torch.nn.functional.scaled_dot_product_attention(q, q, q, torch.zeros(1, 1, 1, 4))
    assert torch.allclose(biased, torch.nn.functional.scaled_dot_product_attention(q, q, q), atol=1e-6)


def test_an_fp8_buffer_keeps_three_bits_of_mantissa():
    x = torch.randn(2, 3, 8, 64, generator=torch.Generator().manual_seed(0))
    stored = Stored((2, 3, 10, 64), torch.float32, "cpu", float8=True)
    stored.put(torch.arange(2, 10), x)
    kept = stored.get(slice(2, 10))
    largest = x.abs().amax(-1, keepdim=True)
    # Half of the last of three bits: 2^-4 of the entry, at least half of the smallest subnormal, 2^-10 of 448.
    assert ((kept - x).abs() <= x.abs() * 2**-4 + largest / 448 * 2**-10 + 1e-7).all()
    assert 0.01 < ((kept - x).pow(2).mean() / x.pow(2).mean()).sqrt() < 0.04
    assert stored.bytes == 2 * 3 * 10 * (64 + 4)  # a byte an entry, a scale a token and head
    assert not stored.get(slice(0, 2)).any()


def tiny() -> CausalWan:
    torch.manual_seed(0)
    config = WanConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=1, in_channels=2, freq_dim=8, text_dim=16)
    return CausalWan(config).requires_grad_(False)


def test_fp8_layers_stay_close(monkeypatch):
    network = tiny()
    linear = network.blocks[0].ffn.net[2]
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    expected = linear(x)
    error = float8.convert(network)
    assert 0.005 < error < 0.06  # 2^-4 of each factor at most, and bfloat16 sums
    found = network.blocks[0].ffn.net[2](x)
    assert (found - expected).pow(2).mean().sqrt() < 0.06 * expected.pow(2).mean().sqrt()
    assert isinstance(network.proj_out, torch.nn.Linear)  # the head stays
    assert not any(isinstance(part, torch.nn.Linear) for part in network.blocks.modules())


def test_what_a_machine_lacks_is_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(StreamError, match="a device of type cpu, which has no FP8 products"):
        Acceleration(linear="fp8").refuse(CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    with pytest.raises(StreamError, match=r"NVIDIA A100 \(compute capability 8\.0\)"):
        Acceleration(linear="fp8").refuse(torch.device("cuda"))
    with pytest.raises(StreamError, match="passes are recorded as CUDA graphs"):
        Acceleration(graphs=True).refuse(CPU)
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(compiled.CACHE_VARIABLE, str(blocked / "cache"))
    with pytest.raises(StreamError, match="cannot write its cache folder"):
        Acceleration(compile=True).refuse(CPU)


def test_layers_of_odd_sides_are_refused():
    config = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=1, in_channels=2, freq_dim=8, text_dim=16)
    with pytest.raises(StreamError, match="24 x 24: expected multiples of 16"):
        float8.convert(CausalWan(config))


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    from astro_cli.models.wan import compiled

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(StreamError, match="--compile: there is no C\\+\\+ compiler on this machine") as refused:
        compiled.check_compiler(torch.device("cpu"))
    assert "leave --compile out" in refused.value.hint
