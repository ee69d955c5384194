//! Into how many parts a plan splits its keys by itself, where there are too few queries to keep the device busy.

use super::capabilities::Capabilities;
use super::layout::DType;
use super::tuning::{Products, Tile};

/// Threads that a multiprocessor holds, and workgroups, of the devices that `parallel_threads` knows.
const MULTIPROCESSOR: [u32; 2] = [2048, 32];

/// Workgroups of an unsplit problem, and the KV tiles that they visit: the one with most, and all together, which is seldom asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visits<F: Fn() -> usize> {
    pub workgroups: usize,
    pub longest: usize,
    pub total: F,
}

/// Parts to split the keys of every query tile into, so that the device is busy. Of all that make the longest part as long, the
/// fewest.
pub(crate) fn splits(
    tile: &Tile,
    dtype: DType,
    dims: [usize; 2],
    visits: Visits<impl Fn() -> usize>,
    capabilities: &Capabilities,
) -> usize {
    let threads = capabilities.parallel_threads;
    let at_once = match tile.products {
        Products::Matrices(_) => return matrix_splits(tile, dtype, visits, threads),
        // One row's loads are all that counts, and half of its workgroups may wait.
        Products::Stream(_) if tile.block_q == 1 => threads / tile.threads,
        // As many as are resident at once, which is a matter of workgroup memory; any more run after them. Four rows to a streamed
        // key, 8 key heads, 32768 keys on an H100, where 11 workgroups are resident on each of 132 multiprocessors: 16 parts 0.422 ms,
        // 20 0.419, 22 0.413, 23 0.542, 32 0.476, 64 0.435.
        Products::Stream(_) => {
            let dims = dims.map(|dim| dim as u32);
            // What lies there is f32 whatever the operands are.
            let bytes = tile.workgroup_bytes(dims, DType::F32, tile.uses_subgroups(capabilities));
            let [most_threads, most] = MULTIPROCESSOR;
            let resident = (capabilities.workgroup_memory / bytes.max(1)).min(most).min(most_threads / tile.threads);
            (u64::from(threads) * u64::from(resident) / u64::from(most_threads)) as u32
        }
        _ => threads / (REGISTERS * tile.threads),
    };
    let wanted = at_once as usize / visits.workgroups.max(1);
    // A part visits tiles enough to pay for its result, which is written and read again in f32: `block_q` rows for `block_kv` keys.
    let worth = visits.longest / (tile.block_q as usize / 8).max(1);
    let parts = wanted.min(worth).max(1);
    visits.longest.div_ceil(visits.longest.div_ceil(parts).max(1)).max(1)
}

/// Keys that a workgroup on matrix units visits in the time that it takes to begin and end, and in the time that a merge takes, with
/// its parts' results, in f16 and in f32.
const BEGIN_KEYS: usize = 220;
const MERGE_KEYS: [usize; 2] = [2500, 500];

/// Multiply-adds in registers leave room for one in so many of the threads that a multiprocessor holds.
const REGISTERS: u32 = 4;

/// Threads of a multiprocessor that registers leave room for on matrix units.
const MATRIX_THREADS: u32 = MULTIPROCESSOR[0] / 8;

/// Workgroups of so many threads that a device runs at once on matrix units.
pub(crate) fn resident_on_matrix_units(threads: u32, parallel_threads: u32) -> usize {
    (parallel_threads / (MULTIPROCESSOR[0] / MATRIX_THREADS * threads)) as usize
}

/// Heads that go abreast where query tiles differ in cost: the fewest of which the cheapest quarter fills the device, so that it comes
/// last. H 16, D 128, N 4096, causal, on an H100: f16 1.03 instead of 1.08 ms, f32 3.46 instead of 3.65; with all of 32 heads, where 4 are
/// enough (N 32768), 120 instead of 115, since they share no keys.
pub(crate) fn heads_abreast(tile: &Tile, heads: usize, q_tiles: usize, parallel_threads: u32) -> usize {
    let resident = match tile.products {
        Products::Matrices(_) => resident_on_matrix_units(tile.threads, parallel_threads),
        _ => (parallel_threads / (REGISTERS * tile.threads)) as usize,
    };
    let enough = (4 * resident).div_ceil(q_tiles.max(1)).clamp(1, heads.max(1));
    (enough..heads).find(|n| heads.is_multiple_of(*n)).unwrap_or(heads).max(1)
}

/// Workgroups of a tour, where each takes query tile after query tile: as many as are resident, so the device's multiprocessors must be
/// known. None where there are too few query tiles to be worth it.
pub(crate) fn tour_teams(tile: &Tile, workgroups: u64, multiprocessors: Option<u32>) -> Option<u32> {
    let resident = u64::from(multiprocessors?) * u64::from(MATRIX_THREADS / tile.threads);
    // Numbers of query tiles must not wrap behind the last.
    let worth = resident > 0 && workgroups >= 4 * resident && workgroups < 1 << 31;
    worth.then_some(resident as u32)
}

/// Workgroups that look for query tiles where nobody knows how many run at once: looking costs nearly nothing, and computing by too few
/// would take long.
const LEAST_TEAMS: u32 = 64;

