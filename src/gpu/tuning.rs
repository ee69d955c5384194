//! Which tile for which problem on which device: a pure table, chosen by measurement.

use super::capabilities::Capabilities;
use super::layout::DType;
use super::matrices::{FragmentLayout, Fragments, Matrices};
use super::tiles::table;
use super::turns::{pairs_of, tile_turns};
use crate::{Error, Result};

/// How the softmax loop cuts a problem into workgroups, and a workgroup into threads.
///
/// The library chooses one by itself; give your own with [`Attention::tile`](crate::Attention::tile) to measure others.
/// Results do not depend on it, up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Queries a workgroup owns.
    pub block_q: u32,
    /// Keys it visits at a time; a multiple of `4 * lanes`.
    pub block_kv: u32,
    /// Threads that share a query row; a power of two.
    pub lanes: u32,
    /// Threads in the workgroup; `block_q * lanes` is a multiple of it, and it a multiple of `lanes`.
    pub threads: u32,
    /// Columns of Q and K staged at a time, at most (rounded down to what divides head_dim evenly); a multiple of 4.
    pub slice_qk: u32,
    /// Keys of V staged at a time; a multiple of 4 that divides `block_kv`.
    pub slice_v: u32,
    /// Whether all of Q stays in workgroup memory, instead of being staged again with each slice of K.
    pub q_resident: bool,
    /// How operands reach the threads that multiply them.
    pub products: Products,
    /// Parts of the columns of v, whole blocks each, for every one of which scores are computed anew: 1 but for f32 on matrix units, where
    /// wide rows leave a thread no registers for Q and for all of its sums.
    pub v_parts: u32,
}

/// How operands of the two matrix products reach the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Products {
    /// Staged in workgroup memory (`lib/tile.wgsl`, `lib/dot_fma.wgsl`): right for GPUs.
    Staged,
    /// Broadcast within subgroups of exactly this many threads (`lib/dot_broadcast.wgsl`), each thread owning whole
    /// rows: right for CPUs that run shaders. Needs 64-bit integers, `lanes` 1, and a `block_kv` that 8 and the size
    /// divide; nothing is staged, so the slices do not matter.
    Broadcast(u32),
    /// On the device's matrix units (`attention_coop.wgsl`): f16 operands, f32 sums. Subgroups own `block_q` evenly, in
    /// whole blocks, and a block divides `block_kv`; Q stays in registers and K and V are staged whole, so the slices do not
    /// matter. f32 is split into two f16 (`halves.wgsl`), which takes fragments in registers.
    Matrices(Matrices),
    /// Straight from memory, each element of K and V once (`lib/dot_stream.wgsl`), this many threads reading a key
    /// together: right for a few rows, as in decoding. A power of two that divides `lanes`; more than 1 needs subgroups
    /// of at least as many threads. `slice_qk` is how many keys, and `slice_v` how many values, a thread asks for before
    /// it uses any; `slice_qk / 4` divides the number of threads.
    Stream(u32),
}

/// The numbers that follow from a tile and the two row lengths; names as in the shaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileSizes {
    pub rows: u32,
    pub keys4: u32,
    pub qk4: u32,
    pub v4: u32,
    pub cols4: u32,
    pub qk_slices: u32,
    pub slice4: u32,
    pub v_slices: u32,
    pub q_stride: u32,
    pub k_stride: u32,
    pub p_stride: u32,
    /// Lengths in workgroup memory, in elements. Q and P share one array, in which P begins at `p_start`: where Q lies
    /// too, if it is staged by slices.
    pub q_tile: u32,
    pub kv_tile: u32,
    pub p_tile: u32,
    pub p_start: u32,
    pub qp_tile: u32,
}

