//! What the softmax loop is specialised for, and the files that such a kernel is made of.

use std::fmt;

use super::layout::DType;
use super::link::{Source, fragment};
use super::mask_spec::{MaskSpec, UserSpec};
use super::matrices::{Fragments, Matrices};
use super::tuning::{Products, Tile, WANTED_BYTES};
use crate::attention::Weights;

/// Which KV tiles a query tile visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Visitor {
    Dense,
    Window,
    List,
}

/// How q, k, v and out are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Storage {
    /// One element at a time, through any strides.
    Scalar,
    /// Four at a time.
    Vec4,
    /// Eight f16 at a time, for matrix units; out four at a time.
    Vec8,
    /// Four at a time, read as 64-bit words: where a load costs by the word, whatever its width. For broadcast products.
    Wide4,
    /// Likewise eight at a time; out four at a time.
    Wide8,
}

impl Storage {
    /// Elements that a load takes of q, k and v, and a store of out.
    pub(crate) fn units(self) -> [usize; 2] {
        match self {
            Storage::Scalar => [1, 1],
            Storage::Vec4 | Storage::Wide4 => [4, 4],
            Storage::Vec8 | Storage::Wide8 => [8, 4],
        }
    }
}

/// One score rule; they run in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ScoreMod {
    Softcap,
    Alibi,
    Bias,
    /// By the number of its rule.
    Relative(usize),
    /// By the number of the user's text.
    Wgsl(usize),
}

/// The softmax loop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AttentionSpec {
    pub visitor: Visitor,
    pub dtype: DType,
    /// Whether f16 is read and written as pairs in words, because shaders have no 16-bit floats.
    pub pairs: bool,
    pub storage: Storage,
    pub head_dim: u32,
    pub v_dim: u32,
    pub tile: Tile,
    /// Heads of a group whose rows lie in one query tile; 1 for none.
    pub pack: u32,
    pub subgroups: bool,
    pub lse: bool,
    /// Whether keys are split into parts, whose results are f32.
    pub split: bool,
    pub weights: Weights,
    pub mask: MaskSpec,
    pub user: UserSpec,
    /// Whether the visitor's full tiles are tested all the same.
    pub test_all: bool,
    /// Whether nothing is known to cut a tile of keys, neither the mask nor their end: pairs of a tile all attend, or none does.
    pub whole_tiles: bool,
    /// Whether a query tile's list passes through workgroup memory, for tours.
    pub staged_list: bool,
    /// Whether rows hold several sequences.
    pub tasks: bool,
    pub scale_per_head: bool,
    pub sinks: bool,
    pub scores: Vec<ScoreMod>,
    pub bias_dtype: DType,
    pub relative_dtype: DType,
    /// Whether query tiles of several heads are visited side by side.
    pub abreast: bool,
    /// Whether a workgroup takes query tile after query tile.
    pub tours: bool,
    /// Whether the scale, one for all heads and positive, enters in the exponent's multiply-add.
    pub scale_last: bool,
    /// Whether only those query tiles are computed whose rows matrix units could not compute.
    pub redo: bool,
}

/// The first file, or else the second.
fn pick(first: bool, a: &'static str, b: &'static str) -> Source {
    fragment(if first { a } else { b })
}

impl AttentionSpec {
    /// Bytes of workgroup memory.
    pub(crate) fn workgroup_bytes(&self) -> u32 {
        let list = if self.staged_list { 4 * self.tile.threads } else { 0 };
        let wanted = if self.redo { WANTED_BYTES } else { 0 };
        self.tile.workgroup_bytes([self.head_dim, self.v_dim], self.dtype, self.subgroups) + list + wanted
    }

