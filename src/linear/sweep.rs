//! The chunked forward on matrix units: one sweep over the chunks of each head, whose state never leaves its registers.
//!
//! The formulas are those of `forward.rs`; products take f16 operands, sums, states and decays stay f32. Chunks follow one another,
//! so that heads and value columns alone are parallel.

use super::FeatureMap;
use super::check::{Gate, Problem};
use super::chunks::Chunks;
use super::forward::{copy_states, state_ends};
use super::operands::{Memory, Operand};
use super::stages::Stages;
use crate::Result;
use crate::gpu::context::Context;
use crate::gpu::layout::DType;
use crate::gpu::linear_spec::LinearSpec;
use crate::gpu::matrices::{FragmentLayout, Fragments, Matrices};

/// Rows of a chunk, best first: the largest that fits. On an H200 at dims of 128, a head each multiprocessor (B 4, H 32, N 2048):
/// 48 rows 0.19 ms, 32 rows 0.21, 16 rows 0.45.
const CHUNKS: [u32; 3] = [48, 32, 16];

/// Subgroups of a workgroup. Fewer would compute the scores again for other value columns: half as many took 0.38 ms there.
const MOST_STRIPS: usize = 8;

/// Channels of keys: the state's share of a thread's registers.
const MOST_CHANNELS: usize = 128;

/// How the sweep cuts a problem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep {
    matrices: Matrices,
    layout: FragmentLayout,
    /// Rows of a chunk.
    chunk: u32,
    /// Subgroups of a workgroup; each owns a block of value columns.
    strips: u32,
}

impl Sweep {
    /// The cut for a problem; or why it does not run on the matrix units that the device has.
    pub(super) fn new(p: &Problem, ctx: &Context) -> std::result::Result<Sweep, Option<String>> {
        let capabilities = ctx.capabilities();
        let f16 = [p.q, p.k, p.v].iter().all(|layout| layout.dtype() == DType::F16);
        let Some(matrices) = capabilities.matrices.filter(|_| !capabilities.cpu && f16) else { return Err(None) };
        let Fragments::Registers(layout) = matrices.fragments else {
            return Err(Some("their numbers can be reached through workgroup memory alone".into()));
        };
        let refuse = |reason: &str| Err(Some(reason.to_string()));
        if !p.causal {
            return refuse("attention is not causal");
        }
        if p.beta.is_some() || p.has_z() || p.map != FeatureMap::Identity {
            return refuse("the map, the normalizer or the delta rule is not made for them");
        }
        if matches!(p.gate, Gate::PerChannel(_)) {
            return refuse("decay has a value a channel");
        }
        if p.steps > 1 || p.dim_k() > MOST_CHANNELS {
            return refuse("tokens take several steps, or keys more than 128 channels");
        }
        let strips = p.dim_v().div_ceil(matrices.size as usize).min(MOST_STRIPS) as u32;
        let strips = strips.min(capabilities.workgroup_threads / matrices.subgroup);
        let given = [p.chunk as u32];
        let chunks: &[u32] = if p.chunk_given { &given } else { &CHUNKS };
        let cut = |&chunk: &u32| Sweep { matrices, layout, chunk, strips };
        let have = capabilities.workgroup_memory;
        let fits = |sweep: &Sweep| strips > 0 && sweep.workgroup_bytes(p) <= have;
        chunks
            .iter()
            .map(cut)
            .find(fits)
            .ok_or_else(|| Some(format!("a chunk needs more than {have} bytes of workgroup memory")))
    }

    /// Whether an operand is one of the sweep's.
    pub(super) fn reads(&self, operand: &Operand) -> bool {
        matches!(operand.memory, Memory::Slot { .. } | Memory::Constant(_))
    }

    fn constants(&self, p: &Problem) -> Vec<(&'static str, u32)> {
        let Sweep { matrices: Matrices { size, subgroup, .. }, layout, chunk, strips } = *self;
        let (k, cols) = (p.dim_k() as u32, p.dim_v() as u32);
        let threads = strips * subgroup;
        let (k_blocks, row_blocks) = (k.div_ceil(size), chunk / size);
        let lower_blocks = row_blocks * (row_blocks + 1) / 2;
        // In groups of four; eight more than a row holds, so that rows of a block meet different banks.
        let stride = |columns: u32| (columns + 8) / 4;
        let (qk_stride, v_stride, a_stride) = (stride(k_blocks * size), stride(strips * size), stride(chunk));
        let (qk_cols8, v_cols8) = (k_blocks * size / 8, strips * size / 8);
        let elements = size * size / subgroup;
        vec![
            ("CHUNK", chunk),
            ("K", k),
            ("COLS", cols),
            ("STRIPS", strips),
            ("V_TILES", cols.div_ceil(strips * size)),
            ("K_BLOCKS", k_blocks),
            ("ROW_BLOCKS", row_blocks),
            ("LOWER_BLOCKS", lower_blocks),
            ("SCORE_ROUNDS", lower_blocks.div_ceil(strips)),
            ("QK_STRIDE", qk_stride),
            ("V_STRIDE", v_stride),
            ("A_STRIDE", a_stride),
            ("QK_TILE", chunk * qk_stride),
            ("V_TILE", chunk * v_stride),
            ("A_TILE", chunk * a_stride),
            ("A_SCALES", (row_blocks * row_blocks).next_multiple_of(4)),
            ("QK_COLS8", qk_cols8),
            ("V_COLS8", v_cols8),
            ("QK_LOADS", (chunk * qk_cols8).div_ceil(threads)),
            ("V_LOADS", (chunk * v_cols8).div_ceil(threads)),
            ("GATE_PARTS", chunk.div_ceil(subgroup)),
            ("LANES", layout.lanes),
            ("ELEMENTS4", elements / 4),
        ]
    }

    /// Bytes of workgroup memory.
    fn workgroup_bytes(&self, p: &Problem) -> u32 {
        let constants = self.constants(p);
        let number = |name: &str| constants.iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| *n);
        let gates = if p.gate == Gate::None { 0 } else { 6 * self.chunk };
        8 * (2 * number("QK_TILE") + number("V_TILE") + number("A_TILE")) + 4 * (number("A_SCALES") + gates) + 16
    }

    /// The sweep.
    pub(super) fn stages(&self, p: &Problem, stages: &mut Stages<'_, '_>) -> Result<()> {
        let chunks = Chunks::new(self.chunk as usize, &p.sequences);
        let constants = self.constants(p);
        let v_tiles = p.dim_v().div_ceil((self.strips * self.matrices.size) as usize);
        let items = (stages.part.instances() * chunks.sequences * v_tiles) as u64;
        let gates = if p.gate == Gate::None { "linear/sweep_ungated.wgsl" } else { "linear/sweep_gates.wgsl" };
        let copied = copy_states(p, stages)?;
        let spec = LinearSpec {
            title: "states and out in order",
            files: vec!["linear/sweep_coop.wgsl", "linear/sweep_scores.wgsl", gates],
            constants,
            text: state_ends(p, copied),
            f16: true,
            threads: self.strips * self.matrices.subgroup,
            matrices: Some(self.matrices),
        };
        stages.launch(&chunks, spec, items, items)
    }
}
