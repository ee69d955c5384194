//! The first lines of an attention kernel: its types and its numbers.

use std::collections::HashMap;

use super::attention_spec::{AttentionSpec, ScoreMod, Storage, Visitor};
use super::layout::DType;
use super::params::MAX_PER_HEAD;
use super::tuning::Products;
use crate::mask::MAX_RULES;

impl AttentionSpec {
    /// The numbers of the prelude.
    fn constants(&self) -> Vec<(&'static str, u32)> {
        let tile = self.tile;
        let mut constants = vec![
            ("HEAD_DIM", self.head_dim),
            ("V_DIM", self.v_dim / tile.v_parts),
            ("QK4", self.head_dim.div_ceil(4)),
            ("V4", (self.v_dim / tile.v_parts).div_ceil(4)),
            ("BLOCK_Q", tile.block_q),
            ("BLOCK_KV", tile.block_kv),
            ("LANES", tile.lanes),
            ("LANE_STEPS", tile.lanes.trailing_zeros()),
            ("THREADS", tile.threads),
            ("V_PARTS", tile.v_parts),
            ("PACK", self.pack),
            ("IN_HALVES", u32::from(self.in_halves())),
            ("MAX_PER_HEAD", MAX_PER_HEAD as u32),
            ("MAX_RULE_ARGS", 2 * MAX_RULES as u32),
        ];
        constants.extend(match tile.products {
            Products::Matrices(matrices) => matrices.constants(&tile, [self.head_dim, self.v_dim], self.dtype),
            Products::Staged | Products::Broadcast(_) | Products::Stream(_) => self.vector_constants(),
        });
        constants
    }

    /// What is on or off in the prelude.
    fn switches(&self) -> Vec<(&'static str, bool)> {
        let tile = self.tile;
        let mut switches = vec![
            ("SCORED", !self.scores.is_empty()),
            ("TEST_ALL", self.test_all),
            ("WHOLE_TILES", self.whole_tiles),
            ("TOURS", self.tours),
            ("LAST_APART", self.staged_list || (self.tours && self.visitor == Visitor::Window)),
            ("SCALE_LAST", self.scale_last),
            ("TELLS", self.tells()),
            ("ALL_WANTED", !self.redo),
        ];
        if let Products::Matrices(matrices) = tile.products {
            let c: HashMap<_, _> =
                matrices.constants(&tile, [self.head_dim, self.v_dim], self.dtype).into_iter().collect();
            // Whether every thread has as many pieces of a tile, and none of them is padding.
            let even = |rows: u32, cols: &str| (rows * c[cols]).is_multiple_of(tile.threads);
            let q_even = even(tile.block_q, "Q_SLAB8");
            let [k_even, v_even] = ["K_COLS8", "V_COLS8"].map(|cols| even(tile.block_kv, cols));
            switches.extend([("Q_EVEN", q_even), ("Q_WHOLE", q_even && c["Q_SLABS"] * c["Q_SLAB8"] == c["QK8"])]);
            switches.extend([("K_EVEN", k_even), ("K_WHOLE", k_even && c["K_COLS8"] == c["QK8"])]);
            switches.extend([("V_EVEN", v_even), ("V_WHOLE", v_even && c["V_COLS8"] == c["V8"])]);
        } else {
            let sizes = tile.sizes(self.head_dim, self.v_dim);
            let whole_slices = sizes.qk_slices * sizes.slice4 == sizes.qk4;
            switches.extend([("Q_RESIDENT", tile.q_resident), ("WHOLE_SLICES", whole_slices)]);
            // Why is in lib/dot_fma.wgsl.
            switches.push(("GUARDS_APART", sizes.rows > 1));
        }
        switches
    }

    /// What the text is unrolled by: numbers, and switches as 0 or 1.
    pub(super) fn known(&self) -> Vec<(&'static str, u32)> {
        let switches = self.switches().into_iter().map(|(name, on)| (name, u32::from(on)));
        self.constants().into_iter().chain(switches).collect()
    }