    pub(super) fn sources(&self) -> Vec<Source> {
        let mut sources = vec![
            fragment("lib/view.wgsl"),
            fragment("lib/bindings.wgsl"),
            fragment("lib/pack.wgsl"),
            fragment("lib/kv_rows.wgsl"),
            match (self.tile.lanes, self.subgroups) {
                (1, _) => fragment("lib/reduce_none.wgsl"),
                (_, true) => fragment("lib/reduce_subgroup.wgsl"),
                (_, false) => fragment("lib/reduce_workgroup.wgsl"),
            },
            match self.weights {
                Weights::Softmax => fragment("lib/rows_softmax.wgsl"),
                Weights::Relu => fragment("lib/rows_relu.wgsl"),
            },
            pick(self.split, "lib/split_parts.wgsl", "lib/split_none.wgsl"),
            pick(self.lse, "lib/lse_store.wgsl", "lib/lse_none.wgsl"),
            match self.visitor {
                Visitor::Dense => fragment("softmax.wgsl"),
                Visitor::Window => fragment("window.wgsl"),
                Visitor::List => fragment("sparse.wgsl"),
            },
            fragment(match (self.tasks, self.abreast) {
                (true, _) => "lib/place_tasks.wgsl",
                (false, true) => "lib/place_abreast.wgsl",
                (false, false) => "lib/place_grid.wgsl",
            }),
            pick(self.sinks, "mods/sink.wgsl", "mods/sink_none.wgsl"),
            pick(self.scale_per_head, "mods/scale_per_head.wgsl", "mods/scale_one.wgsl"),
        ];
        sources.extend(self.storage_sources());
        sources.extend(self.loop_sources());
        sources.push(fragment("lib/score_tile.wgsl"));
        sources.extend(self.mask.sources());
        if self.visitor == Visitor::List {
            sources.push(fragment("lib/lists.wgsl"));
        }
        if self.reads_tables() {
            sources.push(fragment("lib/tables_read.wgsl"));
        }
        if self.mask.reads_args() || self.has_relative() {
            sources.push(fragment("lib/rule_args.wgsl"));
        }
        if self.scale_per_head || self.scores.contains(&ScoreMod::Alibi) {
            sources.push(fragment("mods/per_head.wgsl"));
        }
        sources.extend(self.score_sources());
        // Last, so that a name that clashes is told at the user's line.
        sources.extend(self.user.sources());
        sources
    }

    /// The loop, and how its products are computed.
    fn loop_sources(&self) -> Vec<Source> {
        let mut sources = Vec::new();
        match self.tile.products {
            Products::Staged => {
                sources.extend(["lib/tile.wgsl", "lib/dot_fma.wgsl", "lib/weights_tile.wgsl"].map(fragment));
            }
            Products::Stream(share) => {
                sources.extend(["lib/dot_stream.wgsl", "lib/weights_tile.wgsl"].map(fragment));
                sources.push(pick(share > 1, "lib/share_subgroup.wgsl", "lib/share_none.wgsl"));
            }
            Products::Broadcast(_) => sources.push(fragment("lib/dot_broadcast.wgsl")),
            Products::Matrices(matrices) => {
                sources.extend([
                    fragment("lib/coop_tile.wgsl"),
                    pick(
                        matrices.fragments == Fragments::Workgroup,
                        "lib/coop_workgroup.wgsl",
                        "lib/coop_registers.wgsl",
                    ),
                    fragment("attention_coop.wgsl"),
                    pick(self.staged_list, "lib/visits_staged.wgsl", "lib/visits_named.wgsl"),
                    pick(self.in_halves(), "lib/coop_f32.wgsl", "lib/coop_f16.wgsl"),
                ]);
                if self.in_halves() {
                    sources.push(fragment("lib/eleven_bits.wgsl"));
                }
                if let Fragments::Registers(layout) = matrices.fragments {
                    sources.push(fragment("lib/coop_lanes.wgsl"));
                    sources.push(fragment(match self.dtype {
                        _ if layout.has_pairs_of_halves(matrices.size) => "lib/coop_store_fours.wgsl",
                        DType::F32 => "lib/coop_store_shuffled.wgsl",
                        _ => "lib/coop_store_slabs.wgsl",
                    }));
                }
            }
        }
        if !matches!(self.tile.products, Products::Matrices(_)) {
            sources.extend(["lib/threads_rows.wgsl", "attention.wgsl"].map(fragment));
            sources.push(pick(self.redo, "lib/wanted_told.wgsl", "lib/wanted_all.wgsl"));
            if self.redo {
                sources.push(pick(self.dtype == DType::F32, "lib/lost_totals.wgsl", "lib/lost_none.wgsl"));
            }
        }
        sources
    }

