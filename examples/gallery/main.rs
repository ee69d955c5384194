//! Draws a picture of each pattern: the mask, the tiles that a plan visits, and what that is worth against dense attention. And
//! one of time against length, softmax attention beside linear.
//!
//!     cargo run --release --example gallery -- [--out docs/gallery] [--only causal,window] [--len 4096] [--table]

#[path = "../demo/canvas.rs"]
mod canvas;
mod length;
mod measure;
mod patterns;
mod picture;
mod plot;
#[path = "../bench/timing.rs"]
mod timing;

use std::path::PathBuf;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::Context;

#[derive(Parser)]
#[command(about = "One picture a pattern: mask, tile classes, and time against dense attention, checked first.")]
struct Args {
    /// The folder the pictures go to.
    #[arg(long, default_value = "docs/gallery")]
    out: PathBuf,
    /// Patterns to draw, by name, or `length`; all unless given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Tokens of the problem that is timed, 256 times a square; 4096 on a GPU and 1024 on a CPU unless given.
    #[arg(long)]
    len: Option<usize>,
    /// Prints a Markdown table of the patterns and draws nothing.
    #[arg(long)]
    table: bool,
}

/// The picture that is of no pattern.
const LENGTH: &str = "length";

fn main() {
    if let Err(e) = run(&Args::parse()) {
        eprintln!("gallery: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), String> {
    let known = |name: &str| name == LENGTH || patterns::ALL.iter().any(|pattern| pattern.name == name);
    if let Some(unknown) = args.only.iter().find(|name| !known(name)) {
        return Err(format!("--only: {unknown} is no pattern of the gallery"));
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let length = wanted(LENGTH);
    let wanted: Vec<_> = patterns::ALL.iter().filter(|pattern| wanted(pattern.name)).collect();
    if args.table {
        println!("| pattern | call | picture |\n|---|---|---|");
        for pattern in wanted {
            let (call, name) = (pattern.small().call, pattern.name);
            let shown = format!("![{name}]({}/{name}.png)", args.out.display());
            // A bar would end the cell, even within backticks.
            println!("| {name} | `{}` | {shown} |", call.replace('|', "\\|"));
        }
        return Ok(());
    }
    let ctx = pollster::block_on(Context::request()).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(&args.out).map_err(|e| format!("{}: {e}", args.out.display()))?;
    let bar = ProgressBar::new(wanted.len() as u64 + u64::from(length));
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    if length {
        bar.set_message(LENGTH);
        let sentence = length::draw(&ctx, &args.out.join("length.png")).map_err(|e| format!("{LENGTH}: {e}"))?;
        bar.suspend(|| println!("{LENGTH:<18} {sentence}"));
        bar.inc(1);
    }
    let bench = measure::Bench::new(&ctx, args.len)?;
    for pattern in wanted {
        bar.set_message(pattern.name);
        let told = |e: String| format!("{}: {e}", pattern.name);
        let time = bench.against_dense(&ctx, pattern).map_err(told)?;
        let path = args.out.join(format!("{}.png", pattern.name));
        let worth = picture::draw(pattern, &time, &path).map_err(told)?;
        bar.suspend(|| println!("{:<18} {worth}, {}", pattern.name, time.sentence()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