    fn vector_constants(&self) -> Vec<(&'static str, u32)> {
        let (tile, sizes) = (self.tile, self.tile.sizes(self.head_dim, self.v_dim));
        let subgroup = if let Products::Broadcast(size) = tile.products { size } else { 4 };
        let wide = if self.storage == Storage::Wide8 { 2 } else { 1 };
        let share = tile.share();
        let pieces = sizes.qk4.div_ceil(share);
        vec![
            ("UNROLL_SLICES", u32::from(tile.unrolls_slices())),
            ("SLICE_V", tile.slice_v),
            ("SLICE_V4", tile.slice_v / 4),
            ("ROWS", sizes.rows),
            ("KEYS4", sizes.keys4),
            ("COLS4", sizes.cols4),
            ("SCORES", sizes.rows * sizes.keys4),
            ("ACCS", sizes.rows * sizes.cols4),
            ("QK_SLICES", sizes.qk_slices),
            ("SLICE4", sizes.slice4),
            ("V_SLICES", sizes.v_slices),
            ("Q_STRIDE", sizes.q_stride),
            ("K_STRIDE", sizes.k_stride),
            ("P_STRIDE", sizes.p_stride),
            ("Q_TILE", sizes.q_tile),
            ("KV_TILE", sizes.kv_tile),
            ("P_TILE", sizes.p_tile),
            ("P_START", sizes.p_start),
            ("QP_TILE", sizes.qp_tile),
            ("K_LOADS", (tile.block_kv * sizes.slice4).div_ceil(tile.threads)),
            ("Q_LOADS", (tile.block_q * sizes.slice4).div_ceil(tile.threads)),
            ("V_LOADS", (tile.slice_v * sizes.v4).div_ceil(tile.threads)),
            ("KEYS8", sizes.keys4 / 2),
            ("SUBGROUP", subgroup),
            ("SUBGROUP4", subgroup / 4),
            ("KEY_GROUPS", tile.block_kv / subgroup),
            ("WIDE", wide),
            ("QK_UNITS", sizes.qk4.div_ceil(wide)),
            ("Q_HELD", sizes.qk4.div_ceil(wide) * sizes.rows),
            ("V_UNITS", sizes.v4.div_ceil(wide)),
            ("V_GROUPS", sizes.v4.div_ceil(wide * subgroup)),
            ("SHARE", share),
            ("PIECES", pieces),
            ("TURNS", tile.slice_qk / 4),
            ("K_FLIGHT", tile.slice_qk * pieces),
            ("V_FLIGHT", tile.slice_v * sizes.cols4),
        ]
    }

    pub(super) fn prelude(&self) -> String {
        let mut text = String::new();
        let bias = self.scores.contains(&ScoreMod::Bias);
        let relative = self.has_relative();
        let f16 = [(!self.pairs, self.dtype), (bias, self.bias_dtype), (relative, self.relative_dtype)];
        if let Products::Matrices(matrices) = self.tile.products {
            text += &matrices.prelude();
        } else if self.user.uses_f16() || f16.contains(&(true, DType::F16)) {
            text += "enable f16;\n";
        }
        // Pairs are words, whose types the fragments know.
        if !self.pairs {
            text += &format!("alias elem = {};\n", self.dtype);
        }
        if !self.pairs || self.split {
            text += &format!("alias out_elem = {};\n", self.out_dtype());
        }
        if bias {
            text += &format!("alias bias_elem = {};\n", self.bias_dtype);
        }
        if relative {
            text += &format!("alias relative_elem = {};\n", self.relative_dtype);
        }
        for (name, value) in self.constants() {
            text += &format!("const {name}: u32 = {value}u;\n");
        }
        for (name, on) in self.switches() {
            text += &format!("const {name}: bool = {on};\n");
        }
        // How far, in powers of two, a score may exceed its row's reference: f16 weights leave room for 2^15.
        let lazy = if matches!(self.tile.products, Products::Matrices(_)) { 8.0 } else { 0.0 };
        text + &format!("const LAZY: f32 = {lazy:?};\n")
    }
}
