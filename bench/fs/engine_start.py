"""Starts vLLM on a model directory, as far as its weights, and ends. Runs in the engine's own environment.

    python engine_start.py DIRECTORY

What the bench wants of it is in vLLM's own log: "Loading weights took N seconds".
"""

import sys

from vllm import LLM  # type: ignore[import-not-found]

if __name__ == "__main__":
    LLM(
        model=sys.argv[1],
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=4,
        block_size=32,
        dtype="bfloat16",
    )
