//! Named patterns, each with its rule in words of the host, on the host and on the device.

use wgpu_attention::patterns::{self, Clip, HeadPattern};
use wgpu_attention::reference::{Real, Rules, Sizes, softmax_attention};
use wgpu_attention::{Attention, DType, Layout, Mask, TileClass};

use super::attention::TINY;
use super::draw::{Draw, right, told};
use crate::support::ctx;

/// Whether key j is seen by query i.
type Sees = Box<dyn Fn(usize, usize) -> bool>;

pub fn case(draw: &mut Draw) -> Result<(), String> {
    if draw.one_in(2) {
        return wrong(draw);
    }
    let (name, len_q, len_kv, mask, sees) = pattern(draw);
    draw.note((name, len_q, len_kv));
    let host = mask.host([1, 1, len_q, len_kv]).map_err(|e| format!("{name}: {e}"))?;
    let pairs = (0..len_q).flat_map(|i| (0..len_kv).map(move |j| (i, j)));
    if let Some((i, j)) = pairs.into_iter().find(|&(i, j)| host.allows(0, 0, i, j) != sees(i, j)) {
        return Err(format!("{name}: query {i} {} key {j}", if sees(i, j) { "must see" } else { "must not see" }));
    }
    let sizes = Sizes { batch: 1, heads: 1, heads_kv: 1, len_q, len_kv, head_dim: 4, v_dim: 4 };
    let values = [len_q, len_kv, len_kv].map(|len| draw.floats(4 * len));
    let shapes = [len_q, len_kv, len_kv].map(|len| [1, 1, len, 4]);
    let [q, k, v] = [0, 1, 2].map(|n| draw.tensor(DType::F32, shapes[n], &values[n]));
    let attention = Attention::new(&q, &k, &v).mask(mask).tile(TINY);
    let (out, lse) = attention.run_with_lse(ctx()).map_err(|e| format!("{name}: {e}"))?;
    let [exact, plain] = [oracle::<f64>(sizes, &values, &sees), oracle::<f32>(sizes, &values, &sees)];
    right("out", &out, &exact[0], &plain[0])?;
    right("lse", &lse, &exact[1], &plain[1])
}

fn oracle<T: Real>(sizes: Sizes, values: &[Vec<f32>; 3], sees: &Sees) -> [Vec<f64>; 2] {
    let [q, k, v] = values.each_ref().map(|x| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>());
    let scale = |_| T::of(0.5);
    let mask = |_: usize, _: usize, i: usize, j: usize| sees(i, j);
    let (out, lse) = softmax_attention(sizes, &q, &k, &v, Rules { mask: &mask, ..Rules::dense(&scale) });
    [out, lse].map(|x| x.into_iter().map(T::to_f64).collect())
}

fn square(name: &'static str, len: usize, mask: Mask, sees: Sees) -> (&'static str, usize, usize, Mask, Sees) {
    (name, len, len, mask, sees)
}

