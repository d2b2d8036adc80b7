"""Random weights of any size, as one safetensors file or as a model vLLM loads. Every value is finite and small."""

import json
import os
import struct
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

FILE: Final = "model.safetensors"
_PIECE: Final = 4 << 20  # bytes
_TENSOR: Final = 16 << 20  # bytes of a tensor of weights()

Shapes = dict[str, tuple[int, ...]]

_SMALL: Final = bytes(byte & 0x80 | 0x3C for byte in range(256))  # sign and exponent: at most 1/32


def weights(path: Path, size: int) -> None:
    """A safetensors file of about `size` bytes: tensors of 16 MiB of bfloat16."""
    shapes: Shapes = {
        f"layer.{number}.weight": (2048, _TENSOR // 4096) for number in range(max(1, size // _TENSOR))
    }
    _write(path, shapes)


def llama(folder: Path, size: int) -> int:
    """A Llama of at least `size` bytes, one file a layer: what vLLM needs to load it, no tokenizer. Gives its bytes."""
    hidden, intermediate, vocabulary = 2048, 5632, 4096
    layer: Shapes = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        **{f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"},
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    ends: Shapes = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }
    count = -(-(size - _bytes(ends)) // _bytes(layer))
    shards = [
        {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
        for number in range(count)
    ]
    shards.append(ends)
    where: dict[str, str] = {}
    for number, shapes in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write(folder / name, shapes)
        where |= dict.fromkeys(shapes, name)
    total = sum(map(_bytes, shards))
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(_config(hidden, intermediate, vocabulary, count)))
    return total


def _config(hidden: int, intermediate: int, vocabulary: int, layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 2048,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "dtype": "bfloat16",
    }


def _bytes(shapes: Shapes) -> int:
    return sum(_size(shape) for shape in shapes.values())


def _size(shape: tuple[int, ...]) -> int:
    return 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)


def _write(path: Path, shapes: Shapes) -> None:
    """u64 LE length of the header, JSON header padded with spaces to 8 bytes, then the values."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + _size(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream = Cipher(AES(os.urandom(16)), CTR(bytes(16))).encryptor()  # five times as fast as os.urandom
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, _PIECE):
            piece = bytearray(stream.update(bytes(min(_PIECE, end - start))))
            piece[1::2] = piece[1::2].translate(_SMALL)
            file.write(piece)
