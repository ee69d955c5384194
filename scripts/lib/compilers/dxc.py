#!/usr/bin/env python3
"""Compiles every HLSL shader of a folder with DirectX's compiler, as wgpu asks it to: dxc.py LIBDXCOMPILER FOLDER

The library has one C function, and classes behind pointers to tables of methods. On systems other than Windows such a table has
two destructors between the methods of IUnknown and the rest.
"""

import collections
import ctypes
import json
import multiprocessing
import os
import pathlib
import sys
import uuid

COMPILER_CLASS = "73e22d93-e6ce-47f3-b5bf-f0664f39c1b0"
COMPILER_3, RESULT = "228b4687-5a6a-4730-900c-9702b2203f54", "58346cda-dde7-4497-9461-6f87af5e0659"
RELEASE, FIRST_METHOD = 2, 5
UTF8 = 65001
# What DX12 has, whatever the card.
WORKGROUP_BYTES = 32768


class Buffer(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p), ("size", ctypes.c_size_t), ("encoding", ctypes.c_uint32)]


def guid(text):
    return ctypes.create_string_buffer(uuid.UUID(text).bytes_le, 16)


def call(this, slot, result, *arguments):
    """Calls a method of a class: arguments are ctypes values."""
    table = ctypes.cast(this, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    kinds = [ctypes.c_void_p] + [type(argument) for argument in arguments]
    return ctypes.CFUNCTYPE(result, *kinds)(table[slot])(this, *arguments)


def blob_bytes(blob):
    pointer = call(blob, FIRST_METHOD, ctypes.c_void_p)
    size = call(blob, FIRST_METHOD + 1, ctypes.c_size_t)
    return ctypes.string_at(pointer, size)


class Compiler:
    def __init__(self, library):
        self.library = ctypes.CDLL(library)
        self.compiler = ctypes.c_void_p()
        made = self.library.DxcCreateInstance(guid(COMPILER_CLASS), guid(COMPILER_3), ctypes.byref(self.compiler))
        if made != 0:
            sys.exit(f"{library}: gives no compiler ({made & 0xFFFFFFFF:08x})")

    def compile(self, text, arguments):
        """The error text; None where there is none."""
        source = Buffer(ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p), len(text), UTF8)
        words = (ctypes.c_wchar_p * len(arguments))(*arguments)
        result = ctypes.c_void_p()
        done = call(
            self.compiler,
            FIRST_METHOD,
            ctypes.c_int32,
            ctypes.cast(ctypes.pointer(source), ctypes.c_void_p),
            ctypes.cast(words, ctypes.c_void_p),
            ctypes.c_uint32(len(arguments)),
            ctypes.c_void_p(),
            ctypes.cast(guid(RESULT), ctypes.c_void_p),
            ctypes.cast(ctypes.pointer(result), ctypes.c_void_p),
        )
        if done != 0:
            return f"the compiler does not run ({done & 0xFFFFFFFF:08x})"
        status, blob = ctypes.c_int32(-1), ctypes.c_void_p()
        call(result, FIRST_METHOD, ctypes.c_int32, ctypes.cast(ctypes.pointer(status), ctypes.c_void_p))
        # The program where it compiled, else what the compiler says.
        slot = FIRST_METHOD + (1 if status.value == 0 else 2)
        call(result, slot, ctypes.c_int32, ctypes.cast(ctypes.pointer(blob), ctypes.c_void_p))
        held = blob_bytes(blob) if blob.value else b""
        for pointer in (blob, result):
            if pointer.value:
                call(pointer, RELEASE, ctypes.c_uint32)
        if status.value == 0:
            return None if held.startswith(b"DXBC") else "what it made is no program"
        return held.decode(errors="replace").strip("\0\n") or f"it failed without a word ({status.value})"


compiler = None


def start(library):
    global compiler
    compiler = Compiler(library)


def check(job):
    path, f16 = job
    arguments = ["-E", "main", "-T", "cs_6_2" if f16 else "cs_6_0", "-HV", "2018", "-no-warnings", "-Ges"]
    told = compiler.compile(path.read_bytes(), arguments + (["-enable-16bit-types"] if f16 else []))
    return f"{path.name}: {told}" if told else None


def main():
    library, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    start(library)
    if compiler.compile(b"[numthreads(1, 1, 1)] void main() { undeclared = 1; }", ["-E", "main", "-T", "cs_6_0"]) is None:
        sys.exit("the compiler accepts what is no program")
    jobs, left_out = [], collections.Counter()
    for entry in json.loads((folder / "index.json").read_text()):
        if entry["matrices"]:
            left_out["on matrix units, which DX12 is not given"] += 1
        elif entry["workgroup_bytes"] > WORKGROUP_BYTES:
            left_out[f"more than {WORKGROUP_BYTES} bytes of workgroup memory, which plans refuse on DX12"] += 1
        else:
            jobs.append((folder / f"{entry['name']}.hlsl", entry["f16"]))
    if not jobs:
        sys.exit(f"{folder}: has no shaders for DX12")
    with multiprocessing.Pool(os.cpu_count(), start, [library]) as pool:
        failures = [told for told in pool.imap_unordered(check, jobs, 4) if told]
    for told in failures[:20]:
        print(told)
    for why, count in left_out.items():
        print(f"{count} left out: {why}")
    print(f"{len(jobs) - len(failures)} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