fn pattern(draw: &mut Draw) -> (&'static str, usize, usize, Mask, Sees) {
    match draw.below(10) {
        0 => {
            let (block, causal, len) = (draw.between(1, 12), draw.one_in(2), draw.between(1, 40));
            let sees = move |i, j| i / block == j / block && (!causal || j <= i);
            square("diagonal_blocks", len, patterns::diagonal_blocks(block, causal), Box::new(sees))
        }
        1 => {
            let (prefix, query, causal) = (draw.between(0, 5), draw.between(0, 6), draw.one_in(2));
            let lens: Vec<usize> = (0..draw.between(1, 4)).map(|_| draw.between(0, 9)).collect();
            let passages = patterns::passages(prefix, &lens, query, causal);
            let middle = lens.iter().enumerate().flat_map(|(n, &len)| vec![n as i32; len]);
            let of: Vec<i32> = std::iter::repeat_n(-1, prefix).chain(middle).chain(vec![-2; query]).collect();
            if passages.segment != of {
                panic!("segments are {:?}, not {of:?}", passages.segment);
            }
            let len = of.len();
            let sees = move |i: usize, j: usize| (of[i] == of[j] || of[j] == -1 || of[i] == -2) && (!causal || j <= i);
            square("passages", len, passages.mask, Box::new(sees))
        }
        2 => {
            let (len, window) = (draw.between(1, 40), draw.pick(&[0, 2, 9, usize::MAX]));
            let global: Vec<usize> = (0..draw.below(3)).map(|_| draw.below(len)).collect();
            let mask = patterns::longformer(len, window, &global).unwrap();
            let sees = move |i: usize, j: usize| i.abs_diff(j) <= window || global.contains(&i) || global.contains(&j);
            square("longformer", len, mask, Box::new(sees))
        }
        3 => {
            let (len, block) = (draw.between(1, 40), draw.between(1, 9));
            let [window, global, random] = [draw.below(3), draw.below(3), draw.below(4)];
            let list = patterns::bigbird(len, block, window, global, random, draw.below(9) as u64).unwrap();
            let blocks = len.div_ceil(block);
            let known = move |row: usize, col: usize| row.abs_diff(col) <= window || row < global || col < global;
            for row in 0..blocks {
                let seen = |col: &usize| list.class(0, row, *col) == TileClass::Full;
                let named = (0..blocks).filter(|&col| known(row, col)).count();
                let all = (0..blocks).filter(seen).count();
                if all != named + random.min(blocks - named) || (0..blocks).any(|col| known(row, col) && !seen(&col)) {
                    panic!("bigbird: row {row} sees {all} blocks, of {named} that have a name");
                }
            }
            let mask = Mask::blocks(&list);
            let sees = move |i, j| list.class(0, i / block, j / block) == TileClass::Full;
            square("bigbird", len, mask, Box::new(sees))
        }
        4 => image(draw),
        5 => {
            let [before, height, width, after] =
                [draw.between(0, 5), draw.between(1, 5), draw.between(1, 6), draw.between(0, 5)];
            let concentric = patterns::concentric(before, height, width, after).unwrap();
            let rings = height.min(width).div_ceil(2);
            let place = move |token: usize| match token.checked_sub(before) {
                None => token,
                Some(n) if n < height * width => {
                    let (y, x) = (n / width, n % width);
                    before + y.min(height - 1 - y).min(x).min(width - 1 - x)
                }
                Some(n) => before + rings + n - height * width,
            };
            let len = before + height * width + after;
            if concentric.rings != rings || (0..len).any(|n| concentric.position_ids[n] as usize != place(n)) {
                panic!("concentric: positions are {:?}", concentric.position_ids);
            }
            square("concentric", len, concentric.mask, Box::new(move |i, j| place(j) <= place(i)))
        }
        6 => isolation(draw),
        7 => video(draw),
        8 => {
            let (frames, spots, sink) = (draw.between(1, 9), draw.between(1, 5), draw.one_in(2));
            let sees = move |i: usize, j: usize| {
                let apart = (i / spots).abs_diff(j / spots);
                let doubling = 1usize << apart.max(1).ilog2();
                let diagonal = usize::from(apart.is_multiple_of(doubling.div_ceil(spots)));
                (i % spots).abs_diff(j % spots) < (spots / doubling).max(diagonal) || (sink && j < spots)
            };
            square("radial", frames * spots, patterns::radial(frames, spots, sink), Box::new(sees))
        }
        _ => {
            let (frames, spots, text, block) =
                (draw.between(1, 6), draw.between(1, 6), draw.between(0, 5), draw.between(1, 8));
            let model = draw.pick(&[wgpu_attention::RadialModel::Wan, wgpu_attention::RadialModel::Hunyuan]);
            let list = patterns::radial_code(frames, spots, text, model, 1.0, block).unwrap();
            let mask = Mask::blocks(&list);
            let len = frames * spots + text;
            // Text sees all and is seen by all, and so do those who share its block.
            let first_text = frames * spots / block;
            let blocks = len.div_ceil(block);
            let kept = |row, col| list.class(0, row, col) == TileClass::Full;
            if (first_text..blocks).any(|row| (0..blocks).any(|col| !kept(row, col) || !kept(col, row))) {
                panic!("radial_code: text does not see all");
            }
            square(
                "radial_code",
                len,
                mask,
                Box::new(move |i, j| list.class(0, i / block, j / block) == TileClass::Full),
            )
        }
    }
}

