//! The chunked forward on matrix units: one sweep over the chunks of each head, whose state never leaves its registers.
//!
//! The formulas are those of `forward.rs`; products take f16 operands, sums, states and decays stay f32. Chunks follow one another,
//! so that heads and value columns alone are parallel; where those are few, so are segments of a sequence (`segments.rs`).

mod constants;
mod pairs;
mod segments;
mod whole;

use super::FeatureMap;
use super::check::{Gate, Problem};
use super::chunks::Chunks;
use super::ends::{copy_states, state_ends};
use super::features;
use super::forward::denominator;
use super::operands::Operand;
use super::stages::Stages;
use crate::Result;
use crate::gpu::context::Context;
use crate::gpu::layout::DType;
use crate::gpu::linear_spec::LinearSpec;
use crate::gpu::matrices::{FragmentLayout, Fragments, Matrices};
use crate::gpu::splits::resident_on_matrix_units;

/// Rows of a chunk, best first: the largest that fits. On an H200 at dims of 128, a head each multiprocessor (B 4, H 32, N 2048):
/// 48 rows 0.19 ms, 32 rows 0.21, 16 rows 0.45.
const CHUNKS: [u32; 3] = [48, 32, 16];

/// Likewise with the delta rule. On an H100 there: 48 rows take its sweep from 0.186 to 0.180 ms, and its pairs from 0.124 to 0.205.
const DELTA_CHUNKS: [u32; 2] = [32, 16];

/// Subgroups of a workgroup. Fewer would compute the scores again for other value columns: half as many took 0.38 ms there.
const MOST_STRIPS: usize = 8;

/// Subgroups likewise with the delta rule, whose scores a stage before has computed, where twice as many workgroups run at once. On an H100
/// at dims of 128, 8, 4 and 2 subgroups: gated, B 1, N 8192, H 8 0.644, 0.543, 0.545 ms, H 32 0.750, 0.621, 0.644, B 2, H 32, N 4096 0.434,
/// 0.382, 0.648; KDA, H 8 0.774, 0.623, 0.693, H 32 0.984, 0.767, 0.890.
const FEW_HEADS_STRIPS: u32 = 4;

/// Subgroups that compute the pairs of a chunk: of one gate a row, and of one a channel, which takes more registers a row.
const PAIR_STRIPS: [u32; 2] = [4, 8];

/// Storage buffers that a stage binds at most.
const STORAGE_BUFFERS: u32 = 12;

/// Channels of keys: the state's share of a thread's registers.
const MOST_CHANNELS: usize = 128;

/// The kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pairs,
    Segment,
    Sweep,
    /// The sweep over q alone, where attention is not causal.
    Read,
}

/// How the sweep cuts a problem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep {
    matrices: Matrices,
    layout: FragmentLayout,
    /// Rows of a chunk.
    chunk: u32,
    /// Subgroups of a workgroup; each owns a block of value columns.
    strips: u32,
    /// Chunks of a segment, where sequences are cut into those.
    segment: Option<usize>,
}

impl Sweep {
    /// The cut for a problem; or why it does not run on the matrix units that the device has.
    pub(super) fn new(p: &Problem, ctx: &Context) -> std::result::Result<Sweep, Option<String>> {
        let capabilities = ctx.capabilities();
        let f16 = [p.q, p.k, p.v].iter().all(|layout| layout.dtype() == DType::F16);
        if capabilities.cpu || !f16 {
            return Err(None);
        }
        let refuse = |reason: &str| Err(Some(reason.to_string()));
        if !features::fit_half(&p.map) {
            return refuse("features of this map may outgrow 16-bit floats");
        }
        if p.dim_k() > MOST_CHANNELS {
            return refuse("keys have more than 128 channels or features");
        }
        let in_registers = |matrices: Matrices| match matrices.fragments {
            Fragments::Registers(layout) => Some((matrices, layout)),
            Fragments::Workgroup => None,
        };
        let Some((matrices, layout)) = capabilities.matrices.and_then(in_registers) else {
            return Err(capabilities.unreached.map(str::to_string));
        };
        if features::reduces_rows(&p.map) && p.dim_k().div_ceil(4).next_power_of_two() > matrices.subgroup as usize {
            return refuse("the map looks at whole rows, which have more features than a subgroup computes together");
        }
        // One more for a column of ones, which every value column needs beside it.
        let most = MOST_STRIPS + usize::from(p.has_z());
        let strips = p.state_cols().div_ceil(matrices.size as usize).min(most) as u32;
        let mut strips = strips.min(capabilities.workgroup_threads / matrices.subgroup);
        let at_once = resident_on_matrix_units(strips * matrices.subgroup, capabilities.parallel_threads);
        if p.beta.is_some() && !p.has_z() && 2 * p.batch() * p.heads() * p.sequences.len() <= at_once {
            strips = strips.min(FEW_HEADS_STRIPS);
        }
        if p.has_z() && strips * matrices.size < p.state_cols() as u32 {
            return refuse("values have more columns than a workgroup owns, and each needs the denominator");
        }
        // Decays of channels are anchored between two blocks of rows.
        let (given, two_blocks) = ([p.chunk as u32], [2 * matrices.size]);
        let chunks: &[u32] = match (p.chunk_given, &p.gate) {
            (true, Gate::PerChannel(_)) if given != two_blocks => {
                return Err(Some(format!("decay has a value a channel, and chunks are not of {} rows", two_blocks[0])));
            }
            (true, _) => &given,
            (false, Gate::PerChannel(_)) => &two_blocks,
            (false, _) if p.beta.is_some() => &DELTA_CHUNKS,
            (false, _) => &CHUNKS,
        };
        if capabilities.storage_buffers < STORAGE_BUFFERS {
            return Err(Some(format!("they take {STORAGE_BUFFERS} storage buffers")));
        }
        let cut = |&chunk: &u32| Sweep { matrices, layout, chunk, strips, segment: None };
        let have = capabilities.workgroup_memory;
        // Of T a thread computes a column.
        let most_rows = if p.beta.is_some() { PAIR_STRIPS[0] * matrices.subgroup } else { u32::MAX };
        let fits = |sweep: &Sweep| strips > 0 && sweep.chunk <= most_rows && sweep.workgroup_bytes(p) <= have;
        chunks
            .iter()
            .map(cut)
            .find(fits)
            .ok_or_else(|| Some(format!("a chunk needs more than {have} bytes of workgroup memory")))
    }