/// Workgroups that look for query tiles to be computed again, and compute them: one a multiprocessor. Started for each query tile, they take
/// about 40 microseconds to find nothing among 2048 of 128 rows, and 57 to 70 among 8192 of 64 (H100). On devices that end long loops there is one
/// for each query tile, since a loop over many would count the turns of all of them.
pub(crate) fn redo_teams(workgroups: u32, capabilities: &Capabilities) -> u32 {
    if capabilities.loop_turns().is_some() {
        return workgroups;
    }
    let guessed = (capabilities.parallel_threads / MULTIPROCESSOR[0]).max(LEAST_TEAMS);
    capabilities.multiprocessors.unwrap_or(guessed).clamp(1, workgroups.max(1))
}

/// The number of parts that makes the time least, counted in keys that a workgroup visits.
///
/// Measured on an H100 (26 November 2026, B 1, H 8; milliseconds whole, in 2 and in 4 parts). f16: N 1024, D 64 0.036, 0.041, 0.039; N 2048,
/// D 128 0.072, 0.118, 0.135; N 4096, D 64 0.123, 0.169, 0.185, causal 0.128, 0.142, 0.143; D 128 0.250, 0.364, 0.399. f32: N 1024, D 64
/// 0.102, 0.090, 0.082; D 128 0.143, 0.134, 0.144; N 2048, D 64 0.169, 0.173, 0.187, causal 0.174, 0.174, 0.166; N 4096, D 64 0.425, 0.461,
/// 0.481, causal 0.433, 0.382, 0.349; D 128 0.847, 0.957, 0.992, causal 0.696, 0.684, 0.662.
fn matrix_splits(tile: &Tile, dtype: DType, visits: Visits<impl Fn() -> usize>, parallel_threads: u32) -> usize {
    let resident = resident_on_matrix_units(tile.threads, parallel_threads);
    let most = (4 * resident / visits.workgroups.max(1)).min(visits.longest);
    if most <= 1 {
        return 1;
    }
    let total = (visits.total)();
    let merge = MERGE_KEYS[usize::from(dtype == DType::F32)];
    let keys = |parts: usize| {
        let tiles = visits.longest.div_ceil(parts).max(total.div_ceil(resident));
        let turns = (visits.workgroups * parts).div_ceil(resident);
        tiles * tile.block_kv as usize + turns * BEGIN_KEYS + if parts > 1 { merge } else { 0 }
    };
    (1..=most).min_by_key(|&parts| keys(parts)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::matrices::{FragmentLayout, Fragments, Matrices};

    /// Parts of a problem whose workgroups visit a share of `tiles` each, on a device of that many threads.
    fn parts(dtype: DType, threads: u32, sizes: [u32; 3], workgroups: usize, keys: usize, share: f64) -> usize {
        let layout = FragmentLayout { lanes: 4, slots: 2, run: 2 };
        let matrices = Matrices { size: 16, subgroup: 32, fragments: Fragments::Registers(layout) };
        let tile = matrices.tile(sizes[0], sizes[1], sizes[2]);
        let longest = keys / sizes[2] as usize;
        let visits = Visits { workgroups, longest, total: || (share * (workgroups * longest) as f64) as usize };
        matrix_splits(&tile, dtype, visits, threads)
    }

    #[test]
    fn parts_on_matrix_units_are_the_measured_best() {
        let (wide, narrow, f32_wide) = ([8, 1, 64], [4, 2, 32], [8, 1, 32]);
        let h100 = 1 << 18;
        // A problem that fills the device gains nothing, nor does one whose merge would take as long as it saves.
        assert_eq!(parts(DType::F16, h100, wide, 256, 4096, 1.0), 1);
        assert_eq!(parts(DType::F16, h100, wide, 128, 2048, 1.0), 1);
        assert_eq!(parts(DType::F16, h100, narrow, 256, 4096, 0.5), 1);
        assert_eq!(parts(DType::F16, h100, narrow, 64, 1024, 1.0), 1);
        assert_eq!(parts(DType::F32, h100, narrow, 256, 4096, 1.0), 1);
        assert_eq!(parts(DType::F32, h100, f32_wide, 128, 2048, 1.0), 1);
        // Where rows see half of the keys on average, parts make up for it; few rows with many keys are cut finely.
        assert_eq!(parts(DType::F32, h100, narrow, 256, 4096, 0.5), 2);
        assert_eq!(parts(DType::F32, h100, narrow, 64, 1024, 1.0), 4);
        assert!(parts(DType::F16, h100, wide, 8, 32768, 1.0) >= 16);
        assert_eq!(parts(DType::F16, 0, wide, 8, 32768, 1.0), 1);
    }

    #[test]
    fn heads_go_abreast_until_the_cheapest_quarter_fills_the_device() {
        let layout = FragmentLayout { lanes: 4, slots: 2, run: 2 };
        let matrices = Matrices { size: 16, subgroup: 32, fragments: Fragments::Registers(layout) };
        let abreast = |heads, q_tiles, threads| heads_abreast(&matrices.tile(8, 1, 64), heads, q_tiles, threads);
        let h100 = 1 << 18;
        // 128 workgroups are resident: all of few query tiles; where there are more of those, a divisor of the heads.
        assert_eq!([32, 128, 256, 1024].map(|q_tiles| abreast(16, q_tiles, h100)), [16, 4, 2, 1]);
        assert_eq!((abreast(12, 100, h100), abreast(7, 128, h100)), (6, 7));
        assert_eq!((abreast(16, 32, 0), abreast(1, 1, h100)), (1, 1));
    }
}