impl Tile {
    /// Refuses a tile that the loop cannot run.
    pub(crate) fn check(&self) -> Result<()> {
        let Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, v_parts, .. } = *self;
        let rule = if [block_q, block_kv, lanes, threads, slice_qk, slice_v, v_parts].contains(&0) {
            "every number must be at least 1"
        } else if [block_q, block_kv, threads, slice_qk].iter().any(|&n| n > 1024) {
            "no number may exceed 1024"
        } else if !lanes.is_power_of_two() || !threads.is_multiple_of(lanes) {
            "lanes must be a power of two that divides threads"
        } else if !(block_q * lanes).is_multiple_of(threads) {
            "threads must divide block_q * lanes"
        } else if !block_kv.is_multiple_of(4 * lanes) {
            "4 * lanes must divide block_kv"
        } else if !slice_qk.is_multiple_of(4) || !slice_v.is_multiple_of(4) || !block_kv.is_multiple_of(slice_v) {
            "slice_qk and slice_v must be multiples of 4, and slice_v must divide block_kv"
        } else if let Products::Broadcast(size) = self.products
            && (lanes != 1 || size == 0 || size % 4 != 0 || block_kv % size.max(8) != 0 || threads % size != 0)
        {
            "broadcast products need lanes 1 and a subgroup that is a multiple of 4 and divides block_kv and threads"
        } else if let Products::Matrices(matrices) = self.products
            && let Some(rule) = matrices.refusal(self)
        {
            rule
        } else if let Products::Stream(share) = self.products
            && (!share.is_power_of_two() || lanes % share != 0 || share % (slice_qk / 4) != 0)
        {
            "streamed products need a power of two of threads a key that divides lanes, and that slice_qk / 4 divides"
        } else {
            return Ok(());
        };
        Err(Error::Limit(format!("tile: {self:?} cannot run, {rule}")))
    }

    pub(crate) fn sizes(&self, head_dim: u32, v_dim: u32) -> TileSizes {
        let (qk4, v4) = (head_dim.div_ceil(4), v_dim.div_ceil(4));
        let staged = self.products == Products::Staged;
        let broadcast = matches!(self.products, Products::Broadcast(_));
        let qk_slices = if staged { qk4.div_ceil(self.slice_qk / 4) } else { 1 };
        let slice4 = qk4.div_ceil(qk_slices);
        // Odd strides keep neighbouring rows in different banks; streamed products read a row as whole pieces.
        let q_stride = match self.products {
            Products::Stream(share) => qk4.next_multiple_of(share),
            _ => (if self.q_resident { qk_slices * slice4 } else { slice4 }) | 1,
        };
        let k_stride = slice4 | 1;
        // Broadcast products keep eight weights, as four 64-bit words, in an element of 32 bytes.
        let p_stride = if broadcast { self.block_kv / 8 } else { (self.block_kv / 4) | 1 };
        let q_tile = if broadcast { 0 } else { self.block_q * q_stride };
        let p_tile = self.block_q * p_stride;
        let p_start = if staged && !self.q_resident { 0 } else { q_tile };
        TileSizes {
            rows: self.block_q * self.lanes / self.threads,
            keys4: self.block_kv / (4 * self.lanes),
            qk4,
            v4,
            cols4: v4.div_ceil(self.lanes),
            qk_slices,
            slice4,
            v_slices: if staged { self.block_kv / self.slice_v } else { 1 },
            q_stride,
            k_stride,
            p_stride,
            q_tile,
            kv_tile: if staged { (self.block_kv * k_stride).max(self.slice_v * v4) } else { 0 },
            p_tile,
            p_start,
            qp_tile: q_tile.max(p_start + p_tile),
        }
    }

    /// A tile of the same blocks whose products are multiply-adds: for what matrix units cannot compute. It is compiled beside the kernel that
    /// does the rest, so it may take long (first plans of causal f16 at D 128 0.66 and 0.70 s with the first of these, 0.64 and 0.65 with the third).
    /// With every query tile to be computed again, milliseconds on an H100 (28 November 2026; causal, N 4096, B 4; a window of 512 of 32768 keys, H 16):
    ///
    /// | threads, columns and keys a slice | f16 H 16, D 128 | f16 H 32, D 64 | f32 H 16, D 128 | f16 window, D 128 |
    /// |---|---|---|---|---|
    /// | 512, 8, 4 | 18.9 | 23.4 | 26.9 | 19.7 |
    /// | 256, 8, 4 | 14.3 | 19.2 | 20.6 | 14.1 |
    /// | 256, 16, 8 | 11.7 | 13.5 | 15.3 | 9.9 |
    /// | 512, 16, 8, 16 threads a row | 12.7 | 16.8 | 19.4 | 14.4 |
    pub(crate) fn multiply_adds(&self, most_threads: u32) -> Tile {
        let lanes = 1 << (self.block_kv / 4).trailing_zeros().min(3);
        Tile {
            lanes,
            threads: 1 << (self.block_q * lanes).trailing_zeros().min(most_threads.min(256).ilog2()),
            slice_qk: 16,
            slice_v: self.block_kv.min(8),
            q_resident: false,
            products: Products::Staged,
            v_parts: 1,
            ..*self
        }
    }

    /// Whether staged products repeat their text for each column and key of a slice. Where a thread has few rows there is little to
    /// repeat and much to wait for: 128 queries of 8 heads, D 64, take no longer without, and compile in 126 ms instead of 172 (H100).
    pub(crate) fn unrolls_slices(&self) -> bool {
        self.block_q * self.lanes >= 4 * self.threads
    }

    /// Threads that read a key together.
    pub(crate) fn share(&self) -> u32 {
        if let Products::Stream(share) = self.products { share } else { 1 }
    }

    /// Whether the rows of this tile can be reduced by subgroup shuffles.
    pub(crate) fn uses_subgroups(&self, capabilities: &Capabilities) -> bool {
        if let Products::Matrices(_) = self.products {
            return true;
        }
        self.lanes > 1 && capabilities.subgroup_min_size.is_some_and(|size| self.lanes <= size)
    }

    /// Bytes of workgroup memory; `shader_tests.rs` compares with what naga reflects.
    pub(crate) fn workgroup_bytes(&self, [head_dim, v_dim]: [u32; 2], dtype: DType, subgroups: bool) -> u32 {
        if let Products::Matrices(matrices) = self.products {
            return matrices.workgroup_bytes(self, [head_dim, v_dim], dtype);
        }
        let sizes = self.sizes(head_dim, v_dim);
        let reduction = if subgroups || self.lanes == 1 { 0 } else { 4 * self.block_q * (self.lanes + 1) };
        let flag = if self.products == Products::Staged { 4 } else { 0 };
        // Broadcast products have an array of their own, of weights alone.
        let qp_bytes =
            if matches!(self.products, Products::Broadcast(_)) { 32 * sizes.p_tile } else { 16 * sizes.qp_tile };
        16 * sizes.kv_tile + qp_bytes + reduction + flag
    }
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub dtype: DType,
    pub head_dim: u32,
    pub v_dim: u32,
    /// Rows of a head, or of all heads that share a tile.
    pub rows: usize,
    /// Heads, or tiles of heads that share one, over all batches and sequences.
    pub heads: usize,
    /// Keys that a row sees at most, by the mask's bounds.
    pub keys: usize,
    /// Query-key pairs over all batches and heads, that those bounds leave.
    pub pairs: usize,
    /// Whether tokens are visited in another order, which broadcast products cannot.
    pub ordered: bool,
    /// Whether tiles come from a list.
    pub listed: bool,
    /// Rows and keys of the largest tile that the mask is known to cut nowhere, 0 for a side without edges: multiples of a tile are whole.
    pub uncut: Option<[usize; 2]>,
    /// Why it must not be computed on matrix units, if it must not.
    pub off_units: Option<&'static str>,
    /// Turns that loops of the user's texts may take for a pair.
    pub user_turns: usize,
    /// Bytes of the largest operand that such halves would be made of, or of its halves.
    pub halves_bytes: u64,
}

