//! Measures tiles on your own card for one case of `benches/cases.toml` or of your own table, and keeps the best as a row that
//! this program and `bench --tile` read again:
//!
//!     cargo run --release --example tune -- --case dense_f32_b4_h16_n4096_d128 --out tiles.toml
//!     cargo run --release --example tune -- --case dense_f32_b4_h16_n4096_d128 --load tiles.toml

mod candidates;
#[allow(dead_code, reason = "some of it is for bench alone")]
#[path = "../bench/cases.rs"]
mod cases;
#[allow(dead_code, reason = "some of it is for bench alone")]
#[path = "../bench/data.rs"]
mod data;
#[allow(dead_code, reason = "some of it is for bench alone")]
#[path = "../bench/family.rs"]
mod family;
mod rows;
#[path = "../bench/tile_text.rs"]
mod tile_text;
#[path = "../bench/timing.rs"]
mod timing;
#[allow(dead_code, reason = "some of it is for bench alone")]
#[path = "../bench/verify.rs"]
mod verify;

use std::path::PathBuf;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::{AttentionIo, Context, DType, Input, Plan, Tensor, Tile};

use cases::{Case, Wgsl};
use data::Data;
use rows::Row;

#[derive(Parser)]
#[command(
    about = "Finds the fastest tile for a case on this device, each checked against an f64 oracle before it is timed."
)]
struct Args {
    /// The case, by name.
    #[arg(long)]
    case: String,
    /// A case table of your own instead of benches/cases.toml.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Adds the best tile to FILE, as a row.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Tries the rows of FILE that are of this shape, instead of searching.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Timed repetitions of each tile; of the fastest ones, in turn with the library's own choice, three times as many.
    #[arg(long, default_value_t = 7)]
    repeats: usize,
}

/// How many of the fastest are measured again.
const FINALISTS: usize = 3;

