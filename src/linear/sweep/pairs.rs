//! The stage before the sweep: what a chunk needs of itself alone, A and T, all chunks side by side.

use super::{Kind, Sweep, rows};
use crate::Result;
use crate::linear::check::{Gate, Problem};
use crate::linear::chunks::Chunks;
use crate::linear::stages::Stages;

/// Chunks of a run of pairs at most. On an H100 at dims of 128 and 8192 chunks, with a gate a channel (GLA): 1 0.224 ms, 4 0.180, 8 0.176,
/// 16 0.175.
const LONGEST_RUN: usize = 8;

impl Sweep {
    /// Matrices within a chunk that a stage of their own computes: A and T with the delta rule.
    pub(super) fn pairs(&self, p: &Problem) -> u32 {
        match (&p.beta, &p.gate) {
            (Some(_), _) => 2,
            (None, Gate::PerChannel(_)) => 1,
            (None, _) => 0,
        }
    }

    /// Rows of blocks of these matrices, on and below the diagonal, one block after the other.
    pub(super) fn pair_rows(&self, p: &Problem) -> u32 {
        let row_blocks = self.chunk / self.matrices.size;
        self.pairs(p) * row_blocks * (row_blocks + 1) / 2 * self.matrices.size
    }

    /// Chunks that a workgroup of pairs takes one after the other: as many as leave each multiprocessor eight workgroups.
    fn run(chunks: usize, parallel_threads: u32) -> usize {
        (chunks / (parallel_threads as usize / 256).max(1)).clamp(1, LONGEST_RUN)
    }

    /// Whether a stage of its own computes the decays of rows, which have one gate each.
    pub(super) fn gates_stored(&self, p: &Problem) -> bool {
        self.pairs(p) > 0 && matches!(p.gate, Gate::PerHead(_) | Gate::PerToken(_))
    }

    /// Powers of two beside A: where that of T lies, and how many there are in all. Pairs that were stored have one for all of A, those
    /// that the sweep computes one a block.
    pub(super) fn scales(&self, p: &Problem) -> (u32, u32) {
        let row_blocks = self.chunk / self.matrices.size;
        let of_a = if self.pairs(p) > 0 { 4 } else { (row_blocks * row_blocks).next_multiple_of(4) };
        (of_a, of_a + if self.pairs(p) == 2 { 4 } else { 0 })
    }

    /// A of each chunk, T with the delta rule, and the decays of rows.
    pub(super) fn pair_stage(&self, p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
        let mut text = String::new();
        let mut files = vec!["linear/pairs_coop.wgsl", "linear/blocks_coop.wgsl", "linear/powers.wgsl"];
        if p.beta.is_some() {
            text += "fn beta_at(at: Place, i: u32) -> f32 { return beta_there(at, i, 0u); }\n";
            files.push("linear/pairs_delta.wgsl");
        } else {
            files.push("linear/pairs_plain.wgsl");
        }
        if matches!(p.gate, Gate::PerChannel(_)) {
            let held = if p.beta.is_some() { "put_held_4(at, i, j4, held);" } else { "" };
            text += &format!(
                "fn put_rows(at: Place, i: u32, j4: u32, q: vec4<f32>, held: vec4<f32>, k: vec4<f32>) {{\n    \
                 put_risen_q_4(at, i, j4, q);\n    put_fallen_k_4(at, i, j4, k);\n    {held}\n}}\n"
            );
            files.push("linear/pairs_channels.wgsl");
        } else {
            let put = if self.gates_stored(p) {
                "put_row_decays(at, 0u, i, rise); put_row_decays(at, 0u, CHUNK + i, fall);"
            } else {
                ""
            };
            text += &(rows("rows_q", "q") + &rows("rows_k", "k"));
            text += &format!("fn put_row_decay(at: Place, i: u32, rise: f32, fall: f32) {{ {put} }}\n");
            files.push("linear/pairs_gates.wgsl");
            files.extend(self.gates(p, false));
        }
        let (instances, device) = (stages.part.instances(), stages.builder.ctx().capabilities());
        stages.run = Sweep::run(instances * chunks.count, device.parallel_threads);
        let items = (instances * chunks.count.div_ceil(stages.run)) as u64;
        let mut spec = self.spec(p, "products within each chunk", files, text, Kind::Pairs);
        spec.constants.extend(self.pair_constants(p));
        stages.launch(chunks, spec, items, items)
    }
}