/// Threads that keep a device busy, by its kind. No API tells the number of multiprocessors, so these are sizes of the
/// devices that one meets: 132 of them with 2048 threads each (H100, H200; 128 with 1536 on an RTX 4090), a 32nd of that
/// for GPUs within a processor. CPUs run few workgroups at once, and gain nothing.
pub(crate) fn parallel_threads(device: wgpu::DeviceType) -> u32 {
    match device {
        wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu => 1 << 18,
        wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::Other => 1 << 13,
        wgpu::DeviceType::Cpu => 0,
    }
}

/// The first tile of the table that the device can run, or why even the last cannot run.
pub(crate) fn choose(shape: Shape, capabilities: &Capabilities) -> Result<Tile> {
    let table = table(shape, capabilities);
    let fits = |tile: &&Tile| check_fits(tile, shape, capabilities).is_ok();
    if let Some(tile) = table.iter().find(fits) {
        return Ok(*tile);
    }
    let last = table[table.len() - 1];
    check_fits(&last, shape, capabilities).map(|()| last)
}

/// Why a better tile than this one was not taken, if there is one.
pub(crate) fn why_not_better(tile: &Tile, shape: Shape, capabilities: &Capabilities) -> Option<String> {
    why_not_on_matrix_units(tile, shape, capabilities).or_else(|| why_not_best(tile, shape, capabilities))
}

/// Why a tile is not one on matrix units, or not one of what their registers hold, where the same device with such units would have been given it.
fn why_not_on_matrix_units(tile: &Tile, shape: Shape, capabilities: &Capabilities) -> Option<String> {
    let in_registers = capabilities.matrices.is_some_and(|m| matches!(m.fragments, Fragments::Registers(_)));
    let why = capabilities.unreached.filter(|_| !capabilities.cpu && !in_registers)?;
    let fragments = Fragments::Registers(FragmentLayout::KNOWN[0]);
    let matrices = Some(Matrices { size: 16, subgroup: 32, fragments });
    let within_reach = choose(shape, &Capabilities { matrices, ..capabilities.clone() }).ok()?;
    match (within_reach.products, tile.products) {
        (Products::Matrices(_), Products::Matrices(_)) => {
            Some(format!("what matrix units hold passes through workgroup memory, because {why}"))
        }
        (Products::Matrices(_), _) => Some(format!("not on matrix units, because {why}")),
        _ => None,
    }
}