    /// The problem in chunks of the sweep's.
    pub(super) fn problem(&self, p: &Problem) -> Problem {
        Problem { chunk: self.chunk as usize, ..p.clone() }
    }

    /// Subgroups of a workgroup.
    fn strips(&self, p: &Problem, kind: Kind) -> u32 {
        match kind {
            Kind::Segment | Kind::Sweep | Kind::Read => self.strips,
            Kind::Pairs => PAIR_STRIPS[usize::from(matches!(p.gate, Gate::PerChannel(_)))],
        }
    }

    /// Whether features lie behind powers of two: a denominator makes small ones count.
    fn fits_features(p: &Problem) -> bool {
        p.has_z() && p.map != FeatureMap::Identity
    }

    /// What the plan keeps between the stages.
    pub(super) fn operands(&self, p: &Problem) -> Vec<Operand> {
        let chunk = self.chunk as usize;
        let mut operands = Vec::new();
        if p.map != FeatureMap::Identity {
            let channels = p.dim_k().next_multiple_of(self.matrices.size as usize);
            operands.extend(["q", "k"].map(|name| Operand::per_chunk_half(name, chunk, channels).of_key_heads()));
        }
        if Sweep::fits_features(p) {
            operands.extend(["q_fit", "k_fit"].map(|name| Operand::per_chunk(name, 1, 1).of_key_heads()));
        }
        if self.pairs(p) > 0 {
            operands.push(Operand::per_chunk_half("pairs", self.pair_rows(p) as usize, self.matrices.size as usize));
            operands.push(Operand::per_chunk("scales", 1, self.scales(p).1 as usize));
        }
        if self.gates_stored(p) {
            operands.push(Operand::per_chunk("row_decays", 1, 2 * chunk));
        }
        if matches!(p.gate, Gate::PerChannel(_)) {
            let channels = p.dim_k().next_multiple_of(self.matrices.size as usize);
            operands.push(Operand::per_chunk("keeps", 1, channels));
            let rows = ["risen_q", "fallen_k", "held"];
            let rows = &rows[..if p.beta.is_some() { 3 } else { 2 }];
            operands.extend(rows.iter().map(|name| Operand::per_chunk_half(name, chunk, channels)));
        }
        operands.extend(self.segment_operands(p));
        if !p.causal {
            operands.push(Operand::per_head("total", p.dim_k(), p.state_cols()));
        }
        operands
    }

    /// `ones_beside`, which puts a one behind the last value of a row where there is a denominator.
    fn beside_values(&self, p: &Problem) -> String {
        let (eight, n) = (p.dim_v() / 8, p.dim_v() % 8);
        let one = match (p.has_z(), n) {
            (false, _) => String::new(),
            (true, 0..4) => format!("if (j8 == {eight}u) {{ x.lo[{n}] = 1.0h; }}\n    "),
            (true, _) => format!("if (j8 == {eight}u) {{ x.hi[{}] = 1.0h; }}\n    ", n - 4),
        };
        format!("fn ones_beside(j8: u32, row: Half8) -> Half8 {{\n    var x = row;\n    {one}return x;\n}}\n")
    }