    /// `score_mod`, and what it calls.
    fn score_sources(&self) -> Vec<Source> {
        let mut sources = Vec::new();
        let mut calls = String::new();
        for (n, score) in self.scores.iter().enumerate() {
            let biased = self.scores[..n].contains(&ScoreMod::Bias);
            let (file, call) = match score {
                // What a bias of minus infinity has masked stays so.
                ScoreMod::Softcap if biased => {
                    (Some("mods/softcap.wgsl"), "select(softcap(x, at, q_idx, kv_idx), x, x <= NEG_INF)".into())
                }
                ScoreMod::Softcap => (Some("mods/softcap.wgsl"), "softcap(x, at, q_idx, kv_idx)".into()),
                ScoreMod::Alibi => (Some("mods/alibi.wgsl"), "alibi(x, at, q_idx, kv_idx)".into()),
                ScoreMod::Bias => (Some("mods/bias.wgsl"), "add_bias(x, at, q_idx, kv_idx)".into()),
                ScoreMod::Relative(rule) => {
                    (Some("mods/relative.wgsl"), format!("add_relative({rule}u, x, at, q_idx, kv_idx)"))
                }
                ScoreMod::Wgsl(text) => (None, format!("{}(x, at.b, at.h, q_idx, kv_idx)", user_score(*text))),
            };
            sources.extend(file.map(fragment));
            calls += &format!("    x = {call};\n");
        }
        sources.push(Source::generated(
            "score_mod",
            format!(
                "fn score_mod(score: f32, at: QTile, q_idx: u32, kv_idx: u32) -> f32 {{\n    var x = score;\n\
                 {calls}    return x;\n}}\n"
            ),
        ));
        sources
    }

    /// How q, k, v and out are read and written.
    fn storage_sources(&self) -> Vec<Source> {
        let half = self.dtype == DType::F16;
        let through_memory = |m: Matrices| m.fragments == Fragments::Workgroup;
        let loads: &[&'static str] = match (self.storage, self.tile.products) {
            // Their halves, which lie as they are wanted.
            _ if self.in_halves() => &["lib/load_vec8.wgsl"],
            (Storage::Scalar, Products::Matrices(_)) => {
                &["lib/load_scalar.wgsl", "lib/half_pair.wgsl", "lib/half_scalar.wgsl"]
            }
            (Storage::Scalar, Products::Broadcast(_)) => &["lib/load_scalar.wgsl", "lib/words_scalar.wgsl"],
            (Storage::Scalar, _) => &["lib/load_scalar.wgsl"],
            // Words as f16 take SPIR-V of the library's own, as blocks in registers do.
            (Storage::Vec8, Products::Matrices(m)) if !through_memory(m) => &["lib/load_vec8.wgsl"],
            (Storage::Vec8, _) => {
                &["lib/load_vec4.wgsl", "lib/packed_vec4.wgsl", "lib/half_pair.wgsl", "lib/half_vec8.wgsl"]
            }
            (Storage::Vec4, Products::Matrices(_)) => {
                &["lib/load_vec4.wgsl", "lib/packed_vec4.wgsl", "lib/half_pair.wgsl", "lib/half_vec4.wgsl"]
            }
            (Storage::Vec4, _) if self.pairs => &["lib/load_vec4.wgsl", "lib/packed_pairs.wgsl"],
            (Storage::Vec4, _) => &["lib/load_vec4.wgsl", "lib/packed_vec4.wgsl"],
            (Storage::Wide4, _) if half => &["lib/load_words.wgsl", "lib/words4_f16.wgsl"],
            (Storage::Wide4, _) => &["lib/load_words.wgsl", "lib/words4_f32.wgsl"],
            (Storage::Wide8, _) if half => &["lib/load_words.wgsl", "lib/words8_f16.wgsl"],
            (Storage::Wide8, _) => &["lib/load_words.wgsl", "lib/words8_f32.wgsl"],
        };
        let store: &[&'static str] = match (self.storage, self.out_dtype()) {
            (Storage::Scalar, _) => &["lib/store_scalar.wgsl"],
            (_, DType::F16) if self.pairs => &["lib/store_pairs.wgsl", "lib/pack_pairs.wgsl"],
            _ => &["lib/store_vec4.wgsl"],
        };
        loads.iter().chain(store).map(|file| fragment(file)).collect()
    }

    /// The type of what is written: parts are merged before they are rounded.
    pub(crate) fn out_dtype(&self) -> DType {
        if self.split { DType::F32 } else { self.dtype }
    }

    /// Whether there may be rows that matrix units cannot compute: of numbers that two f16 cannot hold, or that see infinite values where tiles
    /// are cut.
    pub(crate) fn tells(&self) -> bool {
        matches!(self.tile.products, Products::Matrices(_)) && (self.in_halves() || !self.whole_tiles)
    }

