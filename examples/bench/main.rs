//! Measures the cases of `benches/cases.toml` on whatever GPU is there, each checked against the f64 oracle first.
//!
//!     cargo run --release --example bench -- --case dense_f32_b1_h8_n1024_d64 --csv -

mod against;
#[path = "../demo/canvas.rs"]
mod canvas;
mod cases;
mod ceilings;
mod chart;
mod data;
mod family;
mod host;
mod linear;
mod permute;
mod tile_text;
mod timing;
mod verify;
mod ways;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::{AttentionIo, Context, DType, Input, Tensor};

use against::Comparison;
use cases::{Case, Wgsl};
use ceilings::Ceilings;
use data::Data;
use verify::verify;
use ways::{Way, Ways};

#[derive(Parser)]
#[command(about = "Times attention against the device's own ceilings, after checking it against an f64 oracle.")]
struct Args {
    /// Cases to run, by name, in this order; all that suit the device unless given.
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// Writes one row a case to FILE; - is standard output.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// A case table of your own instead of benches/cases.toml.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Timed repetitions; the median counts.
    #[arg(long, default_value_t = 11)]
    repeats: usize,
    /// Calls between two time stamps, one behind the other in one pass, whose mean counts. One has what a pass and stamps cost in it;
    /// several tell what a call adds among others, as in a model.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Tiles to try instead of the library's choice, each BLOCK_Q:BLOCK_KV:LANES:THREADS:SLICE_QK:SLICE_V:Q_RESIDENT:PRODUCTS
    /// (0 for staged, the subgroup size to broadcast within, s and the threads that stream a key together as in s8, `matrices`
    /// for matrix units, `matrices-memory` for those by way of workgroup memory), then /V_PARTS where columns of v go in parts.
    #[arg(long, value_delimiter = ',')]
    tile: Vec<String>,
    /// Parts to split the keys into, instead of the library's choice; each is tried with each tile.
    #[arg(long, value_delimiter = ',')]
    splits: Vec<usize>,
    /// Chunks to try instead of the library's choice, of linear attention.
    #[arg(long, value_delimiter = ',')]
    chunk: Vec<usize>,
    /// Measures what the host spends instead: the first plan, split into the library's part, wgpu's and the driver's; the
    /// first with a kept pipeline cache; plans of a kernel that is there; recording. Drivers keep a cache of their own on
    /// disk: for the cost of a first use, turn it off (NVIDIA: __GL_SHADER_DISK_CACHE=0; Mesa: MESA_SHADER_CACHE_DISABLE=true).
    #[arg(long)]
    host: bool,
    /// Prints each plan.
    #[arg(long)]
    plan: bool,
    /// CSV files of the same form, by benches/peers or by an earlier run, to compare each case with.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    against: Vec<PathBuf>,
    /// A CSV file of an earlier run of this program, whose times are compared and drawn instead of measuring; needs no device.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csv", "host", "tile", "splits", "chunk", "plan", "calls", "repeats"])]
    recorded: Option<PathBuf>,
    /// Where the Markdown table of that comparison goes; standard output unless given.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Draws TFLOP/s by case, with those compared with, as bars.
    #[arg(long, value_name = "FILE.png")]
    plot: Option<PathBuf>,
}