fn image(draw: &mut Draw) -> (&'static str, usize, usize, Mask, Sees) {
    let size = draw.between(1, 4);
    let whole = |draw: &mut Draw| size * draw.between(1, 3);
    let which = draw.below(3);
    let [height, width] =
        if which == 2 { [draw.between(1, 9), draw.between(1, 9)] } else { [whole(draw), whole(draw)] };
    let blocks = move |i: usize, j: usize| i / width / size == j / width / size && i % width / size == j % width / size;
    let (rows, cols) = ((height / size).max(1), (width / size).max(1));
    let spread = move |i: usize, j: usize| i / width % rows == j / width % rows && i % width % cols == j % width % cols;
    let (name, groups, sees): (_, _, Sees) = match which {
        0 => ("maxvit_block", patterns::maxvit_block(height, width, size).unwrap(), Box::new(blocks)),
        1 => ("maxvit_grid", patterns::maxvit_grid(height, width, size).unwrap(), Box::new(spread)),
        _ => ("davit_windows", patterns::davit_windows(height, width, size).unwrap(), Box::new(blocks)),
    };
    let len = height * width;
    for i in 0..len {
        let group: Vec<usize> = (0..len).filter(|&j| sees(i, j)).collect();
        let cells: std::collections::HashSet<u32> = group.iter().map(|&j| groups.cell[j]).collect();
        if cells.len() != group.len() || group.len() + groups.padding[i] as usize != size * size {
            panic!("{name}: the group of token {i} has the cells {cells:?}, and {} places empty", groups.padding[i]);
        }
    }
    square(name, len, groups.mask, sees)
}

fn isolation(draw: &mut Draw) -> (&'static str, usize, usize, Mask, Sees) {
    let (subjects, len) = (draw.between(1, 4), draw.between(1, 15));
    let covers = |draw: &mut Draw| -> Vec<Vec<bool>> {
        (0..subjects).map(|_| draw.words(len, 3).into_iter().map(|x| x == 0).collect()).collect()
    };
    let targets = covers(draw);
    let references = draw.maybe(|draw| covers(draw));
    let mask = patterns::isolation(&targets, references.as_deref()).unwrap();
    let before = references.as_ref().map_or(0, |_| subjects * len);
    let sees = move |i: usize, j: usize| {
        let of = |token: usize| (0..subjects).filter(|&s| targets[s][token]).collect::<Vec<_>>();
        let own = of(i);
        match (j.checked_sub(before), &references) {
            (None, Some(references)) => own.contains(&(j / len)) && references[j / len][j % len],
            (Some(j), _) => own.is_empty() || of(j).is_empty() || (own.len() == 1 && of(j) == own),
            (None, None) => unreachable!(),
        }
    };
    ("isolation", len, before + len, mask, Box::new(sees))
}

fn video(draw: &mut Draw) -> (&'static str, usize, usize, Mask, Sees) {
    let clip = Clip { text: draw.between(0, 4), frames: draw.between(1, 5), spots: draw.between(1, 6) };
    let Clip { text, frames, spots } = clip;
    let width = draw.pick(&[0, 1, 4, usize::MAX]);
    let block = draw.between(1, 6);
    let stripes: Vec<usize> = (0..draw.below(3)).map(|_| draw.below(6)).collect();
    let local = draw.maybe(|draw| draw.pick(&[0, 1, usize::MAX]));
    let turned = move |u: usize| u % spots * frames + u / spots;
    type Rule = Box<dyn Fn(usize, usize) -> bool>;
    let (pattern, rule): (_, Rule) = match draw.below(5) {
        0 => (HeadPattern::Full, Box::new(|_, _| true)),
        1 => (HeadPattern::Skip, Box::new(|_, _| false)),
        2 => (HeadPattern::Diagonal { width }, Box::new(move |i, j| i.abs_diff(j) <= width)),
        3 => (HeadPattern::MultiDiagonal { width }, Box::new(move |i, j| turned(i).abs_diff(turned(j)) <= width)),
        _ => {
            let pattern = HeadPattern::VerticalStripe { block, stripes: stripes.clone(), local };
            let near = move |i: usize, j: usize| local.is_some_and(|local| (i / block).abs_diff(j / block) <= local);
            (pattern, Box::new(move |i, j| stripes.contains(&(j / block)) || near(i, j)))
        }
    };
    draw.note((clip, &pattern));
    let mask = pattern.mask(clip);
    let none = pattern == HeadPattern::Skip;
    let sees = move |i: usize, j: usize| match (i.checked_sub(text), j.checked_sub(text)) {
        (Some(i), Some(j)) => rule(i, j),
        _ => !none,
    };
    square("head pattern", clip.len(), mask, Box::new(sees))
}

