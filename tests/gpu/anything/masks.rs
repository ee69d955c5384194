//! Masks from every constructor, each with what it says in words of the host.

use std::rc::Rc;

use wgpu_attention::{BlockMask, Mask, Neighborhood, Tensor, TileClass};

use super::draw::Draw;
use crate::support::ctx;

/// `([len_q, len_kv], b, h, i, j)` of the sequence that a pair is in.
pub type Pairs = Rc<dyn Fn([usize; 2], usize, usize, usize, usize) -> bool>;

#[derive(Clone)]
pub struct Drawn {
    pub mask: Mask,
    pub pairs: Pairs,
    /// Whether all heads have the same, in the order of their tokens.
    pub plain: bool,
}

fn drawn(mask: Mask, pairs: impl Fn([usize; 2], usize, usize, usize, usize) -> bool + 'static) -> Drawn {
    Drawn { mask, pairs: Rc::new(pairs), plain: true }
}

/// For `[batch, heads, len_q, len_kv]`; `positional`: without tables of a length.
pub fn mask(draw: &mut Draw, shape: [usize; 4], positional: bool) -> Drawn {
    match draw.below(12) {
        0 => drawn(Mask::all(), |_, _, _, _, _| true),
        1 => {
            let a = rule(draw, shape, positional);
            let p = a.pairs;
            let pairs = move |l, b, h, i, j| p(l, b, h, i, j) && j as i64 <= position(l, i);
            Drawn { plain: a.plain, ..drawn(a.mask & Mask::causal(), pairs) }
        }
        2 => {
            let a = rule(draw, shape, positional);
            let p = a.pairs;
            let pairs = move |l, b, h, i, j| p(l, b, h, i, j) || (2..9).contains(&j);
            Drawn { plain: a.plain, ..drawn(Mask::keys(2..9) | a.mask, pairs) }
        }
        3 => {
            let a = rule(draw, shape, positional);
            let p = a.pairs;
            Drawn { plain: a.plain, ..drawn(!a.mask, move |l, b, h, i, j| !p(l, b, h, i, j)) }
        }
        4 => {
            let (a, every) = (rule(draw, shape, positional), draw.pick(&[1usize, 2]));
            let heads = (0..shape[1]).map(|h| if h % 2 < every { a.mask.clone() } else { Mask::none() });
            let p = a.pairs;
            let pairs = move |l, b, h: usize, i, j| h % 2 < every && p(l, b, h, i, j);
            Drawn { plain: false, ..drawn(Mask::per_head(heads), pairs) }
        }
        _ => rule(draw, shape, positional),
    }
}

fn position([len_q, len_kv]: [usize; 2], i: usize) -> i64 {
    i as i64 + len_kv as i64 - len_q as i64
}