    /// Whether f32 is multiplied on matrix units, split into two f16.
    pub(crate) fn in_halves(&self) -> bool {
        matches!(self.tile.products, Products::Matrices(_)) && self.dtype == DType::F32
    }

    pub(super) fn has_relative(&self) -> bool {
        self.scores.iter().any(|score| matches!(score, ScoreMod::Relative(_)))
    }

    /// Whether the plan's tables are bound.
    fn reads_tables(&self) -> bool {
        let tables = ["ranges", "groups", "distance", "tiles"].map(|rule| format!("mods/mask_{rule}.wgsl"));
        self.visitor == Visitor::List
            || self.tasks
            || self.has_relative()
            || self.mask.order
            || self.mask.heads_differ
            || self.mask.files.iter().any(|file| tables.iter().any(|table| table == file))
    }
}

/// What the n-th of the user's score rules is called once linked.
pub(crate) fn user_score(number: usize) -> String {
    format!("user_score_{number}")
}

impl fmt::Display for AttentionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let visitor = match self.visitor {
            Visitor::Dense => "dense",
            Visitor::Window => "window",
            Visitor::List => "tile list",
        };
        let Tile { block_q, block_kv, lanes, threads, v_parts, .. } = self.tile;
        let units = match self.tile.products {
            Products::Matrices(m) if m.fragments == Fragments::Workgroup => " on matrix units through workgroup memory",
            Products::Matrices(_) if self.in_halves() => " on matrix units from two f16 a number",
            Products::Matrices(_) => " on matrix units",
            _ if self.redo && self.dtype == DType::F32 => " of the rows that two f16 could not hold",
            _ if self.redo => " of the rows that met infinite values",
            Products::Staged | Products::Broadcast(_) | Products::Stream(_) => "",
        };
        write!(
            f,
            "attention {visitor}{units}, {}, head_dim {}, v_dim {}{}, tile {block_q} x {block_kv}, {threads} threads, {lanes} a row, \
             {} loads, rows reduced by {}{}{}{}{}{}",
            self.dtype,
            self.head_dim,
            self.v_dim,
            if v_parts > 1 { format!(" in {v_parts} parts") } else { String::new() },
            match self.storage {
                Storage::Scalar => "scalar",
                Storage::Vec4 if self.pairs => "packed",
                Storage::Vec4 => "vec4",
                Storage::Vec8 => "16-byte",
                Storage::Wide4 | Storage::Wide8 => "64-bit",
            },
            match (self.tile.lanes, self.subgroups) {
                (1, _) => "their own thread",
                (_, true) => "subgroups",
                (_, false) => "workgroup memory",
            },
            if self.pack > 1 { format!(", {} heads a tile", self.pack) } else { String::new() },
            if self.split { ", keys in parts" } else { "" },
            if self.whole_tiles { ", no tile cut" } else { "" },
            if self.staged_list { ", list staged" } else { "" },
            if self.tours { ", query tiles in turn" } else { "" }
        )
    }
}

/// A spec that links every optional fragment, for tests of the contract.
#[cfg(test)]
pub(crate) fn example_attention_spec() -> AttentionSpec {
    let tile = super::tiles::ALL_TILES[4];
    AttentionSpec {
        visitor: Visitor::Window,
        dtype: DType::F32,
        pairs: false,
        storage: Storage::Vec4,
        head_dim: 64,
        v_dim: 64,
        tile,
        pack: 1,
        subgroups: false,
        lse: true,
        split: false,
        weights: Weights::Softmax,
        mask: MaskSpec {
            text: "fn mask_mod(at: QTile, q_idx: u32, kv_idx: u32) -> bool { return mask_by_bits(0u, at, q_idx, kv_idx); }\n"
                .into(),
            files: vec!["mods/mask_bits.wgsl"],
            ..MaskSpec::default()
        },
        user: UserSpec::default(),
        test_all: true,
        whole_tiles: false,
        staged_list: false,
        tasks: false,
        scale_per_head: true,
        sinks: true,
        scores: vec![ScoreMod::Softcap, ScoreMod::Alibi, ScoreMod::Bias],
        bias_dtype: DType::F32,
        relative_dtype: DType::F32,
        abreast: false,
        tours: false,
        scale_last: false,
        redo: false,
    }
}