fn main() {
    env_logger::init();
    if let Err(e) = run(&Args::parse()) {
        eprintln!("tune: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), String> {
    let ctx = pollster::block_on(Context::request()).map_err(|e| e.to_string())?;
    let cases = cases::read(args.cases.as_deref())?;
    let found = cases.iter().find(|case| case.name == args.case);
    let case = found.ok_or_else(|| format!("--case: {} is not in the case table", args.case))?;
    if case.linear.is_some() || case.mask_name.starts_with("permute") {
        return Err(format!("--case: {} is {}, which has no such tiles", case.name, case.mask_name));
    }
    let tiles = match &args.load {
        Some(file) => rows::load(file, case, ctx.capabilities())?,
        None => candidates::candidates(case, ctx.capabilities()),
    };
    let bench = Bench::new(&ctx, case)?;
    let info = ctx.device().adapter_info();
    eprintln!("{} ({:?}, {} {}), {}", info.name, info.backend, info.driver, info.driver_info, case.name);

    let own = bench.candidate(None, 3 * args.repeats)?;
    eprintln!("the library's choice: {}", own.line(case));
    let finalists = search(&bench, &tiles, args.repeats);
    let in_turn = finalists.into_iter().map(|other| (bench.in_turn(&own, &other, 3 * args.repeats), other));
    let (share, best) = in_turn.min_by(|a, b| a.0.total_cmp(&b.0)).ok_or("no tile of these runs here")?;
    // A difference that the next run may turn around is none.
    let (share, tile) = if share < 0.99 { (share, best.tile) } else { (1.0, own.tile) };
    let row = Row::new(case, &info, &tile, own.seconds, share);
    println!("{}", row.rust(&tile));
    println!("{}", row.toml());
    args.out.as_ref().map_or(Ok(()), |file| row.append(file))
}

/// The fastest of those that fit and are right. The others' plans are dropped at once, with the memory that they work in.
fn search(bench: &Bench<'_>, tiles: &[Tile], repeats: usize) -> Vec<Candidate> {
    let bar = ProgressBar::new(tiles.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let mut found = Vec::new();
    for tile in tiles {
        bar.set_message(tile_text::write(tile));
        match bench.candidate(Some(*tile), repeats) {
            Ok(candidate) => {
                bar.suspend(|| eprintln!("{}", candidate.line(bench.case)));
                found.push(candidate);
                found.sort_by(|a: &Candidate, b| a.seconds.total_cmp(&b.seconds));
                found.truncate(FINALISTS);
            }
            Err(e) => bar.suspend(|| eprintln!("{:<36} {e}", tile_text::write(tile))),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    found
}

/// A tile, its plan, and the seconds of a call.
struct Candidate {
    tile: Tile,
    plan: Plan,
    seconds: f64,
}

impl Candidate {
    fn line(&self, case: &Case) -> String {
        let Candidate { tile, seconds, .. } = self;
        let tflops = case.flops() / seconds * 1e-12;
        format!("{:<36} {:>9.3} ms {tflops:>8.2} TFLOP/s", tile_text::write(tile), seconds * 1e3)
    }
}

/// A case and its tensors.
struct Bench<'a> {
    ctx: &'a Context,
    case: &'a Case,
    data: Data,
    ids: Tensor,
}

impl<'a> Bench<'a> {
    fn new(ctx: &'a Context, case: &'a Case) -> Result<Bench<'a>, String> {
        let data = Data::new(ctx, case).map_err(|e| e.to_string())?;
        let ids = Tensor::zeros(ctx, DType::U32, [1, 1, 1, case.len_kv]).map_err(|e| e.to_string())?;
        Ok(Bench { ctx, case, data, ids })
    }

    fn io(&self) -> AttentionIo<'_> {
        let Data { q, k, v, out, .. } = &self.data;
        let io = AttentionIo::new(q, k, v, out);
        if self.case.wgsl == Some(Wgsl::Classify) { io.data("ids", &self.ids) } else { io }
    }

    /// The library's choice unless a tile is given, checked and timed.
    fn candidate(&self, tile: Option<Tile>, repeats: usize) -> Result<Candidate, String> {
        let Data { q, k, v, .. } = &self.data;
        let mut description = self.case.describe([q, k, v].map(Input::from), Input::from(&self.ids));
        if let Some(tile) = tile {
            description = description.tile(tile);
        }
        let plan = description.plan(self.ctx).map_err(|e| e.to_string())?;
        let tile = plan.tile().ok_or("the case computes nothing")?;
        let io = self.io();
        verify::verify(self.ctx, self.case, &self.data, &plan, &io)?;
        let seconds = timing::median_seconds(self.ctx, repeats, |encoder| {
            plan.encode(encoder, &io).expect("the plan was made for these tensors");
        });
        Ok(Candidate { tile, plan, seconds })
    }

    /// The time of another over that of the first, each timed between two of the first: the median. A card's clock follows what it has
    /// just run, so times that are minutes or other kernels apart compare badly: one kernel took 0.67 to 0.75 ms by what ran before it (H100).
    fn in_turn(&self, first: &Candidate, other: &Candidate, repeats: usize) -> f64 {
        let io = self.io();
        let seconds = |candidate: &Candidate| {
            // As many calls at once as keep the device busy.
            let ahead =
                if self.ctx.capabilities().cpu { 0 } else { (timing::BUSY.as_secs_f64() / candidate.seconds) as usize };
            timing::timed(self.ctx, ahead, &mut |encoder: &mut wgpu::CommandEncoder| {
                candidate.plan.encode(encoder, &io).expect("the plan was made for these tensors");
            })
        };
        let mut before = seconds(first);
        let mut shares: Vec<f64> = (0..repeats.max(1))
            .map(|_| {
                let (own, after) = (seconds(other), seconds(first));
                2.0 * own / (std::mem::replace(&mut before, after) + after)
            })
            .collect();
        shares.sort_by(f64::total_cmp);
        shares[shares.len() / 2]
    }
}
