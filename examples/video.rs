//! Sparse attention over a synthetic video: the offline search gives each head the cheapest pattern that keeps its output,
//! Radial Attention gives all heads one mask, and both are timed against dense attention.
//!
//!     cargo run --release --example video -- [--csv FILE]

#[path = "bench/timing.rs"]
mod timing;

use std::path::PathBuf;

use clap::Parser;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::patterns::{Clip, HeadPattern, HeadSearch, radial, radial_code};
use wgpu_attention::{Attention, AttentionIo, Context, DType, Error, Mask, RadialModel, Tensor};

#[derive(Parser)]
#[command(
    about = "Searches a pattern for each head of a synthetic video, and times it and Radial Attention against dense."
)]
struct Args {
    /// Writes the table to FILE.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Timed repetitions; the median counts.
    #[arg(long, default_value_t = 11)]
    repeats: usize,
}

/// Weight of computed tiles against error, and the loss above which a head stays full: the paper's defaults.
const LAMBDA: f64 = 0.5;
const EPS: f64 = 1.0;
const DIM: usize = 64;

/// What a head of the synthetic video looks at, and how many heads do.
const HEADS: [(Kind, usize); 5] =
    [(Kind::Content, 3), (Kind::Silent, 1), (Kind::Near, 6), (Kind::SameSpot, 4), (Kind::FirstFrame, 2)];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One token anywhere, by content: no pattern fits.
    Content,
    /// Values near 0: may be skipped.
    Silent,
    /// Tokens near in the sequence.
    Near,
    /// The same spot in every frame.
    SameSpot,
    /// The beginning of the first frame.
    FirstFrame,
}

