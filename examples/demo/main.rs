//! Attention over the queries, keys and values of a real language model, on whatever GPU is there: checked against the
//! f64 oracle, timed, and drawn.
//!
//!     cargo run --release --example demo -- --out attention.png

mod canvas;
mod input;
mod maps;
mod masks;
mod picture;
#[path = "../bench/timing.rs"]
mod timing;

use std::path::{Path, PathBuf};

use clap::Parser;
use wgpu_attention::Context;

use input::Input;
use maps::Map;
use masks::{Named, Outcome, Uploaded};
use picture::Picture;

/// Tokens drawn: the first sentence of the text, which is a good size for a screen.
const SHOWN: usize = 35;
/// Heads drawn.
const HEADS: usize = 3;

/// See the README beside it.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/minilm-layer3.safetensors");

#[derive(Parser)]
#[command(about = "Attention over a real model's tensors on your GPU: checked, timed and drawn.")]
struct Args {
    /// Where the picture of attention maps is written.
    #[arg(long, value_name = "FILE.png", default_value = "attention.png")]
    out: PathBuf,
}

fn main() {
    env_logger::init();
    if let Err(e) = run(&Args::parse()) {
        eprintln!("demo: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), String> {
    let input = input::read(Path::new(DATA))?;
    let ctx = pollster::block_on(Context::request()).map_err(|e| e.to_string())?;
    let info = ctx.device().adapter_info();
    println!("adapter  {} ({:?})", info.name, info.device_type);
    println!("driver   {:?}, {} {}", info.backend, info.driver, info.driver_info);
    println!("offers   {}", ctx.capabilities());
    println!("tensors  q, k, v {:?} f32: encoder layer 3 of all-MiniLM-L6-v2 on the Gettysburg Address", input.shape);

    let gpu = Uploaded::new(&ctx, &input).map_err(|e| e.to_string())?;
    let masks = masks::all();
    let mut outcomes = Vec::new();
    for (n, Named { name, mask }) in masks.iter().enumerate() {
        let outcome = masks::run(&ctx, &input, &gpu, mask).map_err(|e| format!("{name}: {e}"))?;
        if n == 0 {
            println!("plan     {}\n", outcome.plan.replace('\n', "\n         "));
            println!("{HEADINGS}");
        }
        print_outcome(name, &outcome);
        outcomes.push(outcome);
    }
    let wrong: Vec<&str> = masks.iter().zip(&outcomes).filter(|(_, o)| !o.ok()).map(|(mask, _)| mask.name).collect();
    if !wrong.is_empty() {
        return Err(format!("the error is larger than allowed: {}", wrong.join(", ")));
    }
    draw(args, &input, &masks, &outcomes, &info.name)
}

const HEADINGS: &str =
    "mask               pairs        time             rate   error of out (allowed)   of lse (allowed)";

fn print_outcome(name: &str, outcome: &Outcome) {
    let [out, lse] = outcome.errors.map(|d| format!("{:.1e} ({:.1e})", d.error, d.allowed));
    let (ms, rate) = (outcome.seconds * 1e3, outcome.flops / outcome.seconds * 1e-9);
    println!("{name:<16} {:>5.1} % {ms:>8.3} ms {rate:>8.1} GFLOP/s {out:>24} {lse:>18}", outcome.share * 100.0);
}

fn draw(args: &Args, input: &Input, masks: &[Named], outcomes: &[Outcome], adapter: &str) -> Result<(), String> {
    let [_, heads, len, _] = input.shape;
    let shown = SHOWN.min(len);
    let map = |n: usize, head| Map::new(input, &masks[n].mask, &outcomes[n].lse, head, shown);
    let dense: Vec<Map> = (0..heads).map(|head| map(0, head)).collect();
    let panels = |head| masks.iter().enumerate().map(|(n, mask)| (mask.name, map(n, head))).collect();
    let heads: Vec<Vec<(&str, Map)>> = maps::contrasting_heads(&dense, HEADS).into_iter().map(panels).collect();
    let sum_error = heads.iter().flatten().map(|(_, map)| map.sum_error()).fold(0.0, f64::max);
    let picture = Picture {
        source: "all-MiniLM-L6-v2, encoder layer 3, reading the Gettysburg Address".into(),
        notes: [
            format!(
                "Rows are queries, columns keys: the first {shown} of {len} tokens; dense and windowed rows go on to \
                 the right. Computed by wgpu-attention on {adapter}."
            ),
            "Weights are exp(scale q·k − lse), with the lse that the GPU returned. Beside each title: how far away a \
             query looks, and how evenly it spreads its weight (entropy), on average."
                .into(),
        ],
        tokens: &input.tokens[..shown],
        heads,
    };
    picture.save(&args.out)?;
    let path = std::path::absolute(&args.out).unwrap_or_else(|_| args.out.clone());
    println!("\nrows of weights recomputed from the GPU's lse sum to 1 within {sum_error:.1e}");
    println!("picture  {}", path.display());
    Ok(())
}
