#!/usr/bin/env python3
"""Validates every SPIR-V module of a folder: spirv_val.py SPIRV_VAL FOLDER

naga puts a layout (ArrayStride, Offset) on every type, which Vulkan allows only on types of buffers: validators stop at the
first variable of a workgroup or a function that has one, and would see nothing else. Drivers take no harm from it (gfx-rs/wgpu
tracks it), so it is taken off such types first. What is left must be valid.
"""

import concurrent.futures
import os
import pathlib
import struct
import subprocess
import sys

OP_VECTOR, OP_MATRIX, OP_ARRAY, OP_RUNTIME_ARRAY, OP_STRUCT = 23, 24, 28, 29, 30
OP_POINTER, OP_FUNCTION, OP_VARIABLE, OP_DECORATE, OP_MEMBER_DECORATE = 32, 54, 59, 71, 72
ARRAY_STRIDE, OFFSET = 6, 35
# Uniform, PushConstant, StorageBuffer: these need a layout.
BUFFERS = (2, 9, 12)


def instructions(words):
    at = 5
    while at < len(words):
        length = words[at] >> 16
        yield words[at] & 0xFFFF, words[at : at + length]
        at += length


def without_idle_layout(data):
    """The module with layouts only where they are asked for."""
    words = struct.unpack(f"<{len(data) // 4}I", data)
    inner, laid_out = {}, []
    for op, words_of in instructions(words):
        if op == OP_POINTER:
            inner[words_of[1]] = [words_of[3]]
        elif op in (OP_VECTOR, OP_MATRIX, OP_ARRAY, OP_RUNTIME_ARRAY):
            inner[words_of[1]] = [words_of[2]]
        elif op == OP_STRUCT:
            inner[words_of[1]] = list(words_of[2:])
        elif op == OP_VARIABLE and words_of[3] in BUFFERS:
            laid_out.append(words_of[1])
        elif op == OP_FUNCTION:
            break
    reached = set()
    while laid_out:
        ty = laid_out.pop()
        if ty not in reached:
            reached.add(ty)
            laid_out.extend(inner.get(ty, []))
    kept = list(words[:5])
    for op, words_of in instructions(words):
        idle = (op == OP_DECORATE and words_of[2] == ARRAY_STRIDE) or (op == OP_MEMBER_DECORATE and words_of[3] == OFFSET)
        if not idle or words_of[1] in reached:
            kept.extend(words_of)
    return struct.pack(f"<{len(kept)}I", *kept)


def validate(tool, path):
    """What is wrong with a module, if anything is."""
    command = [tool, "--target-env", "vulkan1.3", "--scalar-block-layout", "-"]
    done = subprocess.run(command, input=without_idle_layout(path.read_bytes()), capture_output=True, check=False)
    return None if done.returncode == 0 else f"{path.name}: {done.stderr.decode().strip() or done.returncode}"


def main():
    tool, folder = sys.argv[1:]
    paths = sorted(pathlib.Path(folder).glob("*.spv"))
    if not paths:
        sys.exit(f"{folder}: has no .spv files")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [told for told in pool.map(lambda path: validate(tool, path), paths) if told]
    print("\n".join(failures[:20]), end="\n" if failures else "")
    print(f"{len(paths) - len(failures)} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
