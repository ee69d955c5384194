#!/usr/bin/env python3
"""Times flash-linear-attention's Triton kernels on the linear cases of benches/cases.toml, as the bench example times this library's.

    python benches/peers/flash_linear.py --csv fla.csv
    cargo run --release --example bench -- --against fla.csv

Each kernel runs in f16, as the case says, and in bf16, for which its authors publish figures. Results are checked against the
recurrence in f64 before they are timed: the first 2048 tokens of the first and the last head, on which no later token has a say.
Needs the package fla-core (no other part of flash-linear-attention) and einops beside PyTorch and Triton. (The file is not called
fla.py: it would be imported in place of the package.)
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import case_table
from case_table import Case
from pytorch import Bench, Unsuitable, measure_all

CHECKED = 2048
REL_ERR = {"f16": 1e-2, "bf16": 5e-2}
DELTA = ("delta", "gated_delta", "kda")


def family(case: Case) -> str | None:
    """Of a linear case that these kernels have: more than one token, 16-bit."""
    words = case.words
    known = ("lightning", "simple_gla", "gla", *DELTA)
    found = words[0] == "linear" and words[1] in known and case.dtype == "f16"
    return words[1] if found else None


class Linear(Bench):
    """The measuring of pytorch.py, with other operands and another formula."""

    def operands(self, case: Case, dtype: str) -> dict:
        """Random ones, [batch, len, heads, ...] as the kernels take them."""
        torch, kind = self.torch, family(case)
        types = {"f16": torch.float16, "bf16": torch.bfloat16}
        shape = (case.batch, case.len_q, case.heads)
        normal = lambda *dims: torch.randn(*shape, *dims, device=self.device)
        cut = lambda x: x.to(types[dtype])
        functional = torch.nn.functional
        q, k, v = (normal(dim) for dim in (case.head_dim, case.head_dim, case.v_dim))
        if kind in DELTA:
            q, k = (functional.normalize(x, dim=-1) for x in (q, k))
        given = {"q": cut(q), "k": cut(k), "v": cut(v), "scale": 1.0 if kind == "lightning" else case.head_dim**-0.5}
        if kind == "lightning":
            slopes = torch.arange(1, case.heads + 1, device=self.device, dtype=torch.float32)
            given["g_gamma"] = -torch.exp2(-8.0 * slopes / case.heads)
        if kind in ("simple_gla", "gated_delta"):
            given["g"] = cut(functional.logsigmoid(normal()) / 16)
        if kind in ("gla", "kda"):
            given["g"] = cut(functional.logsigmoid(normal(case.head_dim)) / 16)
        if kind in DELTA:
            given["beta"] = cut(torch.sigmoid(normal()))
        given.update(self.state(case))
        return given

    def state(self, case: Case) -> dict:
        if case.len_q > 1:
            return {}
        shape = (case.batch, case.heads, case.head_dim, case.v_dim)
        return {"initial_state": self.torch.randn(shape, device=self.device), "output_final_state": True}

    def kernel(self, case: Case):
        """The function of fla.ops and its name."""
        kind, one = family(case), case.len_q == 1
        if kind in ("lightning", "simple_gla"):
            from fla.ops import simple_gla as module
        elif kind == "gla":
            from fla.ops import gla as module
        elif kind == "delta":
            from fla.ops import delta_rule as module
        elif kind == "gated_delta":
            from fla.ops import gated_delta_rule as module
        else:
            from fla.ops import kda as module
        stem = {"lightning": "simple_gla", "delta": "delta_rule", "gated_delta": "gated_delta_rule"}.get(kind, kind)
        name = ("fused_recurrent_" if one else "chunk_") + stem
        return getattr(module, name), name

    def recurrence(self, case: Case, given: dict, b: int, h: int):
        """Out of the first tokens of a head, token by token in f64."""
        torch = self.torch
        head = lambda name: given[name][b, :CHECKED, h].double()
        q, k, v = head("q"), head("k"), head("v")
        decay = torch.ones(len(q), 1, device=self.device, dtype=torch.float64)
        if "g_gamma" in given:
            decay *= given["g_gamma"][h].double().exp()
        elif "g" in given:
            decay = head("g").exp().reshape(len(q), -1)
        state = torch.zeros(case.head_dim, case.v_dim, device=self.device, dtype=torch.float64)
        if "initial_state" in given:
            state = given["initial_state"][b, h].double()
        out = torch.empty_like(v)
        for t in range(len(q)):
            state = decay[t][:, None] * state
            u = v[t] - k[t] @ state if "beta" in given else v[t]
            u = u * given["beta"][b, t, h].double() if "beta" in given else u
            state = state + torch.outer(k[t], u)
            out[t] = given["scale"] * (q[t] @ state)
        return out

    def linear_error(self, case: Case, given: dict, out) -> float:
        worst = 0.0
        for b, h in ((0, 0), (case.batch - 1, case.heads - 1)):
            exact = self.recurrence(case, given, b, h)
            error = (out[b, :CHECKED, h].double() - exact).abs().max() / exact.abs().max()
            worst = float("nan") if self.torch.isnan(error) else max(worst, error.item())
        return worst

    def measure_linear(self, case: Case, dtype: str) -> dict:
        """A row of the CSV."""
        given = self.operands(case, dtype)
        kernel, name = self.kernel(case)
        if name.startswith("fused_recurrent_gla"):
            given["gk"] = given.pop("g")
        start = time.perf_counter()
        out = kernel(**given)[0]
        self.sync()
        first = time.perf_counter() - start
        if "gk" in given:
            given["g"] = given["gk"]
        rel_err = self.linear_error(case, given, out)
        if "gk" in given:
            del given["g"]
        if not rel_err <= REL_ERR[dtype]:
            raise Unsuitable(f"is wrong by {rel_err:.1e} of the largest value: not timed")
        del out
        return case.row(self.name, self.driver, f"fla {name} {dtype}", self.seconds(lambda: kernel(**given)), self.calls, rel_err, first)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", default=[], help="cases to run, by name, joined by commas, in this order")
    parser.add_argument("--dtype", choices=["f16", "bf16"], help="one type instead of both")
    parser.add_argument("--cases", type=Path, default=case_table.TABLE, help="another case table")
    parser.add_argument("--csv", type=Path, help="where rows go, each as soon as it is measured")
    parser.add_argument("--repeats", type=int, default=21, help="timed repetitions; the median counts")
    parser.add_argument("--calls", type=int, default=1, help="calls between two events, whose mean counts, as bench --calls")
    parser.add_argument("--dry-run", action="store_true", help="lists what would be measured; needs no PyTorch")
    parser.add_argument("--traceback", action="store_true", help="prints where an error arose, too")
    args = parser.parse_args()
    args.case = [name for names in args.case for name in names.split(",")]
    if args.calls < 1:
        parser.error(f"--calls: is {args.calls}, but must be at least 1")
    return args


def main() -> int:
    args = arguments()
    cases = {case.name: case for case in case_table.read(args.cases) if family(case)}
    for name in args.case:
        if name not in cases:
            print(f"flash_linear: --case: {name} is not a linear f16 case of the table", file=sys.stderr)
            return 1
    work = [cases[name] for name in args.case or cases]
    if args.dry_run:
        for case in work:
            print(f"{case.name:<40} {case.flops() * 1e-9:>12.3f} GFLOP {case.bytes() * 1e-6:>9.1f} MB")
        return 0

    bench = Linear("cuda", args.repeats, args.calls)
    bench.introduce()
    dtypes = [args.dtype] if args.dtype else ["f16", "bf16"]
    measure_all(bench, [(case, dtype) for case in work for dtype in dtypes], args, "fla", bench.measure_linear)
    return 0


if __name__ == "__main__":
    sys.exit(main())
