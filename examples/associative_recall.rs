//! How many pairs does a d_k x d_v memory hold before they disturb one another? Pairs of random unit keys and values are learnt, then
//! each key is asked for its value: by Hebb's rule (linear attention) and by the delta rule.
//!
//!     cargo run --release --example associative_recall -- [--dim 64] [--out associative_recall.png]
//!
//! Hebb's rule adds every pair to the same matrix, so of N pairs N - 1 disturb an answer, each by 1 / d_k of its energy. The delta rule
//! first takes back what the memory says of a key: an answer is disturbed only by pairs that come later, and by little.

#[path = "demo/canvas.rs"]
mod canvas;
#[path = "gallery/plot.rs"]
mod plot;

use std::path::PathBuf;

use clap::Parser;
use plotters::style::RGBColor;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::{AssociativeMemory, Context, Error, MemoryRule, Tensor};

use canvas::{Align, Canvas};
use plot::{Axis, Plot, SMALL, SOFT, TITLE, legend};

#[derive(Parser)]
#[command(about = "Measures how well a memory recalls, by Hebb's rule and by the delta rule, and draws it.")]
struct Args {
    /// Width of keys and values.
    #[arg(long, default_value_t = 64)]
    dim: usize,
    /// Memories that learn side by side; their mean counts.
    #[arg(long, default_value_t = 32)]
    memories: usize,
    /// The picture.
    #[arg(long, default_value = "associative_recall.png")]
    out: PathBuf,
}

const HEBB: RGBColor = RGBColor(0xc2, 0x4d, 0x2c);
const DELTA: RGBColor = RGBColor(0x24, 0x45, 0x7c);

/// Pairs over the width of keys.
const LOADS: [f64; 11] = [0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0];

/// How far the measured interference may lie from the expected one: the mean over all answers has an error far below.
const TOLERANCE: f64 = 0.1;

/// Means over all answers.
#[derive(Clone, Copy)]
struct Recall {
    /// Energy of what disturbs the answer, over that of the value.
    interference: f64,
    /// Cosine of answer and value.
    cosine: f64,
}

