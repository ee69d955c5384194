//! The patterns: what each is called, and the mask it makes. All are 256 tokens small, and grow by the square of a scale, so
//! that grids grow by the scale itself.

use wgpu_attention::patterns::{
    Clip, HeadPattern, bigbird, concentric, davit_windows, diagonal_blocks, isolation, longformer, maxvit_block,
    maxvit_grid, passages, radial, radial_code,
};
use wgpu_attention::{Mask, Neighborhood, RadialModel, Result};

/// A row of the gallery.
pub struct Pattern {
    pub name: &'static str,
    pub title: &'static str,
    make: fn(usize) -> Result<Made>,
}

/// A mask over `256 * scale * scale` tokens.
pub struct Made {
    /// The call that makes it, with the numbers of this scale.
    pub call: String,
    /// What is drawn, and what the last head is checked against.
    pub mask: Mask,
    /// What runs instead for so many heads, where that is another value than `mask`.
    pub runs: Option<Box<dyn Fn(usize) -> Mask>>,
}

impl Pattern {
    /// As it is drawn.
    pub fn small(&self) -> Made {
        self.at(1).expect("the gallery's own numbers are sound")
    }

    /// As large as `scale` makes it.
    pub fn at(&self, scale: usize) -> Result<Made> {
        (self.make)(scale)
    }
}

/// The number of tokens at a scale.
pub fn len(scale: usize) -> usize {
    256 * scale * scale
}

fn made(call: impl Into<String>, mask: Mask) -> Result<Made> {
    Ok(Made { call: call.into(), mask, runs: None })
}

const fn row(name: &'static str, title: &'static str, make: fn(usize) -> Result<Made>) -> Pattern {
    Pattern { name, title, make }
}