impl Args {
    /// Seconds of a call that `record` records.
    fn seconds_of_call(&self, ctx: &Context, mut record: impl FnMut(&mut wgpu::ComputePass<'_>)) -> f64 {
        let all = timing::median_seconds(ctx, self.repeats, |encoder| {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            (0..self.calls).for_each(|_| record(&mut pass));
        });
        all / f64::from(self.calls)
    }
}

const CSV_HEADER: &str = "case,device,driver,dtype,batch,heads,heads_kv,len_q,len_kv,head_dim,v_dim,mask,path,ms,tflops,\
                          gbs,of_fma,of_copy,rel_err,tile_density,of_dense,floor_ms,of_floor,calls";

fn main() {
    env_logger::init();
    if let Err(e) = run(&Args::parse()) {
        eprintln!("bench: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), String> {
    let mut cases = cases::read(args.cases.as_deref())?;
    for name in &args.case {
        if cases.iter().all(|case| case.name != *name) {
            return Err(format!("--case: {name} is not in the case table"));
        }
    }
    let mut comparison = Comparison::new(against::read(&args.against, &cases)?);
    if let Some(file) = &args.recorded {
        if args.against.is_empty() && args.table.is_none() && args.plot.is_none() {
            return Err("--recorded: nothing is asked of it; give --against, --table or --plot as well".into());
        }
        let wanted = |case: &&Case| args.case.is_empty() || args.case.contains(&case.name);
        let device = comparison.add_recorded(file, &cases, wanted)?;
        return report(args, &[], &comparison, &device);
    }
    let ctx = pollster::block_on(Context::request()).map_err(|e| e.to_string())?;
    let info = ctx.device().adapter_info();
    cases.retain(|case| {
        let wanted =
            if args.case.is_empty() { case.cpu || !ctx.capabilities().cpu } else { args.case.contains(&case.name) };
        wanted && (case.dtype != DType::F16 || ctx.capabilities().f16)
    });
    // In the order asked for: a run that is cut short has done what matters.
    cases.sort_by_key(|case| args.case.iter().position(|name| *name == case.name));
    let ways = Ways::new(args, ctx.capabilities())?;

    eprintln!("{} ({:?}, {} {})", info.name, info.backend, info.driver, info.driver_info);
    if args.host {
        let rows = host::measure(&cases, &ways.tiles(), !args.case.is_empty())?;
        return report(args, &rows, &comparison, &info.name);
    }
    let ceilings = ceilings::measure(&ctx).map_err(|e| e.to_string())?;
    eprintln!("ceilings: {ceilings}");
    let bar = ProgressBar::new(cases.iter().map(|case| ways.of(case).len() as u64).sum());
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let mut rows = vec![CSV_HEADER.to_string()];
    let (mut seconds, mut failed) = (HashMap::new(), Vec::new());
    for case in &cases {
        bar.set_message(case.name.clone());
        let data = Data::new(&ctx, case).map_err(|e| format!("{}: {e}", case.name))?;
        for way in ways.of(case) {
            let measured = match case.linear {
                Some(family) => linear::measure(&ctx, case, family, &data, way, args),
                None if case.mask_name.starts_with("permute") => permute::measure(&ctx, case, &data, args),
                None => measure(&ctx, case, &data, way, args),
            };
            match measured {
                Ok(mut result) => {
                    result.of_dense = case.against.as_ref().and_then(|name| Some(result.seconds / seconds.get(name)?));
                    seconds.insert(case.name.clone(), result.seconds);
                    bar.suspend(|| eprintln!("{}", result.line(case, way, &ceilings)));
                    let ratios = comparison.add(case, result.seconds);
                    bar.suspend(|| ratios.iter().for_each(|ratio| eprintln!("    {ratio}")));
                    rows.push(result.csv(case, &info, &ceilings, args.calls));
                    // As soon as it is there: a run that is cut short has measured something.
                    if let Some(path) = args.csv.as_ref().filter(|path| path.as_os_str() != "-") {
                        write(path, &(rows.join("\n") + "\n"))?;
                    }
                }
                // A tile under trial may not fit; a case of the table must, but does not stop the others.
                Err(e) if way.is_trial() => bar.suspend(|| eprintln!("{} {way:?}: {e}", case.name)),
                Err(e) => {
                    bar.suspend(|| eprintln!("{}: {e}", case.name));
                    failed.push(case.name.as_str());
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    report(args, &rows, &comparison, &info.name)?;
    if failed.is_empty() { Ok(()) } else { Err(format!("not timed: {}", failed.join(", "))) }
}

/// What was asked for: the rows, the table, the picture.
fn report(args: &Args, rows: &[String], comparison: &Comparison, device: &str) -> Result<(), String> {
    let text = rows.join("\n") + "\n";
    match &args.csv {
        Some(path) if path.as_os_str() == "-" => print!("{text}"),
        Some(path) => write(path, &text)?,
        None => {}
    }
    match &args.table {
        Some(path) => write(path, &comparison.table())?,
        None if args.against.is_empty() => {}
        None => print!("{}", comparison.table()),
    }
    args.plot.as_ref().map_or(Ok(()), |path| chart::draw(comparison, device, path))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

struct Measured {
    seconds: f64,
    /// Share of tiles visited, where the case is compared with a dense one.
    tile_density: Option<f64>,
    /// Time over that of the dense case.
    of_dense: Option<f64>,
    rel_err: f64,
    splits: usize,
    path: String,
}

fn measure(ctx: &Context, case: &Case, data: &Data, way: &Way, args: &Args) -> Result<Measured, String> {
    let ids = Tensor::zeros(ctx, DType::U32, [1, 1, 1, case.len_kv]).map_err(|e| e.to_string())?;
    let mut description = case.describe([&data.q, &data.k, &data.v].map(Input::from), Input::from(&ids));
    if let Some(tile) = way.tile {
        description = description.tile(tile);
    }
    if let Some(splits) = way.splits {
        description = description.splits(splits);
    }
    let plan = description.plan(ctx).map_err(|e| e.to_string())?;
    if args.plan {
        eprintln!("{plan}");
    }
    let mut io = AttentionIo::new(&data.q, &data.k, &data.v, &data.out);
    if case.wgsl == Some(Wgsl::Classify) {
        io = io.data("ids", &ids);
    }
    let rel_err = verify(ctx, case, data, &plan, &io)?;
    let seconds = args.seconds_of_call(ctx, |pass| {
        plan.encode_in(pass, &io).expect("the plan was made for these tensors");
    });
    let tile_density = case
        .against
        .as_ref()
        .and(plan.tile())
        .map(|tile| case.tile_density([tile.block_q as usize, tile.block_kv as usize]));
    let (splits, path) = (plan.splits(), plan.stages().join(" + "));
    Ok(Measured { seconds, tile_density, of_dense: None, rel_err, splits, path })
}

impl Measured {
    fn tflops(&self, case: &Case) -> f64 {
        case.flops() / self.seconds * 1e-12
    }

    /// The least time that the case's arithmetic and its bytes allow, and this one over it.
    fn floor(&self, case: &Case, ceilings: &Ceilings) -> (f64, f64) {
        let floor = ceilings.floor(case);
        (floor, self.seconds / floor)
    }

    fn line(&self, case: &Case, way: &Way, ceilings: &Ceilings) -> String {
        let splits = if self.splits > 1 { format!(", {} parts", self.splits) } else { String::new() };
        let dense = self.of_dense.zip(case.against.as_ref()).map_or(String::new(), |(of_dense, name)| {
            let tiles = self
                .tile_density
                .map_or(String::new(), |density| format!(", tiles {density:.4}, {:.3} of that", of_dense / density));
            format!(", {of_dense:.4} of {name}{tiles}")
        });
        let (floor, of_floor) = self.floor(case, ceilings);
        format!(
            "{:<36} {:>9.3} ms {:>8.3} TFLOP/s {:>4.0} % of fma, {:>5.0} GB/s, {of_floor:.1} of a floor of {:.3} ms, \
             error {:.1e}{way}{splits}{dense}",
            case.name,
            self.seconds * 1e3,
            self.tflops(case),
            100.0 * self.tflops(case) / ceilings.fma_tflops,
            case.bytes() / self.seconds * 1e-9,
            floor * 1e3,
            self.rel_err
        )
    }

    fn csv(&self, case: &Case, info: &wgpu::AdapterInfo, ceilings: &Ceilings, calls: u32) -> String {
        let (tflops, gbs) = (self.tflops(case), case.bytes() / self.seconds * 1e-9);
        let (floor, of_floor) = self.floor(case, ceilings);
        let text = |s: &str| s.replace(',', ";");
        let Case { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim, dtype, .. } = case;
        format!(
            "{},{},{},{dtype},{batch},{heads},{heads_kv},{len_q},{len_kv},{head_dim},{v_dim},{},{},{:.4},{tflops:.4},\
             {gbs:.1},{:.4},{:.4},{:.2e},{},{},{:.4},{of_floor:.2},{calls}",
            case.name,
            text(&info.name),
            text(&format!("{} {}", info.driver, info.driver_info)),
            case.mask_name,
            text(&self.path),
            self.seconds * 1e3,
            tflops / ceilings.fma_tflops,
            gbs / ceilings.copy_gbs,
            self.rel_err,
            optional(self.tile_density),
            optional(self.of_dense),
            floor * 1e3
        )
    }
}

fn optional(number: Option<f64>) -> String {
    number.map_or(String::new(), |number| format!("{number:.5}"))
}