fn main() {
    if let Err(e) = run(&Args::parse()) {
        eprintln!("video: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), Error> {
    let ctx = pollster::block_on(Context::request())?;
    let cpu = ctx.capabilities().cpu;
    let clip = if cpu { Clip { text: 0, frames: 8, spots: 64 } } else { Clip { text: 0, frames: 16, spots: 1024 } };
    println!("{}: {} frames of {} tokens", ctx.device().adapter_info().name, clip.frames, clip.spots);
    let [q, k, v] = operands(&ctx, clip)?;
    let block = clip.spots / 16;
    let candidates = [
        ("full", HeadPattern::Full),
        ("skip", HeadPattern::Skip),
        ("diagonal", HeadPattern::Diagonal { width: clip.spots / 2 }),
        ("multi-diagonal", HeadPattern::MultiDiagonal { width: clip.frames }),
        ("stripe", HeadPattern::VerticalStripe { block, stripes: vec![0, 1], local: Some(1) }),
    ];
    let masks: Vec<Mask> = candidates.iter().map(|(_, pattern)| pattern.mask(clip)).collect();
    let search = pollster::block_on(HeadSearch::run(&ctx, [&q, &k, &v], &masks, [64, 64], LAMBDA, EPS))?;
    let kinds: Vec<Kind> = HEADS.iter().flat_map(|&(kind, heads)| vec![kind; heads]).collect();
    println!("head  wants        gets            loss");
    for (h, (&mode, kind)) in search.mode.iter().zip(&kinds).enumerate() {
        println!("{h:>4}  {:<11}  {:<14}  {:.3}", kind.name(), candidates[mode].0, search.loss[mode][h]);
    }

    let code = radial_code(clip.frames, clip.spots, 0, RadialModel::Hunyuan, 1.0, if cpu { 16 } else { 128 })?;
    let rows = [
        ("dense", Mask::all(), String::new()),
        ("search", search.mask(&masks), "1.58 to 1.85 (Sparse-vDiT)".into()),
        ("radial, paper's rule", radial(clip.frames, clip.spots, false), "1.9 (Radial Attention)".into()),
        ("radial, released code", Mask::blocks(&code), "1.9 (Radial Attention)".into()),
    ];
    let mut table = vec!["mask,pairs_over_kept,ms,speedup,paper".to_string()];
    let mut dense = None;
    println!("{:<24} {:>10} {:>10} {:>9}  paper", "mask", "fewer flops", "ms", "speedup");
    for (name, mask, paper) in rows {
        let fewer = flop_reduction(&mask, q.shape())?;
        let seconds = time(&ctx, [&q, &k, &v], mask, args.repeats)?;
        let speedup = *dense.get_or_insert(seconds) / seconds;
        println!("{name:<24} {fewer:>9.2} x {:>10.3} {speedup:>7.2} x  {paper}", seconds * 1e3);
        table.push(format!("{},{fewer:.4},{:.4},{speedup:.4},{paper}", name.replace(',', ""), seconds * 1e3));
    }
    if let Some(path) = &args.csv {
        let written = std::fs::write(path, table.join("\n") + "\n");
        written.map_err(|e| Error::Value(format!("--csv: {} was not written ({e})", path.display())))?;
    }
    Ok(())
}

/// All pairs over those that attend, over all heads.
fn flop_reduction(mask: &Mask, [_, heads, len, _]: [usize; 4]) -> Result<f64, Error> {
    let host = mask.host([1, heads, len, len])?;
    // A few rows stand for all: 64 a head, evenly spread.
    let rows: Vec<usize> = (0..len).step_by((len / 64).max(1)).collect();
    let kept: usize =
        (0..heads).flat_map(|h| rows.iter().map(move |&i| (h, i))).map(|(h, i)| host.count(0, h, i)).sum();
    Ok((heads * rows.len() * len) as f64 / kept as f64)
}

fn time(ctx: &Context, [q, k, v]: [&Tensor; 3], mask: Mask, repeats: usize) -> Result<f64, Error> {
    let plan = Attention::new(q, k, v).mask(mask).plan(ctx)?;
    let out = Tensor::zeros(ctx, DType::F32, q.shape())?;
    let io = AttentionIo::new(q, k, v, &out);
    Ok(timing::median_seconds(ctx, repeats, |encoder| {
        plan.encode(encoder, &io).expect("the plan was made for these tensors");
    }))
}

/// q, k and v whose heads look where `HEADS` says.
fn operands(ctx: &Context, clip: Clip) -> Result<[Tensor; 3], Error> {
    let mut rng = rand::rngs::StdRng::seed_from_u64(3);
    let len = clip.len();
    let frequencies: Vec<f32> = StandardNormal.sample_iter(&mut rng).take(DIM / 2).collect();
    let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, heads) in HEADS {
        for _ in 0..heads {
            let mut random = |n: usize| -> Vec<f32> { StandardNormal.sample_iter(&mut rng).take(n).collect() };
            let volume = if kind == Kind::Silent { 0.05 } else { 2f32.sqrt() };
            v.extend(random(len * DIM).into_iter().map(|x| x * volume));
            let content = random(len * DIM);
            let mut partner: Vec<usize> = (0..len).collect();
            partner.shuffle(&mut rng);
            let row = |token: usize| content[token * DIM..][..DIM].to_vec();
            for (token, &other) in partner.iter().enumerate() {
                let (spot, place) = ((token % clip.spots) as f32, token as f32);
                let [a, b] = match kind {
                    // Scores of sqrt(DIM) * 1.6 at the partner, 0 +- 1.6 elsewhere.
                    Kind::Content => [row(other), row(token)].map(|x| x.into_iter().map(|x| x * 1.3).collect()),
                    Kind::Silent => [row(other), row(token)],
                    Kind::Near => [waves(place, 4.0, &frequencies), waves(place, 4.0, &frequencies)],
                    Kind::SameSpot => [waves(spot, 0.3, &frequencies), waves(spot, 0.3, &frequencies)],
                    Kind::FirstFrame => {
                        let seen = token < clip.spots / 16;
                        [vec![1.0; DIM], vec![if seen { 1.5 } else { 0.0 }; DIM]]
                    }
                };
                q.extend(a);
                k.extend(b);
            }
        }
    }
    let heads = HEADS.iter().map(|(_, heads)| heads).sum();
    let upload = |x: &[f32]| Tensor::from_slice(ctx, [1, heads, len, DIM], x);
    Ok([upload(&q)?, upload(&k)?, upload(&v)?])
}

/// Sines and cosines whose products fall off with distance over `reach`: the score at distance 0 is 16. Frequencies drawn
/// from a bell make the fall a bell; evenly spaced ones would rise again further out.
fn waves(place: f32, reach: f32, frequencies: &[f32]) -> Vec<f32> {
    let wave = |frequency: &f32| {
        let phase = place * frequency / reach;
        [phase.sin() * 2.0, phase.cos() * 2.0]
    };
    frequencies.iter().flat_map(wave).collect()
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Content => "content",
            Kind::Silent => "nothing",
            Kind::Near => "near",
            Kind::SameSpot => "same spot",
            Kind::FirstFrame => "first frame",
        }
    }
}
