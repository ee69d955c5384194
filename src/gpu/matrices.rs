//! Tiles whose products run on matrix units (cooperative matrices): their numbers, and what fits.

use super::capabilities::Capabilities;
use super::layout::DType;
use super::tuning::{Products, Shape, Tile};
use crate::{Error, Result};

/// How the tile loop uses a device's matrix units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrices {
    /// Rows and columns of a block: 8 or 16, as the device has them.
    pub size: u32,
    /// Threads of a subgroup, which multiply a block together.
    pub subgroup: u32,
    /// How threads reach the numbers within a block.
    pub fragments: Fragments,
}

/// How threads reach the numbers within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fragments {
    /// Scores and weights pass through workgroup memory: any device with matrix units.
    Workgroup,
    /// Each thread works on the numbers that its own registers hold, which lie as [`FragmentLayout`] says. WGSL cannot say
    /// this; it takes SPIR-V of the library's own (Vulkan).
    Registers(FragmentLayout),
}

/// Which numbers of a block a thread holds: `slots` rows, `lanes` threads a row, and of each row runs of `run`
/// neighbouring columns, thread after thread. The same for factors and for sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentLayout {
    /// Threads that share a row.
    pub lanes: u32,
    /// Rows a thread holds numbers of.
    pub slots: u32,
    /// Neighbouring columns that one thread holds.
    pub run: u32,
}

impl FragmentLayout {
    /// What drivers have been seen to do: NVIDIA's 16 x 16 blocks, and lavapipe's 8 x 8.
    pub(crate) const KNOWN: [FragmentLayout; 2] =
        [FragmentLayout { lanes: 4, slots: 2, run: 2 }, FragmentLayout { lanes: 8, slots: 8, run: 1 }];

    /// Whether blocks of this size can lie so in subgroups of this many threads.
    pub(crate) fn suits(&self, size: u32, subgroup: u32) -> bool {
        let elements = size * size / subgroup;
        subgroup.is_multiple_of(self.lanes)
            && subgroup / self.lanes * self.slots == size
            && elements.is_multiple_of(self.run * self.slots)
    }

    /// Whether neighbouring threads hold neighbouring columns, one at a time.
    pub(crate) fn has_single_columns(&self) -> bool {
        self.run == 1 && self.lanes.is_multiple_of(4)
    }

    /// Whether a thread holds, of each of its rows, two neighbouring columns of either half of a block of this size.
    pub(crate) fn has_pairs_of_halves(&self, size: u32) -> bool {
        self.run == 2 && self.lanes * 4 == size
    }

    /// Row and column of number `e` of thread `member`; `lib/coop_registers.wgsl` has the same formula.
    pub(crate) fn place(&self, size: u32, member: u32, e: u32) -> [u32; 2] {
        let FragmentLayout { lanes, slots, run } = *self;
        let per_slot = size / lanes;
        let (slot, i) = (e / per_slot, e % per_slot);
        [slot * (size / slots) + member / lanes, i / run * (run * lanes) + member % lanes * run + i % run]
    }
}

/// Workgroup memory that Q and the result may take on their way, where K and V need less. Workgroups of a multiprocessor
/// were seen to share 48 KiB on an H200, whatever the card has: with this two are resident.
const SLAB_BYTES: u32 = 20 << 10;

/// How many f16 a number is on matrix units: f32 is split in two.
pub(crate) fn halves(dtype: DType) -> u32 {
    if dtype == DType::F32 { 2 } else { 1 }
}

/// Distance of rows in workgroup memory, in groups of four: eight more than a row holds, so that rows of a block meet
/// different banks.
fn stride(columns: u32) -> u32 {
    (columns + 8) / 4
}

/// The numbers that follow from such a tile and the two row lengths; names as in the shaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MatrixSizes {
    pub row_blocks: u32,
    pub key_blocks: u32,
    pub qk_blocks: u32,
    /// Blocks that a row of Q or K is in memory: each number may be two f16.
    pub qk_parts: u32,
    pub v_blocks: u32,
    pub rows: u32,
    pub keys4: u32,
    pub k_stride: u32,
    pub v_stride: u32,
    pub v_start: u32,
    pub kv_tile: u32,
    /// Blocks of Q, and of the result, that pass through workgroup memory at once.
    pub q_slab: u32,
    pub o_slab: u32,
    pub s_stride: u32,
    pub p_stride: u32,
    pub s_tile: u32,
    pub p_tile: u32,
}

