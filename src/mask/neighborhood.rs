//! Neighborhoods on grids: which interval of each dimension a token sees, how tiles are laid over a grid, what they cost.

use std::collections::HashMap;

use crate::checks::MAX_LEN;
use crate::{Error, Result};

/// The window around a token of a 1-, 2- or 3-dimensional grid, with a number for each dimension.
///
/// Dilation d cuts a dimension into d interleaved groups that do not see each other; within a group of length n, token p
/// sees the `window` tokens around it, shifted inward at the borders, never cut; even windows reach one further to the
/// left. With a stride, as many neighbours share the window of their leader: the middle one (right of the middle if
/// the stride is even), or the last where the dimension is causal. Causal windows end at the token itself and are cut at
/// the start. A window longer than its group is clamped to it.
///
/// ```
/// use wgpu_attention::{Mask, Neighborhood};
/// let natten = Mask::neighborhood(&[64, 64], Neighborhood::new([13, 13]).dilation([2, 2]).causal([false, true]));
/// # let _ = natten;
/// ```
///
/// Sources: NATTEN (Hassani et al. 2023); Generalized Neighborhood Attention (Hassani et al. 2025), section 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighborhood {
    pub(super) window: Vec<usize>,
    pub(super) stride: Vec<usize>,
    pub(super) dilation: Vec<usize>,
    pub(super) causal: Vec<bool>,
}

/// One dimension of a grid: where each index lies once dilation groups follow one another, and what it sees there.
#[derive(Debug, PartialEq)]
pub(crate) struct Axis {
    pub coordinate: Vec<u32>,
    pub from: Vec<u32>,
    pub until: Vec<u32>,
}

impl Neighborhood {
    /// Windows of so many tokens a dimension; stride 1, dilation 1, not causal.
    pub fn new(window: impl AsRef<[usize]>) -> Neighborhood {
        let window = window.as_ref().to_vec();
        let ones = vec![1; window.len()];
        Neighborhood { stride: ones.clone(), dilation: ones, causal: vec![false; window.len()], window }
    }

    /// How many neighbours share a window, at most the window.
    pub fn stride(mut self, stride: impl AsRef<[usize]>) -> Self {
        self.stride = stride.as_ref().to_vec();
        self
    }

    /// The distance between tokens of a window.
    pub fn dilation(mut self, dilation: impl AsRef<[usize]>) -> Self {
        self.dilation = dilation.as_ref().to_vec();
        self
    }

    /// Whether a token sees nothing after itself, a dimension.
    pub fn causal(mut self, causal: impl AsRef<[bool]>) -> Self {
        self.causal = causal.as_ref().to_vec();
        self
    }

    /// Refuses numbers that make no neighborhood on this grid.
    pub(crate) fn check(&self, grid: &[usize]) -> Result<()> {
        let dims = grid.len();
        let bad = |sentence: String| Err(Error::Mask(format!("neighborhood: {sentence}")));
        if !(1..=3).contains(&dims) {
            return bad(format!("the grid has {dims} dimensions, but must have 1 to 3"));
        }
        let lens = [
            ("window", self.window.len()),
            ("stride", self.stride.len()),
            ("dilation", self.dilation.len()),
            ("causal", self.causal.len()),
        ];
        if let Some((name, len)) = lens.iter().find(|(_, len)| *len != dims) {
            return bad(format!("{name} has {len} values, but must have one a dimension of the grid ({dims})"));
        }
        let sizes = [("grid", grid), ("window", &self.window), ("stride", &self.stride), ("dilation", &self.dilation)];
        if let Some((name, values)) = sizes.iter().find(|(_, values)| values.contains(&0)) {
            return bad(format!("{name} is {values:?}, but each must be positive"));
        }
        if let Some(dim) = (0..dims).find(|&dim| self.stride[dim] > self.window[dim]) {
            let (stride, window) = (self.stride[dim], self.window[dim]);
            return bad(format!("stride of dimension {dim} is {stride}, but must be at most the window ({window})"));
        }
        let tokens = grid.iter().try_fold(1usize, |tokens, &len| tokens.checked_mul(len)).unwrap_or(usize::MAX);
        if tokens > MAX_LEN {
            return bad(format!("the grid {grid:?} has {tokens} tokens, but may have {MAX_LEN}"));
        }
        Ok(())
    }

    /// Lengths of the dilation groups of a dimension.
    fn groups(&self, len: usize, dim: usize) -> impl Iterator<Item = usize> {
        let dilation = self.dilation[dim];
        (0..dilation.min(len)).map(move |group| (len - group).div_ceil(dilation))
    }

