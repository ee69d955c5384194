//! Few heads: a sequence in segments that run side by side, where states pass through them by what gates leave alone.
//!
//! `S_out = kept S_in + own` holds of a segment as it does of a chunk, so three stages take the place of one sweep: each segment's own
//! state from zero, a scan over segments, and the sweep, which begins each segment with the state that enters it. The delta rule's
//! states pass through matrices instead, and gain too little.

use super::{Kind, Sweep};
use crate::Result;
use crate::gpu::splits::resident_on_matrix_units;
use crate::linear::check::{Gate, Problem};
use crate::linear::chunks::Chunks;
use crate::linear::forward::scan;
use crate::linear::operands::Operand;
use crate::linear::stages::Stages;

/// Turns of the sweep, a chunk each, that the two stages more take to begin and end; and that a chunk takes in both of its visits.
///
/// On an H100 at dims of 128, f16, ms, in one sweep and in segments: Lightning B 1, H 8, N 2048 0.150, 0.054; N 32768 2.10, 0.250; H 32, N 2048
/// 0.158, 0.103; N 8192 0.567, 0.242; N 131072 8.41, 2.99; H 64, N 8192 0.552, 0.425; GLA, H 32, N 8192 0.652, 0.412; elu + 1 with its
/// denominator, H 8, N 32768 4.39, 0.641.
const STAGES_TURNS: usize = 10;
const CHUNK_TURNS: f64 = 1.5;

/// Chunks of a segment, where segments make the time least: of sequences of so many chunks, each swept by `copies` workgroups, on a
/// device that runs so many at once.
fn chunks_of_segment(sequences: &[usize], copies: usize, at_once: usize) -> Option<usize> {
    let longest = sequences.iter().copied().max().unwrap_or(0);
    let share = (sequences.iter().sum::<usize>() * copies).div_ceil(at_once.max(1));
    let turns = |segment: usize| (CHUNK_TURNS * segment.max(share) as f64) as usize + STAGES_TURNS;
    let most = at_once / copies.max(1);
    let best = (2..=most).map(|segments| longest.div_ceil(segments).max(1)).min_by_key(|&segment| turns(segment))?;
    (turns(best) < longest.max(share)).then_some(best)
}

/// Chunks of a segment where nothing passes from one to the next: as few as leave no workgroup waiting.
pub(super) fn share(chunks: usize, copies: usize, at_once: usize) -> usize {
    (chunks * copies).div_ceil(at_once.max(1)).clamp(1, chunks.max(1))
}

impl Sweep {
    /// Cuts the sequences of a problem of which so many heads, counted through batches, go at once.
    pub(in crate::linear) fn cut_sequences(&mut self, p: &Problem, heads: usize, parallel_threads: u32) {
        self.segment = self.choose_segment(p, heads, parallel_threads);
    }

    fn choose_segment(&self, p: &Problem, heads: usize, parallel_threads: u32) -> Option<usize> {
        if p.beta.is_some() {
            return None;
        }
        let chunks: Vec<usize> = p.sequences.iter().map(|rows| rows.div_ceil(self.chunk as usize)).collect();
        let at_once = self.at_once(parallel_threads);
        let copies = heads * self.v_tiles(p);
        if !p.causal {
            return Some(share(chunks[0], copies, at_once));
        }
        chunks_of_segment(&chunks, copies, at_once)
    }

    /// Workgroups of a sweep that a device runs at once.
    pub(super) fn at_once(&self, parallel_threads: u32) -> usize {
        resident_on_matrix_units(self.strips * self.matrices.subgroup, parallel_threads)
    }

    /// Segments as the chunks of their sequences.
    pub(super) fn segments(&self, p: &Problem) -> Option<Chunks> {
        self.segment.map(|chunks| Chunks::new(chunks * self.chunk as usize, &p.sequences))
    }

