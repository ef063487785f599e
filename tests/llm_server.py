"""A real LLM server for the tests: llama.cpp with a tiny model of random weights.

``python -m tests.llm_server PORT_FILE`` makes the model on the spot, serves it on
a free loopback port, writes the port into the file, and ends with its parent.
The answers are noise; the protocol, the framing and the token counts are real.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import gguf
import numpy as np

_WIDTH, _HEADS, _LAYERS, _INNER, _CONTEXT = 64, 4, 2, 128, 8192
_SPECIAL = ("<s>", "</s>", "<|turn|>", "<|end|>")
_TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m.role }}: {{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte (openai/gpt-2, encoder)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, spare = {}, 0
    for byte in range(256):
        letters[byte] = chr(byte) if byte in plain else chr(256 + spare)
        spare += byte not in plain
    return [letters[byte] for byte in range(256)]


def write_model(path: Path) -> None:
    """A llama of random weights with one token a byte."""
    rng = np.random.default_rng(7)
    tokens = byte_alphabet() + list(_SPECIAL)
    # One merge, since the loader wants some.
    tokens.append(tokens[ord("t")] + tokens[ord("h")])
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_TEMPLATE)

    def noise(*shape: int, scale: float = 0.05) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    writer.add_tensor("token_embd.weight", noise(len(tokens), _WIDTH, scale=1.0))
    writer.add_tensor("output.weight", noise(len(tokens), _WIDTH, scale=0.2))
    writer.add_tensor("output_norm.weight", np.ones(_WIDTH, np.float32))
    for layer in range(_LAYERS):
        shapes = {
            "attn_q": (_WIDTH, _WIDTH),
            "attn_k": (_WIDTH, _WIDTH),
            "attn_v": (_WIDTH, _WIDTH),
            "attn_output": (_WIDTH, _WIDTH),
            "ffn_gate": (_INNER, _WIDTH),
            "ffn_up": (_INNER, _WIDTH),
            "ffn_down": (_WIDTH, _INNER),
        }
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", noise(*shape))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(_WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(port_file: Path) -> None:
    """Serve until the parent is gone."""
    import xllamacpp

    parent = os.getppid()
    model = Path(tempfile.mkdtemp(prefix="tiny-llm-")) / "tiny.gguf"
    write_model(model)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = _CONTEXT
    params.n_parallel = 4
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.n_predict = 32
    params.use_jinja = True
    server = xllamacpp.Server(params)
    address = server.listening_address
    port_file.with_suffix(".part").write_text(str(address).rsplit(":", 1)[-1].strip("/"))
    port_file.with_suffix(".part").rename(port_file)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        model.unlink(missing_ok=True)
        os._exit(0)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
