"""The case table benches/cases.toml as the bench example reads it: shapes, masks, and the same counts of work."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "cases.toml"

# Of examples/bench/main.rs; first_s is the peers' own: seconds from the first call to its result, compilation included.
COLUMNS = (
    "case,device,driver,dtype,batch,heads,heads_kv,len_q,len_kv,head_dim,v_dim,mask,path,ms,tflops,gbs,of_fma,of_copy,"
    "rel_err,tile_density,of_dense,floor_ms,of_floor,calls,first_s"
).split(",")


@dataclass(frozen=True)
class Case:
    name: str
    dtype: str
    batch: int
    heads: int
    heads_kv: int
    len_q: int
    len_kv: int
    head_dim: int
    v_dim: int
    mask: str

    @property
    def words(self) -> list[str]:
        return self.mask.split()

    @property
    def offset(self) -> int:
        """Key position of the first query: masks are aligned at the bottom right."""
        return self.len_kv - self.len_q

    def seen(self, i: int) -> tuple[int, int]:
        """The keys from .. until that query i of a full, causal, window or segments mask sees."""
        at = i + self.offset
        match self.words:
            case ["full"]:
                return 0, self.len_kv
            case ["causal"]:
                return 0, max(0, min(at + 1, self.len_kv))
            case ["window", left, right]:
                return max(0, at - int(left)), max(0, min(at + int(right) + 1, self.len_kv))
            case ["segments", each]:
                first = i // int(each) * int(each)
                return first, min(first + int(each), self.len_kv)
        raise ValueError(f"{self.name}: mask {self.mask!r} is not an interval a query")

    @cached_property
    def grid(self) -> tuple[list[int], list[int]]:
        """Sides and windows of a neighborhood."""
        _, sides, windows = self.words
        return [int(n) for n in sides.split("x")], [int(n) for n in windows.split("x")]

    @cached_property
    def blocks(self) -> tuple[int, list[list[int]]]:
        """The side of a block, and the blocks that each row of blocks sees: as many as bench draws, others of them."""
        _, side, density = self.words
        each_side = int(side)
        count = -(-self.len_q // each_side)
        # Half away from zero, as Rust rounds: the share that the name says, in each row as many or one more.
        before = lambda row: int(row * count * float(density) + 0.5)
        draw = random.Random(5)
        return each_side, [sorted(draw.sample(range(count), before(n + 1) - before(n))) for n in range(count)]

    def pairs(self) -> int:
        """Pairs that attend, a head."""
        match self.words:
            case ["blocks", *_]:
                side, rows = self.blocks
                length = lambda block: min((block + 1) * side, self.len_q) - block * side
                return sum(length(i) * sum(map(length, row)) for i, row in enumerate(rows))
            case ["neighborhood" | "raster", *_]:
                pairs = 1
                for side, window in zip(*self.grid):
                    pairs *= side * min(side, window)
                return pairs
        return sum(max(0, until - first) for first, until in map(self.seen, range(self.len_q)))

    def flops(self) -> float:
        """Two products, a multiply and an add each, over the pairs that attend; of linear attention, chunks of 64."""
        if self.words[0] == "linear":
            return self.linear_flops()
        return 2.0 * self.pairs() * (self.head_dim + self.v_dim) * self.batch * self.heads

    def bytes(self) -> float:
        """Bytes of q, k, v and out, each once; of linear attention also of its gates, and of a single token's state."""
        if self.words[0] == "linear":
            return self.linear_bytes()
        width = self.head_dim + self.v_dim
        size = 2 if self.dtype == "f16" else 4
        return float(self.batch * (self.heads * self.len_q + self.heads_kv * self.len_kv) * width * size)

    @property
    def is_delta(self) -> bool:
        return self.words[1] in ("delta", "gated_delta", "kda")

    def linear_flops(self) -> float:
        k, v, chunk = self.head_dim, self.v_dim, 64
        decayed = 0 if self.words[1] in ("delta", "elu1") else k * v
        if self.len_q == 1:
            token = (6 if self.is_delta else 4) * k * v + decayed
        elif self.is_delta:
            token = 6 * k * v + 2 * chunk * (3 * k + 2 * v) + chunk**2 / 3
        else:
            token = 4 * k * v + 2 * chunk * (k + v)
        return float(token * self.batch * self.heads * self.len_q)

    def linear_bytes(self) -> float:
        channels = {"simple_gla": 1, "gated_delta": 1, "gla": self.head_dim, "kda": self.head_dim}.get(self.words[1], 0)
        row = 2 * (self.head_dim + self.v_dim) + channels + self.is_delta
        state = 8 * self.head_dim * self.v_dim if self.len_q == 1 else 0
        size = 2 if self.dtype == "f16" else 4
        return float((row * size + state) * self.batch * self.heads * self.len_q)

    def shapes(self) -> list[list[int]]:
        """Of q, k and v."""
        return [
            [self.batch, self.heads, self.len_q, self.head_dim],
            [self.batch, self.heads_kv, self.len_kv, self.head_dim],
            [self.batch, self.heads_kv, self.len_kv, self.v_dim],
        ]

    def row(self, device: str, driver: str, path: str, seconds: float, calls: int, rel_err: float, first: float) -> dict:
        """A row of the CSV; what peers do not know stays empty."""
        text = lambda words: words.replace(",", ";")
        return {
            **{key: getattr(self, key) for key in COLUMNS if key in self.__dataclass_fields__},
            "case": self.name,
            "device": text(device),
            "driver": text(driver),
            "path": text(path),
            "ms": f"{seconds * 1e3:.4f}",
            "tflops": f"{self.flops() / seconds * 1e-12:.4f}",
            "gbs": f"{self.bytes() / seconds * 1e-9:.1f}",
            "rel_err": f"{rel_err:.2e}",
            "calls": str(calls),
            "first_s": f"{first:.2f}",
        }


def read(path: Path = TABLE) -> list[Case]:
    """All cases, defaults filled in."""
    cases = []
    for row in tomllib.loads(path.read_text())["case"]:
        cases.append(
            Case(
                name=row["name"],
                dtype=row.get("dtype", "f32"),
                batch=row["batch"],
                heads=row["heads"],
                heads_kv=row.get("heads_kv", row["heads"]),
                len_q=row["len_q"],
                len_kv=row.get("len_kv", row["len_q"]),
                head_dim=row["head_dim"],
                v_dim=row.get("v_dim", row["head_dim"]),
                mask=row.get("mask", "full"),
            )
        )
    return cases