impl Matrices {
    pub(crate) fn sizes(&self, tile: &Tile, [head_dim, v_dim]: [u32; 2], dtype: DType) -> MatrixSizes {
        let Matrices { size, subgroup, fragments } = *self;
        let (qk_blocks, v_blocks) = (head_dim.div_ceil(size), (v_dim / tile.v_parts).div_ceil(size));
        let qk_parts = halves(dtype) * qk_blocks;
        let (k_stride, v_stride) = (stride(qk_parts * size), stride(halves(dtype) * v_blocks * size));
        let v_start = tile.block_kv * k_stride;
        let room = (v_start + tile.block_kv * v_stride).max(SLAB_BYTES / 8);
        // As many blocks of a row at once as fit, and at least one.
        let slab_size = |blocks: u32| tile.block_q * stride(blocks * size);
        let slab = |all: u32| {
            let fits = |n: &u32| all.is_multiple_of(*n) && slab_size(*n) <= room;
            (1..=all).rev().find(fits).unwrap_or(1)
        };
        let (q_slab, o_slab) = (slab(qk_parts), slab(v_blocks));
        let through = fragments == Fragments::Workgroup;
        // Scores wait as f32, four at a time: four more are as many bytes as eight f16.
        let s_stride = (tile.block_kv.max(size) + 4) / 4;
        let p_stride = stride(tile.block_kv);
        MatrixSizes {
            row_blocks: tile.block_q * subgroup / (tile.threads * size),
            key_blocks: tile.block_kv / size,
            qk_blocks,
            qk_parts,
            v_blocks,
            rows: tile.block_q * tile.lanes / tile.threads,
            keys4: tile.block_kv / (4 * tile.lanes),
            k_stride,
            v_stride,
            v_start,
            kv_tile: (v_start + tile.block_kv * v_stride).max(slab_size(q_slab)).max(slab_size(o_slab)),
            q_slab,
            o_slab,
            s_stride,
            p_stride,
            s_tile: if through { tile.block_q * s_stride } else { 0 },
            p_tile: if through { tile.block_q * p_stride } else { 0 },
        }
    }