fn why_not_best(tile: &Tile, shape: Shape, capabilities: &Capabilities) -> Option<String> {
    let best = table(shape, capabilities).into_iter().next().filter(|best| best != tile)?;
    let refusal = check_fits(&best, shape, capabilities).err()?;
    Some(format!("another tile, because of {refusal}"))
}

/// Where a workgroup that computes query tiles again keeps which is next.
pub(super) const WANTED_BYTES: u32 = 8;

/// Refuses a tile that asks for more than the device has, with both numbers.
pub(crate) fn check_fits(tile: &Tile, shape: Shape, capabilities: &Capabilities) -> Result<()> {
    if tile.threads > capabilities.workgroup_threads {
        return Err(Error::Limit(format!(
            "workgroup: needs {} threads, device allows {}",
            tile.threads, capabilities.workgroup_threads
        )));
    }
    if let Products::Matrices(matrices) = tile.products {
        capabilities.check_matrices(&matrices)?;
        if let Some(reason) = shape.off_units {
            return Err(Error::Limit(format!("matrix units: are not for this, because {reason}")));
        }
        if shape.dtype == DType::F32 {
            matrices.check_f32(shape, capabilities)?;
        }
    }
    check_v_parts(tile, shape)?;
    let turns = tile_turns(tile, [shape.head_dim, shape.v_dim].map(|dim| dim as usize), shape.user_turns, capabilities);
    if let Some(limit) = capabilities.loop_turns().filter(|&limit| shape.user_turns > 0 && turns > limit) {
        let (pairs, user) = (pairs_of(tile), shape.user_turns);
        return Err(Error::Limit(format!(
            "loops: those of your WGSL may take {user} turns a pair, of which a thread has {pairs} in a tile, but this device ends loops after {limit} (see trust_wgsl)"
        )));
    }
    if let Products::Broadcast(size) = tile.products
        && (capabilities.subgroup_min_size, capabilities.subgroup_max_size) != (Some(size), Some(size))
    {
        let have = capabilities.subgroup_min_size.zip(capabilities.subgroup_max_size);
        let have = have.map_or("none".into(), |(min, max)| format!("{min} to {max}"));
        return Err(Error::Limit(format!("subgroups: broadcast needs exactly {size} threads, device has {have}")));
    }
    if tile.share() > capabilities.subgroup_min_size.unwrap_or(1) {
        let (share, have) =
            (tile.share(), capabilities.subgroup_min_size.map_or("none".into(), |size| size.to_string()));
        return Err(Error::Limit(format!("subgroups: {share} threads read a key together, device has {have}")));
    }
    if matches!(tile.products, Products::Broadcast(_)) && !capabilities.int64 {
        return Err(Error::Limit("broadcast products: need 64-bit integers, device has none".into()));
    }
    let dims = [shape.head_dim, shape.v_dim];
    let own = |tile: &Tile| tile.workgroup_bytes(dims, shape.dtype, tile.uses_subgroups(capabilities));
    check_memory(own(tile), "", capabilities)?;
    if let Products::Matrices(_) = tile.products {
        let again = own(&tile.multiply_adds(capabilities.workgroup_threads)) + WANTED_BYTES;
        check_memory(again, " for what matrix units cannot compute, in the same blocks", capabilities)?;
    }
    Ok(())
}

fn check_v_parts(tile: &Tile, shape: Shape) -> Result<()> {
    let (parts, v_dim) = (tile.v_parts, shape.v_dim);
    let rule = match tile.products {
        _ if parts == 1 => return Ok(()),
        Products::Matrices(matrices) if shape.dtype == DType::F32 => {
            let columns = parts.saturating_mul(matrices.size);
            if v_dim.is_multiple_of(columns) {
                return Ok(());
            }
            format!("v_dim must be a multiple of {columns}, and is {v_dim}")
        }
        _ => "only f32 on matrix units is computed in parts of v's columns".into(),
    };
    Err(Error::Limit(format!("tile: v_parts is {parts}, but {rule}")))
}

fn check_memory(bytes: u32, why: &str, capabilities: &Capabilities) -> Result<()> {
    let allowed = capabilities.workgroup_memory;
    if bytes > allowed {
        return Err(Error::Limit(format!("workgroup memory: needs {bytes} bytes{why}, device allows {allowed}")));
    }
    Ok(())
}