    /// Features, pairs, and the sweep.
    pub(super) fn stages(&self, p: &Problem, stages: &mut Stages<'_, '_>) -> Result<()> {
        let chunks = p.chunks();
        let (pairs, channels) = (self.pairs(p) > 0, matches!(p.gate, Gate::PerChannel(_)));
        if p.map != FeatureMap::Identity {
            features::half_stages(p, Sweep::fits_features(p), stages)?;
        }
        if pairs {
            self.pair_stage(p, &chunks, stages)?;
        }
        if !p.causal {
            return self.whole_stages(p, stages);
        }
        let [q, k] = if channels { ["risen_q", "fallen_k"] } else { ["q", "k"] };
        let of_keys = rows("rows_k", k) + &self.beside_values(p);
        let copied = copy_states(p, stages)?;
        let (mut chunks, mut ends) = (chunks, state_ends(p, copied));
        if let Some(segments) = self.segments(p) {
            (chunks, ends) = self.segment_stages(p, &segments, ends, &of_keys, stages)?;
        }
        let mut text = of_keys + &rows("rows_q", q) + &Sweep::fits(p, ["q", "k"]) + &ends;
        let gates = self.gates(p, self.gates_stored(p));
        let mut files = sweep_files(gates);
        files.extend(["linear/sweep_state.wgsl", "linear/sweep_within.wgsl"]);
        files.push(if pairs { "linear/sweep_stored.wgsl" } else { "linear/sweep_scores.wgsl" });
        files.extend(match (p.beta.is_some(), channels) {
            (false, _) => vec!["linear/sweep_plain.wgsl"],
            (true, false) => vec!["linear/sweep_delta.wgsl", "linear/sweep_keys.wgsl"],
            (true, true) => vec!["linear/sweep_delta.wgsl", "linear/sweep_stored_keys.wgsl"],
        });
        let (file, by) = divided(p, stages);
        files.push(file);
        text += &by;
        let items = self.sweep_items(p, &chunks, stages);
        let spec = self.spec(p, "states and out in order", files, text, Kind::Sweep);
        stages.launch(&chunks, spec, items, items)
    }

    /// `feature_fits`: the powers of two behind which features of q and k lie, where there are any; 1 for those that are not named.
    fn fits(p: &Problem, names: [&str; 2]) -> String {
        let fit = |name: &str| match name {
            "q" | "k" if Sweep::fits_features(p) => format!("{name}_fit_there(at, 0u, 0u)"),
            _ => "1.0".into(),
        };
        format!(
            "fn feature_fits(at: Place) -> vec2<f32> {{ return vec2<f32>({}, {}); }}\n",
            fit(names[0]),
            fit(names[1])
        )
    }

    /// The kernel from these files.
    fn spec(&self, p: &Problem, title: &'static str, files: Vec<&'static str>, text: String, kind: Kind) -> LinearSpec {
        LinearSpec {
            title,
            files,
            constants: self.constants(p, kind),
            text,
            f16: true,
            threads: self.strips(p, kind) * self.matrices.subgroup,
            windows: 1,
            matrices: Some(self.matrices),
        }
    }

    /// The files that know the gates: those that a stage before has summed and stored, or the caller's.
    fn gates(&self, p: &Problem, stored: bool) -> &'static [&'static str] {
        match p.gate {
            Gate::None => &["linear/sweep_ungated.wgsl"],
            Gate::PerHead(_) | Gate::PerToken(_) if stored => &["linear/sweep_rows.wgsl"],
            Gate::PerHead(_) if p.beta.is_none() => &["linear/sweep_constant.wgsl", "linear/sweep_decays.wgsl"],
            Gate::PerHead(_) | Gate::PerToken(_) => &["linear/sweep_gates.wgsl", "linear/sweep_decays.wgsl"],
            Gate::PerChannel(_) => &["linear/sweep_channels.wgsl"],
        }
    }

    /// Workgroups that share a state's value columns.
    fn v_tiles(&self, p: &Problem) -> usize {
        p.state_cols().div_ceil((self.strips * self.matrices.size) as usize)
    }

    /// Workgroups of a sweep.
    fn sweep_items(&self, p: &Problem, chunks: &Chunks, stages: &Stages<'_, '_>) -> u64 {
        (stages.part.instances() * chunks.sequences * self.v_tiles(p)) as u64
    }
}

/// A function by which kernels read rows, eight numbers at a time, from this operand.
fn rows(name: &str, operand: &str) -> String {
    format!("fn {name}(at: Place, i: u32, j8: u32) -> Half8 {{ return {operand}_8(at, i, j8); }}\n")
}

/// Files of every sweep over rows of q, but for the roles that differ.
fn sweep_files(gates: &[&'static str]) -> Vec<&'static str> {
    let files = ["linear/sweep_coop.wgsl", "linear/sweep_place.wgsl", "linear/blocks_coop.wgsl", "linear/powers.wgsl"];
    files.iter().chain(gates).copied().collect()
}

/// The file that divides out by its denominator, if there is one, and what it calls.
fn divided(p: &Problem, stages: &mut Stages<'_, '_>) -> (&'static str, String) {
    match denominator(p, stages) {
        Some(denominator) => ("linear/sweep_divided.wgsl", denominator),
        None => ("linear/sweep_undivided.wgsl", String::new()),
    }
}
