#!/usr/bin/env python3
"""Times PyTorch's attention on the cases of benches/cases.toml, as the bench example times this library's.

    python benches/peers/pytorch.py --csv torch.csv
    cargo run --release --example bench -- --against torch.csv

SDPA runs by each backend by name, on cases without a mask or with a causal one; FlexAttention, compiled, on these and on
windows, blocks, segments and neighborhoods. Each result is checked against the same formula in f64 before it is timed.
(The file is not called torch.py: it would be imported in place of PyTorch.)
"""

from __future__ import annotations

import argparse
import csv
import gc
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import case_table
from case_table import Case

WARM_UP = 0.35  # seconds: clocks of a resting card take this long to rise
REL_ERR = {"f32": 1e-4, "f16": 1e-2}  # TensorFloat-32 would err by about 3e-4
SDPA = ["FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"]
SDPA_CPU = ["FLASH_ATTENTION", "MATH"]
FLEX = "FlexAttention"


def paths(case: Case, device: str, wanted: list[str]) -> list[str]:
    """What PyTorch has for a case; whether a backend takes it is for PyTorch to say."""
    kind = case.words[0]
    found = []
    if kind in ("full", "causal"):
        found += SDPA if device == "cuda" else SDPA_CPU
    if kind in ("full", "causal", "window", "blocks", "segments", "neighborhood", "raster"):
        found.append(FLEX)
    return [path for path in found if not wanted or path in wanted]


class Unsuitable(Exception):
    """Why a path is not measured on a case."""