fn rule(draw: &mut Draw, shape: [usize; 4], positional: bool) -> Drawn {
    let [batch, heads, len_q, len_kv] = shape;
    let which = draw.below(if positional { 6 } else { 15 });
    // Of tensors a mask may read one of a name.
    let which = if matches!(which, 12 | 13) && std::mem::replace(&mut draw.tensors_in_mask, true) { 0 } else { which };
    draw.note(("rule", which));
    match which {
        0 => drawn(Mask::causal(), |l, _, _, i, j| j as i64 <= position(l, i)),
        1 => {
            let side = |draw: &mut Draw| draw.maybe(|draw| draw.pick(&[0usize, 1, 5, 17, usize::MAX]));
            let (left, right) = (side(draw), side(draw));
            drawn(Mask::window(left, right), move |l, _, _, i, j| {
                let (d, wide) =
                    (j as i64 - position(l, i), |n: Option<usize>| n.map_or(i64::MAX, |n| n.min(1 << 40) as i64));
                d >= -wide(left) && d <= wide(right)
            })
        }
        2 => {
            let range = draw.below(20)..draw.between(0, 40);
            drawn(Mask::keys(range.clone()), move |_, _, _, _, j| range.contains(&j))
        }
        3 => {
            let range = draw.below(20)..draw.between(0, 40);
            drawn(Mask::queries(range.clone()), move |_, _, _, i, _| range.contains(&i))
        }
        4 => {
            let size = draw.pick(&[1usize, 2, 7, 16, 1000, usize::MAX]);
            drawn(Mask::block_diagonal(size), move |l, _, _, i, j| {
                let p = position(l, i);
                p >= 0 && p as usize / size == j / size
            })
        }
        5 => {
            let text = "fn odd(x: u32) -> bool { return x % 3u != 1u; }\n\
                fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return odd(q_idx + 2u * kv_idx + h + b); }";
            Drawn { plain: false, ..drawn(Mask::wgsl(text), |_, b, h, i, j| (i + 2 * j + h + b) % 3 != 1) }
        }
        6 => {
            let (q, kv, n) = (tables(draw, batch, len_q, 4), tables(draw, batch, len_kv, 4), [len_q, len_kv]);
            drawn(Mask::segments(&q, &kv), move |_, b, _, i, j| at(&q, b, i, n[0]) == at(&kv, b, j, n[1]))
        }
        7 => {
            let (q, kv, n) = (tables(draw, batch, len_q, 30), tables(draw, batch, len_kv, 30), [len_q, len_kv]);
            drawn(Mask::positions(&q, &kv), move |_, b, _, i, j| at(&kv, b, j, n[1]) <= at(&q, b, i, n[0]))
        }
        8 => {
            let key = tables(draw, batch, len_kv, 20);
            let from = draw.words(len_q, 20);
            let last = draw.words(len_q, 25);
            drawn(Mask::ranges(&key, &from, &last), move |_, b, _, i, j| {
                (from[i]..=last[i]).contains(&at(&key, b, j, len_kv))
            })
        }
        9 => {
            let (q, kv, n) = (tables(draw, batch, len_q, 16), tables(draw, batch, len_kv, 16), [len_q, len_kv]);
            drawn(Mask::groups(&q, &kv), move |_, b, _, i, j| at(&q, b, i, n[0]) & at(&kv, b, j, n[1]) != 0)
        }
        10 => {
            let (first, spots) = (draw.below(4), draw.between(1, 6));
            let count = draw.between(1, 5);
            let widths = draw.words(count, 6);
            drawn(Mask::frame_distance(first, spots, &widths), move |_, _, _, i, j| {
                let (Some(i), Some(j)) = (i.checked_sub(first), j.checked_sub(first)) else { return false };
                let frames = widths.len();
                i / spots < frames
                    && j / spots < frames
                    && (i % spots).abs_diff(j % spots) < widths[(i / spots).abs_diff(j / spots)] as usize
            })
        }
        11 => {
            let refined = draw.maybe(|draw| draw.between(0, 9));
            let (list, blocks) = block_list(draw, shape);
            match refined {
                None => Drawn {
                    plain: list.heads() == 1,
                    ..drawn(Mask::blocks(&list), move |_, _, h, i, j| blocks(h, i, j) != TileClass::Empty)
                },
                Some(left) => Drawn {
                    plain: list.heads() == 1,
                    ..drawn(Mask::refined_blocks(&list, Mask::window(left, None)), move |l, _, h, i, j| {
                        match blocks(h, i, j) {
                            TileClass::Empty => false,
                            TileClass::Full => true,
                            TileClass::Partial => j as i64 >= position(l, i) - left as i64,
                        }
                    })
                },
            }
        }
        12 => {
            let dims = [draw.pick(&[1, batch]), draw.pick(&[1, heads]), draw.pick(&[1, len_q])];
            let words = len_kv.div_ceil(32);
            let bits = draw.words(dims.iter().product::<usize>() * words, u32::MAX);
            let tensor = Tensor::from_slice(ctx(), [dims[0], dims[1], dims[2], words], &bits).unwrap();
            Drawn {
                plain: dims[1] == 1,
                ..drawn(Mask::bits(&tensor), move |_, b, h, i, j| {
                    let row = (b % dims[0] * dims[1] + h % dims[1]) * dims[2] + i % dims[2];
                    bits[row * words + j / 32] >> (j % 32) & 1 == 1
                })
            }
        }
        13 => {
            let ids = draw.words(len_kv.max(1), 3);
            let tensor = Tensor::from_slice(ctx(), [1, 1, 1, ids.len()], &ids).unwrap();
            let text =
                "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return ids[kv_idx] != q_idx % 4u; }";
            drawn(Mask::wgsl_with(text, [("ids", (&tensor).into())]), move |_, _, _, i, j| ids[j] as usize != i % 4)
        }
        _ if len_q == 0 || len_kv < len_q => drawn(Mask::none(), |_, _, _, _, _| false),
        _ => neighborhood(draw, len_q),
    }
}

