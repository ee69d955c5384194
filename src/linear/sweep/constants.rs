//! The numbers that specialise the sweep's kernels, and the workgroup memory that follows from them.

use super::{Kind, Sweep};
use crate::gpu::matrices::Matrices;
use crate::linear::check::{Gate, Problem};

/// Blocks of channels of a slice, where pairs are of one gate a row: the fewest keep the most workgroups resident.
const SLICE_BLOCKS: u32 = 2;

/// Distance of rows in workgroup memory, in groups of four: eight more than a row holds, so that rows of a block meet
/// different banks.
fn stride(columns: u32) -> u32 {
    (columns + 8) / 4
}

impl Sweep {
    /// The numbers of a kernel.
    pub(super) fn constants(&self, p: &Problem, kind: Kind) -> Vec<(&'static str, u32)> {
        let strips = self.strips(p, kind);
        let Sweep { matrices: Matrices { size, subgroup, .. }, layout, chunk, .. } = *self;
        let (k, cols) = (p.dim_k() as u32, p.dim_v() as u32);
        let threads = strips * subgroup;
        let (k_blocks, row_blocks) = (k.div_ceil(size), chunk / size);
        let lower_blocks = row_blocks * (row_blocks + 1) / 2;
        let (pairs, channels) = (self.pairs(p), matches!(p.gate, Gate::PerChannel(_)));
        let triangle = size * (lower_blocks * size + 8 * row_blocks) / 4;
        let (a_scales, scales) = self.scales(p);
        let (qk_stride, v_stride) = (stride(k_blocks * size), stride(strips * size));
        let stored = self.gates_stored(p) && kind == Kind::Sweep;
        let gate_parts = match (channels, stored) {
            (true, _) => (k_blocks * size).div_ceil(threads),
            (_, true) => (2 * chunk).div_ceil(threads),
            _ => chunk.div_ceil(subgroup),
        };
        let (qk_cols8, v_cols8) = (k_blocks * size / 8, strips * size / 8);
        vec![
            ("CHUNK", chunk),
            ("K", k),
            ("COLS", cols),
            ("STRIPS", strips),
            ("V_TILES", self.v_tiles(p) as u32),
            ("K_BLOCKS", k_blocks),
            ("ROW_BLOCKS", row_blocks),
            ("LOWER_BLOCKS", lower_blocks),
            ("SCORE_ROUNDS", if pairs == 0 { lower_blocks.div_ceil(strips) } else { 1 }),
            ("HELD_BLOCKS", if p.beta.is_some() { row_blocks } else { 1 }),
            ("PAIRS", pairs),
            // Whether the sweep computes scores, rather than a stage before it or none.
            ("SCORES_HERE", u32::from(pairs == 0 && kind != Kind::Read)),
            ("PAIR_ROWS", self.pair_rows(p)),
            ("PAIR_LOADS", (self.pair_rows(p) * size / 8).div_ceil(threads).max(1)),
            ("KEY_LOADS", if channels { (chunk * qk_cols8).div_ceil(threads) } else { 1 }),
            ("QK_STRIDE", qk_stride),
            ("V_STRIDE", v_stride),
            ("CHUNK4", chunk / 4),
            ("QK_TILE", chunk * qk_stride),
            ("V_TILE", chunk * v_stride),
            ("TRIANGLE", triangle),
            ("A_TILE", pairs.max(1) * triangle),
            ("A_SCALES", a_scales),
            ("SCALES", scales),
            ("SCALE_LOADS", scales.div_ceil(threads)),
            ("QK_COLS8", qk_cols8),
            ("V_COLS8", v_cols8),
            ("QK_LOADS", (chunk * qk_cols8).div_ceil(threads)),
            ("V_LOADS", (chunk * v_cols8).div_ceil(threads)),
            ("GATE_PARTS", gate_parts),
            ("KEPT_PARTS", (k_blocks * size).div_ceil(threads)),
            ("CONSTANT_GATES", u32::from(matches!(p.gate, Gate::PerHead(_)) && !stored && p.steps == 1)),
            ("LANE_LEVELS", subgroup.ilog2()),
            ("LANES", layout.lanes),
            ("ELEMENTS4", size * size / subgroup / 4),
        ]
    }