    /// What position p of a group of length n sees, `[from, until)`; p may lie past the end, as tiles do.
    pub(super) fn interval(&self, dim: usize, p: usize, n: usize) -> [usize; 2] {
        let (window, stride) = (self.window[dim].min(n), self.stride[dim]);
        if self.causal[dim] {
            let leader = (p / stride * stride + stride - 1).min(n - 1);
            return [leader.saturating_sub(window - 1), (p + 1).min(n)];
        }
        let leader = (p / stride * stride + stride / 2).min(n - 1);
        let start = leader.saturating_sub(window / 2).min(n - window);
        [start, start + window]
    }

    /// Group after group along one dimension.
    pub(crate) fn axis(&self, len: usize, dim: usize) -> Axis {
        let dilation = self.dilation[dim];
        let mut axis = Axis { coordinate: vec![0; len], from: vec![0; len], until: vec![0; len] };
        let mut base = 0;
        for (group, n) in self.groups(len, dim).enumerate() {
            for p in 0..n {
                let i = group + p * dilation;
                let [from, until] = self.interval(dim, p, n);
                axis.coordinate[i] = (base + p) as u32;
                axis.from[i] = (base + from) as u32;
                axis.until[i] = (base + until) as u32;
            }
            base += n;
        }
        axis
    }

    /// Tiles of keys that each tile of queries visits along one dimension, all groups: tiles of keys lie at multiples of
    /// their length (`fixed`), or begin where the window of the tile's first query begins.
    pub(super) fn trips(&self, len: usize, dim: usize, q_tile: usize, kv_tile: usize, fixed: bool) -> Vec<usize> {
        let mut trips = Vec::new();
        for n in self.groups(len, dim) {
            for first in (0..n).step_by(q_tile) {
                let [from, _] = self.interval(dim, first, n);
                let [_, until] = self.interval(dim, first + q_tile - 1, n);
                let from = if fixed { from / kv_tile * kv_tile } else { from };
                trips.push((until - from).div_ceil(kv_tile));
            }
        }
        trips
    }

    /// Of all boxes of so many tokens (powers of two), those of queries and keys that visit the fewest tiles; of equal
    /// ones those that pad least.
    pub(crate) fn best_boxes(&self, grid: &[usize], q_tokens: usize, kv_tokens: usize) -> (Vec<usize>, Vec<usize>) {
        let padded = |tile_box: &[usize]| -> usize {
            let each = grid.iter().enumerate().zip(tile_box);
            each.map(|((dim, &len), &side)| self.groups(len, dim).map(|n| n.next_multiple_of(side)).sum::<usize>())
                .product()
        };
        let mut best: Option<([usize; 3], Vec<usize>, Vec<usize>)> = None;
        // Boxes are many, and few pairs of sides make them.
        let mut known = HashMap::new();
        let mut visits = |dim: usize, q: usize, kv: usize| -> usize {
            *known.entry((dim, q, kv)).or_insert_with(|| self.trips(grid[dim], dim, q, kv, true).iter().sum())
        };
        let all = |tokens: usize| -> Vec<(Vec<usize>, usize)> {
            boxes(tokens, grid.len()).into_iter().map(|tile_box| (tile_box.clone(), padded(&tile_box))).collect()
        };
        let kv_boxes = all(kv_tokens);
        for (q_box, q_padded) in all(q_tokens) {
            for (kv_box, kv_padded) in &kv_boxes {
                let trips = (0..grid.len()).map(|dim| visits(dim, q_box[dim], kv_box[dim])).product();
                let longest = q_box.iter().chain(kv_box).copied().max().unwrap_or(1);
                let cost = [trips, q_padded + kv_padded, longest];
                if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                    best = Some((cost, q_box.clone(), kv_box.clone()));
                }
            }
        }
        let (_, q_box, kv_box) = best.expect("there is always a box: all tokens along the last dimension");
        (q_box, kv_box)
    }

    /// The token of each slot: group after group, box after box, row-major within; `u32::MAX` where a box reaches past
    /// the group's end.
    pub(crate) fn order(&self, grid: &[usize], tile_box: &[usize]) -> Vec<u32> {
        // Index along a dimension for each (group, box, place within), or none.
        let steps: Vec<Vec<Vec<Vec<Option<usize>>>>> = (0..grid.len())
            .map(|dim| {
                let side = tile_box[dim];
                let group = |(group, n): (usize, usize)| {
                    let index = |p: usize| (p < n).then_some(group + p * self.dilation[dim]);
                    (0..n).step_by(side).map(|first| (first..first + side).map(index).collect()).collect()
                };
                self.groups(grid[dim], dim).enumerate().map(group).collect()
            })
            .collect();
        let within: Vec<Vec<usize>> = places(tile_box).collect();
        let mut slots = Vec::new();
        for group in places(&steps.iter().map(Vec::len).collect::<Vec<_>>()) {
            let groups: Vec<_> = steps.iter().zip(&group).map(|(dim, &g)| &dim[g]).collect();
            for tile in places(&groups.iter().map(|boxes| boxes.len()).collect::<Vec<_>>()) {
                for within in &within {
                    let mut token = Some(0);
                    for dim in 0..grid.len() {
                        let index = groups[dim][tile[dim]][within[dim]];
                        token = token.zip(index).map(|(token, index)| token * grid[dim] + index);
                    }
                    slots.push(token.map_or(u32::MAX, |token| token as u32));
                }
            }
        }
        slots
    }
}