fn tables(draw: &mut Draw, batch: usize, len: usize, below: u32) -> Vec<u32> {
    let each = draw.one_in(2);
    draw.words(if each { batch * len } else { len }, below)
}

fn at(values: &[u32], b: usize, i: usize, len: usize) -> u32 {
    values[if values.len() == len { i } else { b * len + i }]
}

type Classes = Box<dyn Fn(usize, usize, usize) -> TileClass>;

fn block_list(draw: &mut Draw, [_, heads, len_q, len_kv]: [usize; 4]) -> (BlockMask, Classes) {
    let tile = draw.pick(&[[4usize, 8usize], [16, 16], [3, 5]]);
    let lists = draw.pick(&[1, heads]);
    let [rows, cols] = [len_q.div_ceil(tile[0]), len_kv.div_ceil(tile[1])];
    let drawn = draw.words(lists * rows * cols, 3);
    let classes: Vec<TileClass> =
        drawn.iter().map(|&c| [TileClass::Empty, TileClass::Partial, TileClass::Full][c as usize]).collect();
    let (mut row_ptr, mut col_idx, mut class) = (vec![0], Vec::new(), Vec::new());
    for row in 0..lists * rows {
        for col in 0..cols {
            if classes[row * cols + col] != TileClass::Empty {
                col_idx.push(col as u32);
                class.push(classes[row * cols + col]);
            }
        }
        row_ptr.push(col_idx.len() as u32);
    }
    let list = BlockMask::new([len_q, len_kv], tile, lists, &row_ptr, &col_idx, &class).unwrap();
    (list, Box::new(move |h, i, j| classes[(h % lists * rows + i / tile[0]) * cols + j / tile[1]]))
}

fn neighborhood(draw: &mut Draw, len_q: usize) -> Drawn {
    let rows = draw.pick(&(1..=len_q).filter(|rows| len_q.is_multiple_of(*rows)).collect::<Vec<_>>());
    let grid = if draw.one_in(2) { vec![rows, len_q / rows] } else { vec![len_q] };
    let each = |draw: &mut Draw, high: usize| (0..grid.len()).map(|_| draw.between(1, high)).collect::<Vec<_>>();
    let (window, dilation) = (each(draw, 6), each(draw, 3));
    let stride: Vec<usize> = window.iter().map(|&w| draw.between(1, w)).collect();
    let causal: Vec<bool> = grid.iter().map(|_| draw.one_in(3)).collect();
    let n = Neighborhood::new(&window).stride(&stride).dilation(&dilation).causal(&causal);
    draw.note((&grid, &n));
    let mask = Mask::neighborhood(&grid, n);
    let sees = move |_: [usize; 2], _: usize, _: usize, i: usize, j: usize| {
        let (mut i, mut j) = (i, j);
        // Tokens after the grid are seen by all.
        j >= grid.iter().product()
            || (0..grid.len()).rev().all(|dim| {
                let (a, b) = (i % grid[dim], j % grid[dim]);
                (i, j) = (i / grid[dim], j / grid[dim]);
                along(grid[dim], [window[dim], stride[dim], dilation[dim]], causal[dim], a, b)
            })
    };
    Drawn { plain: false, ..drawn(mask, sees) }
}

/// NATTEN's rule along one dimension.
fn along(len: usize, [window, stride, dilation]: [usize; 3], causal: bool, i: usize, j: usize) -> bool {
    if i % dilation != j % dilation {
        return false;
    }
    let n = (len - i % dilation).div_ceil(dilation) as i64;
    let (p, pj, window, stride) = ((i / dilation) as i64, (j / dilation) as i64, (window as i64).min(n), stride as i64);
    if causal {
        let leader = (p / stride * stride + stride - 1).min(n - 1);
        return pj <= p && pj >= leader - (window - 1);
    }
    let leader = (p / stride * stride + stride / 2).min(n - 1);
    let start = (leader - window / 2).clamp(0, n - window);
    (start..start + window).contains(&pj)
}