    /// What the plan keeps of each segment.
    pub(super) fn segment_operands(&self, p: &Problem) -> Vec<Operand> {
        let Some(segments) = self.segments(p) else { return Vec::new() };
        vec![
            Operand::per_segment("segment_state", segments.count, p.dim_k(), p.state_cols()),
            Operand::per_segment("segment_kept", segments.count, 1, p.dim_k()),
        ]
    }

    /// The states that enter segments; `ends` is where the caller's come from and go to, `of_keys` reads k and v. Returns the segments, each
    /// a sequence of chunks, and the ends of the sweep over them.
    pub(super) fn segment_stages(
        &self,
        p: &Problem,
        segments: &Chunks,
        ends: String,
        of_keys: &str,
        stages: &mut Stages<'_, '_>,
    ) -> Result<(Chunks, String)> {
        stages.segments = segments.count;
        let rows: Vec<usize> = segments.table[..segments.count].iter().map(|entry| entry[1] as usize).collect();
        let cut = Chunks::new(self.chunk as usize, &rows);
        let gated = p.gate != Gate::None;
        let kept = if gated { "put_segment_kept(at, 0u, d, x);" } else { "" };
        let own = format!(
            "fn put_own(at: Place, d: u32, e: u32, x: f32) {{ put_segment_state(at, d, e, x); }}\n\
             fn put_kept(at: Place, d: u32, x: f32) {{ {kept} }}\n"
        );
        let mut files = vec![
            "linear/segment_coop.wgsl",
            "linear/sweep_place.wgsl",
            "linear/sweep_state.wgsl",
            "linear/blocks_coop.wgsl",
        ];
        files.extend(self.gates(p, false));
        let items = self.sweep_items(p, &cut, stages);
        let spec = self.spec(p, "states of segments", files, own + of_keys + &Sweep::fits(p, ["", "k"]), Kind::Segment);
        stages.launch(&cut, spec, items, items)?;
        let kept = if gated { "segment_kept(segment_of(at), 0u, d)" } else { "1.0" };
        let parts = format!(
            "fn segment_of(at: Place) -> Place {{\n    var segment = at;\n    segment.sequence = at.chunk;\n    return segment;\n}}\n\
             fn part(at: Place, d: u32, j: u32) -> f32 {{ return segment_state(segment_of(at), d, j); }}\n\
             fn put_part(at: Place, d: u32, j: u32, x: f32) {{ put_segment_state(segment_of(at), d, j, x); }}\n\
             fn part_decay(at: Place, d: u32) -> f32 {{ return {kept}; }}\n"
        );
        scan(segments, stages, "states that enter segments", [p.dim_k(), p.state_cols()], false, ends + &parts)?;
        let ends = "fn first(at: Place, d: u32, e: u32) -> f32 { return segment_state(at, d, e); }\n\
                    fn last(at: Place, d: u32, e: u32, x: f32) {}\n";
        Ok((cut, ends.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::chunks_of_segment;

    #[test]
    fn segments_fill_the_device_where_they_pay() {
        // A device that is full gains nothing, nor does a short sequence.
        assert_eq!(chunks_of_segment(&[2731], 128, 128), None);
        assert_eq!(chunks_of_segment(&[43], 64, 128), None);
        assert_eq!(chunks_of_segment(&[10], 8, 128), None);
        assert_eq!(chunks_of_segment(&[2731], 32, 128), Some(683));
        assert_eq!(chunks_of_segment(&[43], 8, 128), Some(3));
        // One long sequence beside many short ones, no sequence, no rows, a device that runs nothing at once.
        assert!(chunks_of_segment(&[1000, 4, 4, 4], 8, 128).is_some_and(|chunks| chunks < 100));
        assert_eq!(chunks_of_segment(&[], 8, 128), None);
        assert_eq!(chunks_of_segment(&[0, 0], 8, 128), None);
        assert_eq!(chunks_of_segment(&[1000], 8, 0), None);
    }
}