/// All boxes of so many tokens whose sides are powers of two; what is odd of the count goes to the last side.
fn boxes(tokens: usize, dims: usize) -> Vec<Vec<usize>> {
    if dims == 1 {
        return vec![vec![tokens]];
    }
    let sides = (0..=tokens.trailing_zeros()).map(|power| 1 << power);
    sides
        .flat_map(|side| boxes(tokens / side, dims - 1).into_iter().map(move |rest| [vec![side], rest].concat()))
        .collect()
}

/// Row-major indices of a box.
fn places(sides: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let sides = sides.to_vec();
    (0..sides.iter().product()).map(move |mut n: usize| {
        let mut place = vec![0; sides.len()];
        for (at, side) in place.iter_mut().zip(&sides).rev() {
            *at = n % side;
            n /= side;
        }
        place
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as NATTEN states it, index by index.
    fn attends(len: usize, [window, stride, dilation]: [usize; 3], causal: bool, i: usize, j: usize) -> bool {
        let group = i % dilation;
        let n = (len - group).div_ceil(dilation) as i64;
        let (p, pj) = ((i / dilation) as i64, (j / dilation) as i64);
        let (w, s) = ((window as i64).min(n), stride as i64);
        let (left, right) = (w / 2, w / 2 + w % 2 - 1);
        let (start, end) = if causal {
            let leader = (p / s * s + s - 1).min(n - 1);
            ((leader - (w - 1)).max(0), (p + 1).min(n))
        } else {
            let leader = (p / s * s + s / 2).min(n - 1);
            let mut start = (leader - left).max(0);
            if leader + right >= n {
                start += n - right - leader - 1;
            }
            (start, start + w)
        };
        j % dilation == group && start <= pj && pj < end
    }

    #[test]
    fn intervals_follow_the_rule() {
        for (len, window, stride, dilation) in [
            (7, 9, 1, 1),
            (65, 7, 1, 1),
            (64, 16, 4, 1),
            (65, 9, 9, 1),
            (67, 5, 1, 3),
            (66, 12, 4, 1),
            (23, 6, 5, 4),
            (5, 2, 2, 7),
        ] {
            for causal in [false, true] {
                let neighborhood = Neighborhood::new([window]).stride([stride]).dilation([dilation]).causal([causal]);
                let axis = neighborhood.axis(len, 0);
                for (i, j) in (0..len).flat_map(|i| (0..len).map(move |j| (i, j))) {
                    let got = axis.from[i] <= axis.coordinate[j] && axis.coordinate[j] < axis.until[i];
                    let want = attends(len, [window, stride, dilation], causal, i, j);
                    assert_eq!(got, want, "{neighborhood:?} of {len}: {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn orders_hold_every_token_once() {
        let neighborhood = Neighborhood::new([3, 3, 3]).dilation([1, 2, 3]);
        let (grid, tile_box) = ([4, 5, 7], [2, 2, 4]);
        let order = neighborhood.order(&grid, &tile_box);
        assert_eq!(order.len() % 16, 0);
        let mut tokens: Vec<u32> = order.iter().copied().filter(|&token| token != u32::MAX).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, (0..140).collect::<Vec<u32>>());
        // The first box: rows 0 and 1, every second column, every third of the last.
        assert_eq!(order[..8], [0, 3, 6, u32::MAX, 14, 17, 20, u32::MAX]);
    }

    #[test]
    fn boxes_suit_the_window() {
        assert_eq!(boxes(8, 2), [[1, 8], [2, 4], [4, 2], [8, 1]]);
        assert_eq!(Neighborhood::new([16, 16]).best_boxes(&[64, 64], 64, 64), (vec![8, 8], vec![8, 8]));
        // A grid of two rows: wide boxes.
        assert_eq!(Neighborhood::new([2, 16]).best_boxes(&[2, 512], 64, 64).0, [2, 32]);
    }

    #[test]
    fn bad_numbers_are_told() {
        let told = |n: Neighborhood, grid: &[usize]| n.check(grid).unwrap_err().to_string();
        assert_eq!(
            told(Neighborhood::new([3, 3]), &[4]),
            "neighborhood: window has 2 values, but must have one a dimension of the grid (1)"
        );
        assert_eq!(told(Neighborhood::new([0]), &[4]), "neighborhood: window is [0], but each must be positive");
        assert_eq!(
            told(Neighborhood::new([3]).stride([4]), &[9]),
            "neighborhood: stride of dimension 0 is 4, but must be at most the window (3)"
        );
        assert!(told(Neighborhood::new([1; 4]), &[1; 4]).contains("4 dimensions"));
    }
}