    /// Why the loop cannot run this tile, if it cannot.
    pub(crate) fn refusal(&self, tile: &Tile) -> Option<&'static str> {
        let Matrices { size, subgroup, fragments } = *self;
        let strips = tile.threads.checked_div(subgroup).unwrap_or(0);
        if !matches!(size, 8 | 16) || subgroup == 0 || !tile.threads.is_multiple_of(subgroup) {
            return Some("matrix units need blocks of 8 or 16, and threads a multiple of the subgroup");
        }
        if !tile.block_q.is_multiple_of(strips * size) || !tile.block_kv.is_multiple_of(size) {
            return Some("blocks must divide block_kv, and the rows of each subgroup");
        }
        match fragments {
            Fragments::Registers(layout) if !layout.suits(size, subgroup) || layout.lanes != tile.lanes => {
                Some("lanes must be those of the fragments, which must suit blocks and subgroup")
            }
            Fragments::Workgroup if tile.lanes > size / 4 || tile.block_q / strips * tile.lanes < subgroup => {
                Some("lanes must be at most a quarter of a block, and every thread needs a row")
            }
            _ => None,
        }
    }

    /// Whether a workgroup may take query tile after query tile: where all rows of a query tile pass through workgroup memory at once,
    /// so that they can be on their way while a result is stored, and in the one tile that this was measured with. The large ones
    /// begin and end seldom, and narrower rows leave room for more workgroups.
    pub(crate) fn suits_tours(&self, tile: &Tile, dims: [u32; 2], dtype: DType) -> bool {
        let measured =
            *tile == self.tile(4, 1, 32) && dtype == DType::F16 && (65..=128).contains(&dims[0].max(dims[1]));
        let sizes = self.sizes(tile, dims, dtype);
        measured && sizes.q_slab == sizes.qk_parts && matches!(self.fragments, Fragments::Registers(_))
    }

    fn stores_f32(&self) -> bool {
        match self.fragments {
            Fragments::Registers(layout) => layout.has_pairs_of_halves(self.size) || layout.has_single_columns(),
            Fragments::Workgroup => false,
        }
    }

    /// Refuses f32 where it cannot be split into two f16, or must not be.
    pub(crate) fn check_f32(&self, shape: Shape, capabilities: &Capabilities) -> Result<()> {
        let reason: String = if !self.stores_f32() {
            "what is added to sums must be in registers, in an order that is known how to store".into()
        } else if shape.halves_bytes > capabilities.binding_bytes {
            let (bytes, limit) = (shape.halves_bytes, capabilities.binding_bytes);
            format!("the halves of an operand span {bytes} bytes, and the device binds at most {limit}")
        } else {
            return Ok(());
        };
        Err(Error::Limit(format!("f32 on matrix units: is computed as two f16, but {reason}")))
    }

    /// Bytes of workgroup memory.
    pub(crate) fn workgroup_bytes(&self, tile: &Tile, dims: [u32; 2], dtype: DType) -> u32 {
        let sizes = self.sizes(tile, dims, dtype);
        // The powers of two of split rows, and what they tell.
        let powers = if dtype == DType::F32 { 4 * (tile.block_q + 2 * tile.block_kv) + 16 } else { 0 };
        8 * sizes.kv_tile + 16 * sizes.s_tile + 8 * sizes.p_tile + 16 + powers
    }

    /// The numbers of the prelude.
    pub(crate) fn constants(&self, tile: &Tile, dims: [u32; 2], dtype: DType) -> Vec<(&'static str, u32)> {
        let s = self.sizes(tile, dims, dtype);
        let v_stored = halves(dtype) * s.v_blocks;
        // What lies in memory: rows as they are, or whole blocks of split ones.
        let used = |dim: u32, parts: u32| if dtype == DType::F32 { parts * self.size / 8 } else { dim.div_ceil(8) };
        // Blocks of a dot product that matrix units may sum by themselves.
        let group = if s.qk_blocks.is_multiple_of(2) { 2 } else { 1 };
        let (size4, size8) = (self.size / 4, self.size / 8);
        let loads = |columns8: u32| (tile.block_kv * columns8).div_ceil(tile.threads);
        let mut constants = self.block_constants();
        constants.extend([
            ("ROW_BLOCKS", s.row_blocks),
            ("KEY_BLOCKS", s.key_blocks),
            ("QK_BLOCKS", s.qk_parts),
            ("DOT_BLOCKS", s.qk_blocks),
            ("GROUP", group),
            ("GROUPS", s.qk_blocks / group),
            ("POWER_LOADS", tile.block_kv.div_ceil(tile.threads)),
            ("V_BLOCKS", s.v_blocks),
            ("Q_BLOCKS", s.row_blocks * s.qk_parts),
            ("S_BLOCKS", s.row_blocks * s.key_blocks),
            ("ACC_BLOCKS", s.row_blocks * s.v_blocks),
            ("ROWS", s.rows),
            ("KEYS4", s.keys4),
            ("SCORES", s.rows * s.keys4),
            ("COLS4", size4 / tile.lanes.min(size4)),
            ("K_STRIDE", s.k_stride),
            ("V_STRIDE", s.v_stride),
            ("Q_STRIDE", stride(s.q_slab * self.size)),
            ("Q_SLAB", s.q_slab),
            ("Q_SLABS", s.qk_parts / s.q_slab),
            ("Q_SLAB8", s.q_slab * size8),
            ("Q_LOADS", (tile.block_q * s.q_slab * size8).div_ceil(tile.threads)),
            ("O_STRIDE", stride(s.o_slab * self.size)),
            ("O_SLAB", s.o_slab),
            ("O_SLABS", s.v_blocks / s.o_slab),
            ("O_SLAB4", s.o_slab * size4),
            ("O_STORES", (tile.block_q * s.o_slab * size4).div_ceil(tile.threads)),
            ("V_START", s.v_start),
            ("KV_TILE", s.kv_tile),
            ("S_STRIDE", s.s_stride),
            ("P_STRIDE", s.p_stride),
            ("S_TILE", s.s_tile),
            ("P_TILE", s.p_tile),
            ("QK8", used(dims[0], s.qk_parts)),
            ("V8", used(dims[1], v_stored)),
            ("K_COLS8", s.qk_parts * size8),
            ("V_COLS8", v_stored * size8),
            ("K_LOADS", loads(s.qk_parts * size8)),
            ("V_LOADS", loads(v_stored * size8)),
        ]);
        constants
    }

    /// The numbers of a block, and of what a thread holds of it where threads know.
    pub(crate) fn block_constants(&self) -> Vec<(&'static str, u32)> {
        let Matrices { size, subgroup, fragments } = *self;
        let mut constants = vec![("SIZE", size), ("SIZE4", size / 4), ("SIZE8", size / 8), ("SUBGROUP", subgroup)];
        if let Fragments::Registers(layout) = fragments {
            let elements = size * size / subgroup;
            constants.extend([
                ("ELEMENTS", elements),
                ("SLOTS", layout.slots),
                ("RUN", layout.run),
                ("PER_SLOT", elements / layout.slots),
            ]);
        }
        constants
    }

    /// The types of blocks, and what they need.
    pub(crate) fn prelude(&self) -> String {
        // naga takes branches on what a subgroup agrees about for divergent; every thread of it takes the same.
        let mut text =
            "enable f16;\nenable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);\n".to_string();
        for (name, role) in [("block_a", "f16, A"), ("block_b", "f16, B"), ("block_c", "f32, C")] {
            text += &format!("alias {name} = coop_mat{0}x{0}<{role}>;\n", self.size);
        }
        text
    }

    /// A tile of `strips` subgroups that each own `row_blocks` blocks of rows and visit `block_kv` keys at a time, for
    /// [`Attention::tile`](crate::Attention::tile). What the loop cannot run is refused when planning.
    pub fn tile(self, strips: u32, row_blocks: u32, block_kv: u32) -> Tile {
        let Matrices { size, subgroup, fragments } = self;
        let lanes = match fragments {
            Fragments::Registers(layout) => layout.lanes,
            Fragments::Workgroup => (subgroup / row_blocks.saturating_mul(size).max(1)).clamp(1, (size / 4).max(1)),
        };
        Tile {
            block_q: strips.saturating_mul(row_blocks).saturating_mul(size),
            block_kv,
            lanes,
            threads: strips.saturating_mul(subgroup),
            slice_qk: 4,
            slice_v: 4,
            q_resident: true,
            products: Products::Matrices(self),
            v_parts: 1,
        }
    }
}