pub const ALL: &[Pattern] = &[
    row("causal", "causal", |_| made("Mask::causal()", Mask::causal())),
    row("window", "sliding window", |s| {
        let left = len(s) / 8 - 1;
        made(format!("Mask::window({left}, 0)"), Mask::window(left, 0))
    }),
    row("sinks", "window and sink tokens", |s| {
        let left = len(s) / 8 - 1;
        let mask = Mask::causal() & (Mask::window(left, 0) | Mask::keys(0..8 * s * s));
        made(format!("Mask::causal() & (Mask::window({left}, 0) | Mask::keys(0..{}))", 8 * s * s), mask)
    }),
    row("prefix", "prefix language model", |s| {
        let n = len(s) / 4;
        made(format!("Mask::keys(0..{n}) | Mask::causal()"), Mask::keys(0..n) | Mask::causal())
    }),
    row("not_window", "all but the near", |s| {
        let side = len(s) / 10;
        made(format!("!Mask::window({side}, {side})"), !Mask::window(side, side))
    }),
    row("documents", "documents in one row", |s| {
        let ends = [50, 120, 135, 200, 256].map(|end| end * s * s);
        let ids: Vec<u32> = (0..len(s)).map(|i| ends.iter().filter(|&&end| end <= i).count() as u32).collect();
        made("Mask::segments(&ids, &ids) & Mask::causal()", Mask::segments(&ids, &ids) & Mask::causal())
    }),
    row("block_diagonal", "TransNormer's DiagAttention", |s| {
        let block = len(s) / 8;
        made(format!("diagonal_blocks({block}, true)"), diagonal_blocks(block, true))
    }),
    row("neighborhood_1d", "1-D neighborhood, dilated", |s| {
        let window = len(s) / 16;
        let neighborhood = Neighborhood::new([window]).dilation([4]);
        let call = format!("Mask::neighborhood(&[{}], Neighborhood::new([{window}]).dilation([4]))", len(s));
        made(call, Mask::neighborhood(&[len(s)], neighborhood))
    }),
    row("neighborhood_2d", "2-D neighborhood (NATTEN)", |s| {
        let (side, window) = (16 * s, 5 * s);
        let mask = Mask::neighborhood(&[side, side], Neighborhood::new([window, window]));
        made(format!("Mask::neighborhood(&[{side}, {side}], Neighborhood::new([{window}, {window}]))"), mask)
    }),
    row("neighborhood_3d", "3-D neighborhood", |s| {
        let (side, window) = (8 * s, 3 * s);
        let mask = Mask::neighborhood(&[4, side, side], Neighborhood::new([3, window, window]));
        made(format!("Mask::neighborhood(&[4, {side}, {side}], Neighborhood::new([3, {window}, {window}]))"), mask)
    }),
    row("strided", "strided neighborhood (GNA)", |s| {
        let (side, window, stride) = (16 * s, 8 * s, 4 * s);
        let mask = Mask::neighborhood(&[side, side], Neighborhood::new([window; 2]).stride([stride; 2]));
        let call = format!("Mask::neighborhood(&[{side}; 2], Neighborhood::new([{window}; 2]).stride([{stride}; 2]))");
        made(call, mask)
    }),
    row("diagonal", "Sparse-vDiT: diagonal", |s| {
        let width = 16 * s * s;
        head(format!("HeadPattern::Diagonal {{ width: {width} }}.mask(clip)"), HeadPattern::Diagonal { width }, s)
    }),
    row("multi_diagonal", "Sparse-vDiT: multi-diagonal", |s| {
        let call = "HeadPattern::MultiDiagonal { width: 8 }.mask(clip)";
        head(call.into(), HeadPattern::MultiDiagonal { width: 8 }, s)
    }),
    row("vertical_stripe", "Sparse-vDiT: vertical stripe", |s| {
        let block = 12 * s * s;
        let pattern = HeadPattern::VerticalStripe { block, stripes: vec![0, 9], local: Some(1) };
        head(
            format!("HeadPattern::VerticalStripe {{ block: {block}, stripes: vec![0, 9], local: Some(1) }}.mask(clip)"),
            pattern,
            s,
        )
    }),
    row("radial", "Radial Attention, the paper's rule", |s| {
        made(format!("radial(16, {}, true)", 16 * s * s), radial(16, 16 * s * s, true))
    }),
    row("radial_code", "Radial Attention, the released code", |s| {
        let (spots, block) = (16 * s * s, 8 * s);
        let list = radial_code(16, spots, 0, RadialModel::Wan, 1.0, block)?;
        made(
            format!("Mask::blocks(&radial_code(16, {spots}, 0, RadialModel::Wan, 1.0, {block})?)"),
            Mask::blocks(&list),
        )
    }),
    row("maxvit_block", "MaxViT: block", |s| {
        made(format!("maxvit_block({0}, {0}, {1})?.mask", 16 * s, 4 * s), maxvit_block(16 * s, 16 * s, 4 * s)?.mask)
    }),
    row("maxvit_grid", "MaxViT: grid", |s| {
        made(format!("maxvit_grid({0}, {0}, {1})?.mask", 16 * s, 4 * s), maxvit_grid(16 * s, 16 * s, 4 * s)?.mask)
    }),
    row("davit_windows", "DaViT: windows, ragged at the edge", |s| {
        made(format!("davit_windows({0}, {0}, {1})?.mask", 16 * s, 6 * s), davit_windows(16 * s, 16 * s, 6 * s)?.mask)
    }),
    row("concentric", "Concentric Causal Attention", |s| {
        let (text, side) = (30 * s * s, 14 * s);
        made(format!("concentric({text}, {side}, {side}, {text})?.mask"), concentric(text, side, side, text)?.mask)
    }),
    row("isolation", "subjects kept apart", |s| {
        let side = 16 * s;
        let within = |rows: std::ops::Range<usize>, cols: std::ops::Range<usize>| -> Vec<bool> {
            (0..side * side).map(|i| rows.contains(&(i / side)) && cols.contains(&(i % side))).collect()
        };
        let subjects = [within(2 * s..12 * s, s..7 * s), within(4 * s..15 * s, 9 * s..15 * s)];
        made("isolation(&[subject_1, subject_2], None)?", isolation(&subjects, None)?)
    }),
    row("passages", "REFRAG's passages", |s| {
        let n = s * s;
        let prompt = passages(16 * n, &[60 * n, 80 * n, 60 * n], 40 * n, true);
        made(format!("passages({}, &[{}, {}, {}], {}, true).mask", 16 * n, 60 * n, 80 * n, 60 * n, 40 * n), prompt.mask)
    }),
    row("longformer", "Longformer", |s| {
        let (n, window) = (len(s), 12 * s * s);
        made(format!("longformer({n}, {window}, &[0, {}])?", n / 2), longformer(n, window, &[0, n / 2])?)
    }),
    row("bigbird", "BigBird", |s| {
        let (n, block) = (len(s), 8 * s * s);
        made(
            format!("Mask::blocks(&bigbird({n}, {block}, 1, 1, 3, 7)?)"),
            Mask::blocks(&bigbird(n, block, 1, 1, 3, 7)?),
        )
    }),
    row("per_head", "another mask for each head; the second is drawn", |s| {
        let (near, stripe) = (16 * s * s - 1, 32 * s * s);
        let heads = move || [Mask::window(near, 0), Mask::causal() & !Mask::block_diagonal(stripe)];
        let [_, drawn] = heads();
        let call =
            format!("Mask::per_head([Mask::window({near}, 0), Mask::causal() & !Mask::block_diagonal({stripe})])");
        let runs = move |count| Mask::per_head(heads().into_iter().cycle().take(count));
        Ok(Made { call, mask: drawn, runs: Some(Box::new(runs)) })
    }),
    row("wgsl", "your own WGSL", |s| {
        // The same rule twice: the host evaluates no WGSL.
        let third: Vec<u32> = (0..len(s)).map(|j| u32::from(j / 64 % 3 == 0)).collect();
        let mask = Mask::groups(&vec![1; len(s)], &third) & Mask::causal();
        let rule = "kv_idx / 64u % 3u == 0u && kv_idx <= q_idx";
        let text = format!("fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool {{ return {rule}; }}");
        let call = format!("Mask::wgsl(\"fn mask_mod(...) -> bool {{ return {rule}; }}\")");
        Ok(Made { call, mask, runs: Some(Box::new(move |_| Mask::wgsl(&text))) })
    }),
];

fn head(call: String, pattern: HeadPattern, scale: usize) -> Result<Made> {
    made(call, pattern.mask(Clip { text: 0, frames: 8, spots: 32 * scale * scale }))
}
