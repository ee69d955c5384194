//! Which tiles a neighborhood visits, counted beforehand.

use super::Neighborhood;
use crate::checks::MAX_LEN;
use crate::{Error, Result};

/// What a tiled kernel does to a neighborhood; see [`simulate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    /// Tiles of keys each tile of queries visits, tiles of keys lying at multiples of their sides; row-major, dilation
    /// groups of a dimension one after the other.
    pub trips_static: Vec<usize>,
    /// The same where tiles of keys begin with the window of a tile's first query.
    pub trips_dynamic: Vec<usize>,
    /// Tiles of keys that dense attention visits for each tile of queries.
    pub total_kv_tiles: usize,
    /// Pairs that attend.
    pub attended_pairs: f64,
    /// All pairs over those that attend: what no tiled kernel reaches unless it is fully block-sparse.
    pub speedup_flop: f64,
    /// Tiles that dense attention visits over those visited: what to expect at best of tiles that lie still.
    pub speedup_static: f64,
    /// The same for tiles that begin with the window.
    pub speedup_dynamic: f64,
    /// Whether every visited tile is FULL, by NATTEN's rule; never where a dimension is causal.
    pub fully_block_sparse: bool,
}

/// Counts the tiles that a neighborhood on a grid visits, so that nobody is promised the FLOP bound.
///
/// ```
/// use wgpu_attention::{Neighborhood, simulate};
/// let blocks = Neighborhood::new([32, 32]).stride([16, 16]);
/// let simulation = simulate(&[64, 64], &blocks, &[16, 16], &[16, 8])?;
/// assert_eq!(simulation.speedup_flop, 4.0);
/// assert_eq!(simulation.speedup_static, 3.2);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Mask`] for a bad neighborhood, or tiles that are not positive and one a dimension.
///
/// Source: Generalized Neighborhood Attention (Hassani et al. 2025), section 4 (NATTENSim).
pub fn simulate(
    grid: &[usize],
    neighborhood: &Neighborhood,
    q_tile: &[usize],
    kv_tile: &[usize],
) -> Result<Simulation> {
    neighborhood.check(grid)?;
    for (name, tile) in [("q_tile", q_tile), ("kv_tile", kv_tile)] {
        if tile.len() != grid.len() || tile.iter().any(|&side| side == 0 || side > MAX_LEN) {
            return Err(Error::Mask(format!(
                "{name}: is {tile:?}, but must have a side of 1 to {MAX_LEN} for each dimension of the grid ({})",
                grid.len()
            )));
        }
    }
    let dims = 0..grid.len();
    let trips = |fixed: bool| {
        let each = dims.clone().map(|dim| neighborhood.trips(grid[dim], dim, q_tile[dim], kv_tile[dim], fixed));
        // The product over dimensions, row-major.
        each.fold(vec![1], |all: Vec<usize>, dim| all.iter().flat_map(|a| dim.iter().map(move |b| a * b)).collect())
    };
    let tiles = |tile: &[usize]| grid.iter().zip(tile).map(|(len, side)| len.div_ceil(*side)).product::<usize>();
    let pairs_of = |dim: usize| {
        let axis = neighborhood.axis(grid[dim], dim);
        axis.from.iter().zip(&axis.until).map(|(from, until)| f64::from(until - from)).sum::<f64>()
    };
    let attended_pairs: f64 = dims.clone().map(pairs_of).product();
    let (trips_static, trips_dynamic) = (trips(true), trips(false));
    let dense = (tiles(q_tile) * tiles(kv_tile)) as f64;
    let tokens = grid.iter().product::<usize>() as f64;
    Ok(Simulation {
        total_kv_tiles: tiles(kv_tile),
        attended_pairs,
        speedup_flop: tokens * tokens / attended_pairs,
        speedup_static: dense / trips_static.iter().sum::<usize>() as f64,
        speedup_dynamic: dense / trips_dynamic.iter().sum::<usize>() as f64,
        fully_block_sparse: dims
            .into_iter()
            .all(|dim| block_sparse(neighborhood, grid[dim], dim, q_tile[dim], kv_tile[dim])),
        trips_static,
        trips_dynamic,
    })
}

/// Whether every visited tile is FULL along one dimension: stride groups are whole tiles of queries, and each window
/// begins and ends with a tile of keys.
fn block_sparse(neighborhood: &Neighborhood, len: usize, dim: usize, q_tile: usize, kv_tile: usize) -> bool {
    let (window, stride) = (neighborhood.window[dim], neighborhood.stride[dim]);
    if neighborhood.causal[dim] || neighborhood.dilation[dim] != 1 {
        return false;
    }
    if window >= len {
        return true;
    }
    let last_start = neighborhood.interval(dim, (len - 1) / stride * stride, len)[0];
    // Leaders lie at stride / 2 within their group; the first whose window is not clamped begins here, modulo the stride.
    let offset = (window / 2).abs_diff(stride / 2);
    let two_groups = len.is_multiple_of(kv_tile) && len.div_ceil(stride) == 2 && stride + stride / 2 >= len - window;
    stride.is_multiple_of(q_tile)
        && window.is_multiple_of(kv_tile)
        && (len.is_multiple_of(stride) || last_start.is_multiple_of(kv_tile))
        && (offset.is_multiple_of(kv_tile) || two_groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_tiles_and_grids_are_told() {
        for bad in [0, usize::MAX] {
            assert!(simulate(&[8], &Neighborhood::new([3]), &[bad], &[4]).is_err());
        }
        let huge = Neighborhood::new([3, 3, 3]);
        assert!(simulate(&[1 << 28; 3], &huge, &[1; 3], &[1; 3]).unwrap_err().to_string().contains("but may have"));
    }
}
