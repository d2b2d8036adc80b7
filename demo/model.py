"""A tiny Llama with random weights, complete enough for vLLM to serve. Standard library only.

    python demo/model.py DIRECTORY

Two layers, hidden size 128, 512 tokens, about 3.5 MiB of bfloat16 weights. The same bytes come out every time. What it
answers means nothing, but it is made of words: only whole words have an output row that is not zero.
"""

import json
import random
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

SEED: Final = 20261120
VOCABULARY: Final = 512
HIDDEN: Final = 128
INTERMEDIATE: Final = 2048
LAYERS: Final = 2
HEADS: Final = 2
BOS, EOS, USER, ASSISTANT, SYSTEM = SPECIAL = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")

WORDS: Final = """
    a an and answer any are as at be before bolt box by can chain coin copper dark deep door each every fire first for
    from gate gold guard hall hand hold how in is iron it keep key lamp latch light lock map mark moon near never night
    no not of oil old on one open or out paper quiet rain ring river roof room safe seal secret silver so star steel
    stone that the then there thief three to tower two vault wall was water wax well what when who why wind with you
""".split()

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

CONFIG: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "dtype": "bfloat16",
}


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    data: bytes  # bfloat16, little endian as the format and every platform vLLM runs on


def byte_alphabet() -> list[str]:
    """One printable character for each byte value, as byte-level BPE has it: those that print stand for themselves."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in prints else next(spare)) for byte in range(256)]


def build_tokenizer() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges: specials, the 256 bytes, every prefix of every word (space first), then filler."""
    alphabet = byte_alphabet()
    tokens = dict.fromkeys([*SPECIAL, *alphabet])
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        token = alphabet[ord(" ")]
        for letter in word:
            merges[token, letter] = None
            token += letter
            tokens[token] = None
    for number in range(VOCABULARY - len(tokens)):
        tokens[f"<|reserved-{number}|>"] = None
    if len(tokens) != VOCABULARY:
        raise SystemExit(f"model: the words need {len(tokens)} tokens, want at most {VOCABULARY}")
    return {token: number for number, token in enumerate(tokens)}, list(merges)


def tokenizer_json(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> dict[str, object]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {"id": vocabulary[token], "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for token in SPECIAL
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": [list(merge) for merge in merges],
        },
    }


def pack_bfloat16(values: Iterable[float]) -> bytes:
    """The upper half of each float32: rounding does not matter to random weights."""
    return array("H", array("f", values).tobytes())[1::2].tobytes()


def weights(vocabulary: dict[str, int]) -> Iterator[Tensor]:
    source = random.Random(SEED)

    def uniform(count: int, bound: float) -> bytes:
        return pack_bfloat16(bound * (2 * source.random() - 1) for _ in range(count))

    def matrix(name: str, rows: int, columns: int) -> Tensor:
        return Tensor(f"{name}.weight", (rows, columns), uniform(rows * columns, columns**-0.5))

    def norm(name: str) -> Tensor:
        return Tensor(f"{name}.weight", (HIDDEN,), pack_bfloat16([1.0] * HIDDEN))

    yield Tensor("model.embed_tokens.weight", (VOCABULARY, HIDDEN), uniform(VOCABULARY * HIDDEN, 1.0))
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        yield norm(f"{at}.input_layernorm")
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield matrix(f"{at}.self_attn.{projection}", HIDDEN, HIDDEN)
        yield norm(f"{at}.post_attention_layernorm")
        yield matrix(f"{at}.mlp.gate_proj", INTERMEDIATE, HIDDEN)
        yield matrix(f"{at}.mlp.up_proj", INTERMEDIATE, HIDDEN)
        yield matrix(f"{at}.mlp.down_proj", HIDDEN, INTERMEDIATE)
    yield norm("model.norm")
    space = byte_alphabet()[ord(" ")]
    spoken = {vocabulary[space + word] for word in WORDS}
    rows = (uniform(HIDDEN, 1.0) if token in spoken else bytes(2 * HIDDEN) for token in range(VOCABULARY))
    yield Tensor("lm_head.weight", (VOCABULARY, HIDDEN), b"".join(rows))


def pack_safetensors(tensors: Iterable[Tensor]) -> bytes:
    """The safetensors file: u64 LE length of the header, JSON header padded with spaces to 8 bytes, then the values."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": "BF16",
            "shape": tensor.shape,
            "data_offsets": [len(body), len(body) + len(tensor.data)],
        }
        body += tensor.data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def shards(tensors: Iterable[Tensor]) -> dict[str, bytes]:
    """One file a layer and one for the rest, as large models come, with the index that says which holds what."""
    parts: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        layer = tensor.name.removeprefix("model.layers.").partition(".")[0]
        parts.setdefault(layer if layer.isdigit() else "rest", []).append(tensor)
    files: dict[str, bytes] = {}
    where: dict[str, str] = {}
    for number, part in enumerate(sorted(parts), start=1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        files[name] = pack_safetensors(parts[part])
        where |= dict.fromkeys((tensor.name for tensor in parts[part]), name)
    total = sum(len(tensor.data) for part in parts.values() for tensor in part)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    return {**files, "model.safetensors.index.json": json.dumps(index, indent=2).encode()}


def write_model(directory: Path) -> int:
    """Write the model's files into `directory` (made if absent) and return their size in bytes."""
    vocabulary, merges = build_tokenizer()
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "model_max_length": CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    generation = {"bos_token_id": 0, "eos_token_id": 1}
    files = {
        "config.json": json.dumps(CONFIG, indent=2).encode(),
        "generation_config.json": json.dumps(generation, indent=2).encode(),
        "tokenizer.json": json.dumps(tokenizer_json(vocabulary, merges), indent=1).encode(),
        "tokenizer_config.json": json.dumps(tokenizer_config, indent=2).encode(),
        **shards(weights(vocabulary)),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return sum(map(len, files.values()))


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python demo/model.py DIRECTORY", file=sys.stderr)
        return 2
    size = write_model(Path(sys.argv[1]))
    print(f"model: {LAYERS} layers, {VOCABULARY} tokens, {size / (1 << 20):.1f} MiB in {sys.argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
