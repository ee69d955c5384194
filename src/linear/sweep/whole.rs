//! Attention that is not causal: the state of all keys, then every q against it.
//!
//! Keys and queries may be of different lengths, and fall into segments each for itself, as many as the device runs at once.

use super::segments::share;
use super::{Kind, Sweep, divided, rows, sweep_files};
use crate::Result;
use crate::linear::check::Problem;
use crate::linear::chunks::Chunks;
use crate::linear::ends::{copy_states, state_ends};
use crate::linear::stages::Stages;

impl Sweep {
    /// After features: states of segments of k, their sum, and out.
    pub(super) fn whole_stages(&self, p: &Problem, stages: &mut Stages<'_, '_>) -> Result<()> {
        let copied = copy_states(p, stages)?;
        if let Some(segments) = self.segments(p) {
            let of_keys = rows("rows_k", "k") + &self.beside_values(p);
            self.segment_stages(p, &segments, state_ends(p, copied), &of_keys, stages)?;
        }
        let len = p.q.shape()[2];
        let parallel_threads = stages.builder.ctx().capabilities().parallel_threads;
        let copies = stages.part.instances() * self.v_tiles(p);
        let run =
            share(len.div_ceil(self.chunk as usize), copies, self.at_once(parallel_threads)) * self.chunk as usize;
        let runs: Vec<usize> = (0..len).step_by(run).map(|start| run.min(len - start)).collect();
        let chunks = Chunks::new(self.chunk as usize, &runs);
        let mut text = rows("rows_q", "q") + &Sweep::fits(p, ["q", ""]);
        text += "fn first(at: Place, d: u32, e: u32) -> f32 { return total(at, d, e); }\n\
                 fn last(at: Place, d: u32, e: u32, x: f32) {}\n";
        let (file, by) = divided(p, stages);
        let mut files = sweep_files(self.gates(p, false));
        files.extend(["linear/sweep_still.wgsl", "linear/sweep_unscored.wgsl", "linear/sweep_plain.wgsl", file]);
        let items = self.sweep_items(p, &chunks, stages);
        let spec = self.spec(p, "out of the state of all keys", files, text + &by, Kind::Read);
        stages.launch(&chunks, spec, items, items)
    }
}