class Bench:
    def __init__(self, device: str, repeats: int, calls: int):
        # Not at the top: --dry-run does without.
        import masks
        import torch

        self.torch, self.masks = torch, masks
        self.device = torch.device(device)
        self.repeats, self.calls = repeats, calls
        torch.manual_seed(7)
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("highest")
        self.cuda = device == "cuda"
        if self.cuda:
            self.name = torch.cuda.get_device_name()
            self.driver = f"PyTorch {torch.__version__} CUDA {torch.version.cuda}"
            self.small = [torch.randn(1024, 1024, device=device) for _ in range(3)]
        else:
            self.name, self.driver = "CPU", f"PyTorch {torch.__version__}"

    def introduce(self):
        print(f"{self.name} ({self.driver})", file=sys.stderr)

    # Time

    def sync(self):
        if self.cuda:
            self.torch.cuda.synchronize()

    def seconds(self, call) -> float:
        """Of a call: the median of the repetitions, after a warm-up."""
        start = time.perf_counter()
        while True:
            call()
            self.sync()
            if not self.cuda or time.perf_counter() - start >= WARM_UP:
                break
        return statistics.median(self.once(call) for _ in range(self.repeats))

    def once(self, call) -> float:
        """By events on the GPU's stream, behind other work: the host is ahead by then, and its own time does not count."""
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(self.calls):
                call()
            return (time.perf_counter() - start) / self.calls
        a, b, c = self.small
        for _ in range(40):
            self.torch.mm(a, b, out=c)
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(self.calls):
            call()
        end.record()
        self.sync()
        return start.elapsed_time(end) * 1e-3 / self.calls

    def ceilings(self):
        """Prints what a copy and matrix products reach."""
        torch = self.torch
        values, side = (1 << 28, 8192) if self.cuda else (1 << 24, 1024)
        source, target = (torch.randn(values, device=self.device) for _ in range(2))
        copied = 8.0 * values / self.seconds(lambda: target.copy_(source))
        print(f"ceilings: copy {copied * 1e-9:.0f} GB/s", file=sys.stderr, end="")
        del source, target
        for dtype in (torch.float16, torch.float32):
            a, b = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
            reached = 2.0 * side**3 / self.seconds(lambda: torch.mm(a, b))
            print(f", {dtype} matmul {reached * 1e-12:.1f} TFLOP/s", file=sys.stderr, end="")
        print(file=sys.stderr)

    # Cases

    def call(self, case: Case, path: str, q, k, v):
        """The attention of a path, as a function without arguments."""
        torch = self.torch
        grouped = case.heads != case.heads_kv
        if path == FLEX:
            from torch.nn.attention.flex_attention import flex_attention

            torch._dynamo.reset()
            mask, options = self.masks.blocks(case, self.device)
            compiled = torch.compile(flex_attention, dynamic=False)
            return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=grouped, kernel_options=options)

        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.attention.bias import causal_lower_right

        if path == "MATH":
            self.check_memory(case)
        arguments = {"enable_gqa": grouped}
        # PyTorch's own flag aligns at the top left. A single query, the last, sees every key.
        if case.mask == "causal" and case.len_q == case.len_kv:
            arguments["is_causal"] = True
        elif case.mask == "causal" and case.len_q > 1:
            arguments["attn_mask"] = causal_lower_right(case.len_q, case.len_kv)
        backend = getattr(SDPBackend, path)

        def attend():
            with sdpa_kernel(backend):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, **arguments)

        return attend

    def check_memory(self, case: Case):
        """MATH keeps scores and weights in memory, in f32 at times."""
        needed = 4 * 4 * case.batch * case.heads * case.len_q * case.len_kv
        free = self.torch.cuda.mem_get_info()[0] if self.cuda else 4 << 30
        if needed > free:
            raise Unsuitable(f"scores would take {needed >> 30} GiB, and {free >> 30} are free")

    def rel_err(self, case: Case, q, k, v, out) -> float:
        """Against some rows of the first and the last head in f64, over the largest value."""
        torch = self.torch
        rows = sorted({*range(0, case.len_q, max(case.len_q // 24, 1)), case.len_q - 1})
        rows = torch.tensor(rows, device=self.device)
        allowed = self.masks.allowed(case, self.device)
        worst = 0.0
        for b, h in ((0, 0), (case.batch - 1, case.heads - 1)):
            kv = h // (case.heads // case.heads_kv)
            scores = q[b, h, rows].double() @ k[b, kv].double().T / case.head_dim**0.5
            if allowed is not None:
                keys = torch.arange(case.len_kv, device=self.device)
                scores.masked_fill_(~allowed(b, h, rows[:, None], keys[None, :]), -torch.inf)
            exact = torch.softmax(scores, -1) @ v[b, kv].double()
            error = (out[b, h, rows].double() - exact).abs().max() / exact.abs().max()
            # NaN is no smaller than anything, and max() would lose it.
            worst = float("nan") if torch.isnan(error) else max(worst, error.item())
        return worst

    def measure(self, case: Case, path: str, tensors) -> dict:
        """A row of the CSV."""
        start = time.perf_counter()
        call = self.call(case, path, *tensors)
        out = call()
        self.sync()
        first = time.perf_counter() - start
        rel_err = self.rel_err(case, *tensors, out)
        if not rel_err <= REL_ERR[case.dtype]:
            raise Unsuitable(f"is wrong by {rel_err:.1e} of the largest value: not timed")
        del out
        return case.row(self.name, self.driver, f"torch {path}", self.seconds(call), self.calls, rel_err, first)

    def tensors(self, case: Case):
        """Random q, k and v."""
        dtype = {"f32": self.torch.float32, "f16": self.torch.float16}[case.dtype]
        return [self.torch.randn(shape, device=self.device, dtype=dtype) for shape in case.shapes()]

    def clear(self):
        """Frees what the last path left, after a failure too."""
        gc.collect()
        if self.cuda:
            self.torch.cuda.empty_cache()


def sentence(error: Exception, warned: list[warnings.WarningMessage]) -> str:
    """One line: what failed, and what PyTorch warned of on the way, which is where backends say why."""
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, Unsuitable) else f"{type(error).__name__}: "
    reasons = [str(w.message).splitlines()[0].split(" (Triggered")[0] for w in warned]
    reasons = [r for r in dict.fromkeys(reasons) if "kernel not used because" not in r]
    text = kind + lines[0] + (f" ({'; '.join(reasons[:3])})" if reasons else "")
    return text[:400]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", default=[], help="cases to run, by name, joined by commas")
    parser.add_argument("--backend", action="append", default=[], help=f"of {', '.join(SDPA)}, {FLEX}; all unless given")
    parser.add_argument("--cases", type=Path, default=case_table.TABLE, help="another case table")
    parser.add_argument("--csv", type=Path, help="where rows go, each as soon as it is measured")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--repeats", type=int, default=21, help="timed repetitions; the median counts")
    parser.add_argument("--calls", type=int, default=1, help="calls between two events, whose mean counts, as bench --calls")
    parser.add_argument("--dry-run", action="store_true", help="lists what would be measured; needs no PyTorch")
    parser.add_argument("--traceback", action="store_true", help="prints where an error arose, too")
    args = parser.parse_args()
    args.case = [name for names in args.case for name in names.split(",")]
    args.backend = [name for names in args.backend for name in names.split(",")]
    if args.calls < 1:
        parser.error(f"--calls: is {args.calls}, but must be at least 1")
    for name in args.backend:
        if name not in [*SDPA, FLEX]:
            parser.error(f"--backend: {name} is none of {', '.join(SDPA)}, {FLEX}")
    return args


def measure_all(bench: Bench, work: list[tuple[Case, str]], args: argparse.Namespace, peer: str, measured: Callable) -> None:
    """Each case by each of its ways: a row of the CSV as soon as it is measured, or a sentence."""
    file = open(args.csv, "w", newline="") if args.csv else None
    writer = csv.DictWriter(file, case_table.COLUMNS, lineterminator="\n") if file else None
    if writer:
        writer.writeheader()
        file.flush()
    for case, way in work:
        bench.clear()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            try:
                row = measured(case, way)
            except Exception as error:  # whatever the peer or its compiler raises: the next way may do
                print(f"{case.name} {peer} {way}: {sentence(error, warned)}", file=sys.stderr)
                if args.traceback:
                    traceback.print_exc()
                continue
        if writer:
            writer.writerow(row)
            file.flush()
        print(
            f"{case.name:<36} {float(row['ms']):>9.3f} ms {float(row['tflops']):>8.3f} TFLOP/s {float(row['gbs']):>7.0f}"
            f" GB/s, error {row['rel_err']}, first {row['first_s']} s, {row['path']}",
            file=sys.stderr,
            flush=True,
        )


def main() -> int:
    args = arguments()
    cases = case_table.read(args.cases)
    for name in args.case:
        if all(case.name != name for case in cases):
            print(f"pytorch: --case: {name} is not in the case table", file=sys.stderr)
            return 1
    work = [(case, paths(case, args.device, args.backend)) for case in cases if not args.case or case.name in args.case]
    work = [(case, found) for case, found in work if found]
    if args.dry_run:
        for case, found in work:
            print(f"{case.name:<40} {case.flops() * 1e-9:>12.3f} GFLOP {case.bytes() * 1e-6:>9.1f} MB  {', '.join(found)}")
        return 0

    bench = Bench(args.device, args.repeats, args.calls)
    bench.introduce()
    bench.ceilings()
    kept: dict[str, dict] = {}

    def measured(case: Case, path: str) -> dict:
        """The paths of a case share its tensors."""
        if case.name not in kept:
            kept.clear()
            kept[case.name] = bench.tensors(case)
        return bench.measure(case, path, kept[case.name])

    measure_all(bench, [(case, path) for case, found in work for path in found], args, "torch", measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