/// What cannot be, and lengths that no memory holds.
fn wrong(draw: &mut Draw) -> Result<(), String> {
    let huge = draw.pick(&[usize::MAX, 1 << 40, (1 << 29) + 1]);
    let x = Layout::new(DType::F32, [1, 1, 8, 4]).unwrap();
    let planned = |mask: Mask, name: &str| told(Attention::new(x, x, x).mask(mask).plan(ctx()), &[name]);
    let clip = |text, frames, spots| Clip { text, frames, spots };
    let model = wgpu_attention::RadialModel::Wan;
    match draw.below(24) {
        0 => planned(patterns::diagonal_blocks(0, true), "block_diagonal: "),
        1 => planned(patterns::passages(1, &[2, huge], 1, true).mask, "lengths: "),
        2 => planned(patterns::passages(1, &[2], 1, true).mask, "segments"),
        3 => told(patterns::longformer(8, 2, &[8]), &["global: "]),
        4 => told(patterns::longformer(huge, 2, &[]), &["lengths: "]),
        5 => told(patterns::bigbird(8, 0, 1, 1, 1, 1), &["bigbird: "]),
        6 => told(patterns::bigbird(huge, 1, 1, 1, 1, 1), &["bigbird: "]),
        7 => told(patterns::maxvit_block(9, 6, draw.pick(&[0, 2, 1 << 16])), &["size: "]),
        8 => told(patterns::maxvit_grid(8, 9, draw.pick(&[0, 4, 1 << 16])), &["size: "]),
        9 => told(patterns::davit_windows(8, 9, draw.pick(&[0, 1 << 16])), &["size: "]),
        10 => told(patterns::davit_windows(huge, 9, 3), &["lengths: "]),
        11 => told(patterns::concentric(1, 0, 3, 1), &["image: "]),
        12 => told(patterns::concentric(1, huge, 3, 1), &["lengths: "]),
        13 => told(patterns::isolation(&[], None), &["isolation: "]),
        14 => told(patterns::isolation(&vec![vec![true]; 30], None), &["isolation: "]),
        15 => told(patterns::isolation(&[vec![true], vec![]], None), &["isolation: "]),
        16 => told(patterns::isolation(&[vec![true]], Some(&[vec![true], vec![true]])), &["references: "]),
        17 => planned(HeadPattern::Diagonal { width: 1 }.mask(clip(0, 0, 8)), "clip: "),
        18 => {
            let vertical = HeadPattern::VerticalStripe { block: 1, stripes: vec![0], local: Some(1) };
            let pattern = draw.pick(&[HeadPattern::MultiDiagonal { width: 1 }, vertical]);
            planned(pattern.mask(draw.pick(&[clip(0, huge, 8), clip(huge, 1, 8), clip(1, 8, huge)])), "lengths: ")
        }
        19 => planned(
            HeadPattern::VerticalStripe { block: 0, stripes: vec![], local: None }.mask(clip(0, 1, 8)),
            "vertical stripe: ",
        ),
        20 => planned(patterns::radial(0, 8, true), "radial: "),
        21 => planned(patterns::radial(huge, draw.pick(&[1, 8, huge]), true), "lengths: "),
        22 => told(patterns::radial_code(2, 4, 0, model, draw.pick(&[0.0, -1.0, f64::NAN]), 4), &["radial: "]),
        _ => {
            let (frames, spots, text, block) = draw.pick(&[
                (huge, 4, 0, 4),
                (2, huge, 0, 4),
                (2, 4, huge, 4),
                (2, 4, 0, 0),
                (0, 4, 0, 4),
                (1 << 20, 4, 0, 1024),
            ]);
            told(patterns::radial_code(frames, spots, text, model, 1.0, block), &["radial: ", "lengths: "])
        }
    }
}