fn main() {
    if let Err(e) = run(&Args::parse()) {
        eprintln!("associative_recall: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), String> {
    if args.dim < 16 || args.memories == 0 {
        return Err(format!(
            "--dim and --memories: are {} and {}, but must be at least 16 and 1",
            args.dim, args.memories
        ));
    }
    let ctx = pollster::block_on(Context::request()).map_err(|e| e.to_string())?;
    println!("{} memories of {1} x {1} on {2}", args.memories, args.dim, ctx.device().adapter_info().name);
    println!("{:>6} {:>9} {:>22} {:>22}", "pairs", "expected", "Hebb: energy, cosine", "delta: energy, cosine");
    let mut measured = Vec::new();
    for load in LOADS {
        let pairs = ((load * args.dim as f64).round() as usize).max(2);
        let [hebb, delta] =
            [MemoryRule::Hebb, MemoryRule::Delta].map(|rule| recall(&ctx, rule, args.memories, pairs, args.dim));
        let (hebb, delta) = (hebb.map_err(|e| e.to_string())?, delta.map_err(|e| e.to_string())?);
        let expected = (pairs - 1) as f64 / args.dim as f64;
        println!(
            "{pairs:>6} {expected:>9.3} {:>13.3} {:>8.3} {:>13.3} {:>8.3}",
            hebb.interference, hebb.cosine, delta.interference, delta.cosine
        );
        let answers = pairs * args.memories;
        if answers >= 256 && (hebb.interference / expected - 1.0).abs() > TOLERANCE {
            return Err(format!(
                "{pairs} pairs: interference is {:.3}, but must be {expected:.3}: the kernel is wrong",
                hebb.interference
            ));
        }
        measured.push((pairs, hebb, delta));
    }
    draw(args, &measured, &ctx.device().adapter_info().name)?;
    println!("drawn: {}", args.out.display());
    Ok(())
}

/// Rows of length 1 in random directions.
fn unit_rows(rng: &mut rand::rngs::StdRng, rows: usize, dim: usize) -> Vec<f32> {
    let mut values: Vec<f32> = StandardNormal.sample_iter(rng).take(rows * dim).collect();
    for row in values.chunks_mut(dim) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    values
}

/// Learns pairs, asks for each, and compares.
fn recall(ctx: &Context, rule: MemoryRule, memories: usize, pairs: usize, dim: usize) -> Result<Recall, Error> {
    let mut rng = rand::rngs::StdRng::seed_from_u64(pairs as u64);
    let keys = unit_rows(&mut rng, memories * pairs, dim);
    let values = unit_rows(&mut rng, memories * pairs, dim);
    let shape = [1, memories, pairs, dim];
    let (k, v) = (Tensor::from_slice(ctx, shape, &keys)?, Tensor::from_slice(ctx, shape, &values)?);
    let answers: Vec<f32> = pollster::block_on(AssociativeMemory::new(&k, &v, &k).rule(rule).run(ctx)?.read(ctx))?;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let (mut interference, mut cosine) = (0.0, 0.0);
    for (answer, value) in answers.chunks(dim).zip(values.chunks(dim)) {
        interference += answer.iter().zip(value).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>();
        cosine += dot(answer, value) / dot(answer, answer).sqrt().max(f64::MIN_POSITIVE);
    }
    let count = (memories * pairs) as f64;
    Ok(Recall { interference: interference / count, cosine: cosine / count })
}

fn draw(args: &Args, measured: &[(usize, Recall, Recall)], device: &str) -> Result<(), String> {
    let dim = args.dim as f64;
    let load = |pairs: usize| pairs as f64 / dim;
    let x = || Axis {
        label: "pairs over d_k",
        from: 0.0,
        to: 2.0,
        marks: (0..=4).map(|n| (f64::from(n) / 2.0, format!("{}", f64::from(n) / 2.0))).collect(),
        logarithmic: false,
    };
    let y = |label, to: f64| Axis {
        label,
        from: 0.0,
        to,
        marks: (0..=4).map(|n| (f64::from(n) * to / 4.0, format!("{}", f64::from(n) * to / 4.0))).collect(),
        logarithmic: false,
    };
    let panel = |left, y| Plot { left, top: 132.0, width: 350.0, height: 300.0, x: x(), y };
    let (energy, cosine) =
        (panel(70.0, y("energy of the interference", 2.0)), panel(510.0, y("cosine of the answer", 1.0)));
    let curve = |of: &dyn Fn(&(usize, Recall, Recall)) -> f64| -> Vec<(f64, f64)> {
        measured.iter().map(|point| (load(point.0), of(point))).collect()
    };
    // An answer of energy 1 + (N - 1) / d_k, of which 1 lies along the value.
    let expected = |n: usize| load(n.saturating_sub(1));
    let many = || (1..=2 * args.dim).map(|n| (load(n), expected(n)));
    let mut canvas = Canvas::new(900.0, 500.0)?;
    canvas.paint(|brush| {
        let title = format!("What a {0} x {0} memory recalls", args.dim);
        brush.text(&title, TITLE, (30.0, 36.0), Align::Start)?;
        legend(brush, (30.0, 66.0), &[("Hebb's rule", HEBB), ("delta rule", DELTA)])?;
        let words = "broken: expected of Hebb's rule, (N - 1) / d_k";
        brush.text(words, SMALL, (330.0, 66.0), Align::Start)?;
        let how = format!("{} memories, random keys and values of length 1, {device}", args.memories);
        brush.text(&how, SMALL, (30.0, 92.0), Align::Start)?;
        for plot in [&energy, &cosine] {
            plot.frame(brush)?;
        }
        energy.expected(brush, &many().collect::<Vec<_>>(), SOFT)?;
        let of_energy = |x: f64| 1.0 / (1.0 + x).sqrt();
        cosine.expected(brush, &many().map(|(n, energy)| (n, of_energy(energy))).collect::<Vec<_>>(), SOFT)?;
        energy.curve(brush, &curve(&|point| point.1.interference), HEBB)?;
        energy.curve(brush, &curve(&|point| point.2.interference), DELTA)?;
        cosine.curve(brush, &curve(&|point| point.1.cosine), HEBB)?;
        cosine.curve(brush, &curve(&|point| point.2.cosine), DELTA)
    })?;
    canvas.save(&args.out)
}