    /// The numbers that the pairs' kernel has besides.
    pub(super) fn pair_constants(&self, p: &Problem) -> Vec<(&'static str, u32)> {
        let Sweep { matrices: Matrices { size, subgroup, .. }, chunk, .. } = *self;
        let (k_blocks, row_blocks) = ((p.dim_k() as u32).div_ceil(size), chunk / size);
        let strips = self.strips(p, Kind::Pairs);
        let tasks = self.pairs(p) * row_blocks * (row_blocks + 1) / 2;
        let slices = k_blocks.div_ceil(SLICE_BLOCKS);
        let slice8 = SLICE_BLOCKS * size / 8;
        let slice_loads = (chunk * slice8).div_ceil(strips * subgroup);
        let (threads, eights) = (strips * subgroup, row_blocks * (row_blocks + 1) / 2 * size * size / 8);
        // Threads that solve while the others do something else, if the last subgroup is among those as a whole: it sums gates.
        let solvers = if self.pairs(p) == 2 && chunk <= threads - subgroup { chunk } else { 0 };
        let (k4, span) = (k_blocks * size / 4, chunk / strips);
        let parts = k4.div_ceil(subgroup);
        // Sums of pairs within a span, which a subgroup's threads share out.
        let values = (span * (span + 1) / 2 + (self.pairs(p).max(1) - 1) * span * (span.max(1) - 1) / 2)
            .max(1)
            .next_power_of_two();
        // Four more than a row holds: rows meet different banks.
        let l_stride = (chunk + 4) / 4;
        let l_tile = chunk * l_stride;
        vec![
            ("L_STRIDE", l_stride),
            ("L_TILE", l_tile),
            ("SLICE_BLOCKS", SLICE_BLOCKS),
            ("SLICES", slices),
            ("SLICE8", slice8),
            ("SOLVERS", solvers),
            ("A_STORES", eights.div_ceil(threads - solvers)),
            ("T_STORES", eights.div_ceil(threads)),
            ("SLICE_STRIDE", stride(SLICE_BLOCKS * size)),
            ("SLICE_TILE", chunk * (2 * stride(SLICE_BLOCKS * size)).max(stride(chunk))),
            ("A_STRIDE", stride(chunk)),
            ("SLICE_LOADS", slice_loads),
            ("ALL_LOADS", slices * slice_loads),
            ("PAIR_ROUNDS", tasks.div_ceil(strips)),
            ("K4", k4),
            ("SPAN", span),
            ("SPAN_LEVELS", span.max(1).ilog2()),
            ("FAR_LEVELS", strips.ilog2()),
            ("VALUES", values),
            ("VALUE_LEVELS", values.ilog2()),
            ("PARTS", parts),
            ("OWN", parts * span),
        ]
    }

    /// Bytes of workgroup memory that the sweep and its pairs need at most.
    pub(super) fn workgroup_bytes(&self, p: &Problem) -> u32 {
        let number = |constants: &[(&str, u32)], name: &str| {
            constants.iter().find(|(n, _)| *n == name).map_or(0, |(_, number)| *number)
        };
        let channels = matches!(p.gate, Gate::PerChannel(_));
        let sweep = self.constants(p, Kind::Sweep);
        let key_tile = number(&sweep, "QK_TILE");
        let of_rows = 6 * self.chunk;
        let gates = match p.gate {
            Gate::None => 0,
            Gate::PerHead(_) | Gate::PerToken(_) => of_rows,
            Gate::PerChannel(_) => 2 * number(&sweep, "K_BLOCKS") * self.matrices.size,
        };
        let held = if channels && p.beta.is_some() { key_tile } else { 0 };
        let tiles = 2 * key_tile + held + number(&sweep, "V_TILE") + number(&sweep, "A_TILE");
        let denominators = if p.has_z() { self.chunk } else { 0 };
        let of_sweep = 8 * tiles + 4 * (number(&sweep, "SCALES") + gates + denominators) + 16;
        if self.pairs(p) == 0 {
            return of_sweep;
        }
        let pairs = self.pair_constants(p);
        let sums = 16 * number(&pairs, "L_TILE") + 4 * self.chunk + 16;
        let rows = if channels {
            let level = (self.pairs(p) + 1) * self.matrices.size * number(&sweep, "QK_STRIDE");
            8 * level + 16 * self.strips(p, Kind::Pairs) * number(&pairs, "K4")
        } else {
            8 * number(&pairs, "SLICE_TILE") + 4 * of_rows
        };
        of_sweep.max(sums + rows)
    }
}
