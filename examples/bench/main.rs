//! Measures the cases of `benches/cases.toml` on whatever GPU is there, each checked against the f64 oracle first.
//!
//!     cargo run --release --example bench -- --case dense_f32_b1_h8_n1024_d64 --csv -

mod cases;
mod ceilings;
mod host;
mod permute;
mod timing;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Parser;
use half::f16;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::reference::{Rules, Sizes, check, softmax_attention};
use wgpu_attention::{AttentionIo, Capabilities, Context, DType, Element, Error, Input, Plan, Products, Tensor, Tile};

use cases::{Case, Wgsl};
use ceilings::Ceilings;

#[derive(Parser)]
#[command(about = "Times attention against the device's own ceilings, after checking it against an f64 oracle.")]
struct Args {
    /// Cases to run, by name; all that suit the device unless given.
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
    /// Tiles to try instead of the library's choice, each BLOCK_Q:BLOCK_KV:LANES:THREADS:SLICE_QK:SLICE_V:Q_RESIDENT:PRODUCTS
    /// (0 for staged, the subgroup size to broadcast within, s and the threads that stream a key together as in s8, `matrices`
    /// for matrix units, `matrices-memory` for those by way of workgroup memory).
    #[arg(long, value_delimiter = ',')]
    tile: Vec<String>,
    /// Parts to split the keys into, instead of the library's choice; each is tried with each tile.
    #[arg(long, value_delimiter = ',')]
    splits: Vec<usize>,
    /// Measures what the host spends instead: the first plan, split into the library's part, wgpu's and the driver's; the
    /// first with a kept pipeline cache; plans of a kernel that is there; recording. Drivers keep a cache of their own on
    /// disk: for the cost of a first use, turn it off (NVIDIA: __GL_SHADER_DISK_CACHE=0; Mesa: MESA_SHADER_CACHE_DISABLE=true).
    #[arg(long)]
    host: bool,
    /// Prints each plan.
    #[arg(long)]
    plan: bool,
}

const CSV_HEADER: &str = "case,device,driver,dtype,batch,heads,heads_kv,len_q,len_kv,head_dim,v_dim,mask,path,ms,tflops,\
                          gbs,of_fma,of_copy,rel_err,tile_density,of_dense";

fn main() {
    env_logger::init();
    if let Err(e) = run(&Args::parse()) {
        eprintln!("bench: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), String> {
    let ctx = pollster::block_on(Context::request()).map_err(|e| e.to_string())?;
    let info = ctx.device().adapter_info();
    let mut cases = cases::read(args.cases.as_deref())?;
    for name in &args.case {
        if cases.iter().all(|case| case.name != *name) {
            return Err(format!("--case: {name} is not in the case table"));
        }
    }
    cases.retain(|case| {
        let wanted =
            if args.case.is_empty() { case.cpu || !ctx.capabilities().cpu } else { args.case.contains(&case.name) };
        wanted && (case.dtype != DType::F16 || ctx.capabilities().f16)
    });
    let tiles =
        args.tile.iter().map(|text| parse_tile(text, ctx.capabilities()).map(Some)).collect::<Result<Vec<_>, _>>()?;
    let tiles = if tiles.is_empty() { vec![None] } else { tiles };
    let splits: Vec<Option<usize>> =
        if args.splits.is_empty() { vec![None] } else { args.splits.iter().map(|&n| Some(n)).collect() };
    let ways: Vec<_> = tiles.iter().flat_map(|&tile| splits.iter().map(move |&splits| (tile, splits))).collect();

    eprintln!("{} ({:?}, {} {})", info.name, info.backend, info.driver, info.driver_info);
    if args.host {
        return write(args, &host::measure(&cases, &tiles, !args.case.is_empty())?);
    }
    let ceilings = ceilings::measure(&ctx).map_err(|e| e.to_string())?;
    eprintln!("ceilings: copy {:.0} GB/s, multiply-add {:.2} TFLOP/s", ceilings.copy_gbs, ceilings.fma_tflops);
    let bar = ProgressBar::new((cases.len() * ways.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let mut rows = vec![CSV_HEADER.to_string()];
    let mut seconds = HashMap::new();
    for case in &cases {
        bar.set_message(case.name.clone());
        let data = Data::new(&ctx, case).map_err(|e| format!("{}: {e}", case.name))?;
        for (tile, splits) in &ways {
            let permutes = case.mask_name.starts_with("permute");
            let measured = if permutes {
                permute::measure(&ctx, case, &data, args.repeats)
            } else {
                measure(&ctx, case, &data, (*tile, *splits), args)
            };
            match measured {
                Ok(mut result) => {
                    result.of_dense = case.against.as_ref().and_then(|name| Some(result.seconds / seconds.get(name)?));
                    seconds.insert(case.name.clone(), result.seconds);
                    bar.suspend(|| eprintln!("{}", result.line(case, tile, &ceilings)));
                    rows.push(result.csv(case, &info, &ceilings));
                    // As soon as it is there: a run that is cut short has measured something.
                    if args.csv.as_ref().is_some_and(|path| path.as_os_str() != "-") {
                        write(args, &rows)?;
                    }
                }
                // A tile under trial may not fit; a case of the table must.
                Err(e) if tile.is_some() || splits.is_some() => {
                    bar.suspend(|| eprintln!("{} {tile:?} {splits:?}: {e}", case.name));
                }
                Err(e) => return Err(format!("{}: {e}", case.name)),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    write(args, &rows)
}

/// Rows to the file that was asked for.
fn write(args: &Args, rows: &[String]) -> Result<(), String> {
    let text = rows.join("\n") + "\n";
    match &args.csv {
        Some(path) if path.as_os_str() == "-" => print!("{text}"),
        Some(path) => std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?,
        None => {}
    }
    Ok(())
}

fn parse_tile(text: &str, capabilities: &Capabilities) -> Result<Tile, String> {
    let wrong = || format!("--tile: {text:?} must be seven numbers and a kind of products, joined by colons");
    let number = |n: &str| n.parse::<u32>().map_err(|_| wrong());
    let (numbers, products) = text.rsplit_once(':').ok_or_else(wrong)?;
    let none = || format!("--tile: {text:?} needs matrix units, which the device does not have");
    let products = match products {
        "0" => Products::Staged,
        "matrices" => Products::Matrices(capabilities.matrices.ok_or_else(none)?),
        "matrices-memory" => {
            let lowered = capabilities.clone().without_matrix_registers();
            Products::Matrices(lowered.matrices.ok_or_else(none)?)
        }
        _ => match products.strip_prefix('s') {
            Some(share) => Products::Stream(number(share)?),
            None => Products::Broadcast(number(products)?),
        },
    };
    let numbers = numbers.split(':').map(number).collect::<Result<Vec<u32>, _>>()?;
    let [block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident] = numbers[..] else { return Err(wrong()) };
    Ok(Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident: q_resident != 0, products })
}

/// Random operands of a case, on the device and, rounded as there, on the host.
struct Data {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    host: [Vec<f32>; 3],
}

impl Data {
    fn new(ctx: &Context, case: &Case) -> Result<Data, Error> {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let Case { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim, dtype, .. } = *case;
        let shapes =
            [[batch, heads, len_q, head_dim], [batch, heads_kv, len_kv, head_dim], [batch, heads_kv, len_kv, v_dim]];
        let mut upload = |shape: [usize; 4]| -> Result<(Tensor, Vec<f32>), Error> {
            let values: Vec<f32> = StandardNormal.sample_iter(&mut rng).take(shape.iter().product()).collect();
            if dtype == DType::F32 {
                return Ok((Tensor::from_slice(ctx, shape, &values)?, values));
            }
            let rounded: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
            Ok((Tensor::from_slice(ctx, shape, &rounded)?, rounded.iter().map(|x| x.to_f32()).collect()))
        };
        let (q, q_host) = upload(shapes[0])?;
        let (k, k_host) = upload(shapes[1])?;
        let (v, v_host) = upload(shapes[2])?;
        let out = Tensor::zeros(ctx, dtype, [batch, heads, len_q, v_dim])?;
        Ok(Data { q, k, v, out, host: [q_host, k_host, v_host] })
    }
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

fn measure(
    ctx: &Context,
    case: &Case,
    data: &Data,
    (tile, splits): (Option<Tile>, Option<usize>),
    args: &Args,
) -> Result<Measured, String> {
    let ids = Tensor::zeros(ctx, DType::U32, [1, 1, 1, case.len_kv]).map_err(|e| e.to_string())?;
    let mut description = case.describe([&data.q, &data.k, &data.v].map(Input::from), Input::from(&ids));
    if let Some(tile) = tile {
        description = description.tile(tile);
    }
    if let Some(splits) = splits {
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
    let seconds = timing::median_seconds(ctx, args.repeats, |encoder| {
        plan.encode(encoder, &io).expect("the plan was made for these tensors");
    });
    let tile_density = case
        .against
        .as_ref()
        .and(plan.tile())
        .map(|tile| case.tile_density([tile.block_q as usize, tile.block_kv as usize]));
    let (splits, path) = (plan.splits(), plan.stages().join(" + "));
    Ok(Measured { seconds, tile_density, of_dense: None, rel_err, splits, path })
}

/// Runs once and compares some rows of the first and the last head with the f64 oracle. A kernel that errs more than
/// twice as much as the plain formula, plus rounding, is not worth timing.
fn verify(ctx: &Context, case: &Case, data: &Data, plan: &Plan, io: &AttentionIo<'_>) -> Result<f64, String> {
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, io).map_err(|e| e.to_string())?;
    ctx.queue().submit([encoder.finish()]);
    let step = (case.len_q / 24).max(1);
    let rows: Vec<usize> = (0..case.len_q).step_by(step).chain([case.len_q - 1]).collect();
    let mut worst: f64 = 0.0;
    for (b, h) in [(0, 0), (case.batch - 1, case.heads - 1)] {
        let got = read_head(ctx, case, data, b, h)?;
        let exact = oracle::<f64>(case, data, b, h, &rows);
        let plain = oracle::<f32>(case, data, b, h, &rows);
        let got: Vec<f64> =
            rows.iter().flat_map(|row| got[row * case.v_dim..][..case.v_dim].iter().map(|&x| f64::from(x))).collect();
        let error = check(&got, &exact, &plain, case.dtype)
            .map_err(|e| format!("head {h} of batch {b} is wrong ({e}): not timed"))?;
        worst = worst.max(error / exact.iter().fold(f64::MIN_POSITIVE, |m, x| m.max(x.abs())));
    }
    Ok(worst)
}

fn read_head(ctx: &Context, case: &Case, data: &Data, b: usize, h: usize) -> Result<Vec<f32>, String> {
    let head = data.out.narrow(0, b, 1).and_then(|x| x.narrow(1, h, 1)).map_err(|e| e.to_string())?;
    fn read<T: Element>(ctx: &Context, head: &Tensor) -> Result<Vec<T>, String> {
        pollster::block_on(head.read(ctx)).map_err(|e| e.to_string())
    }
    if case.dtype == DType::F32 {
        return read(ctx, &head);
    }
    Ok(read::<f16>(ctx, &head)?.iter().map(|x| x.to_f32()).collect())
}

/// Some rows of one head by the reference, in f64 or f32.
fn oracle<T: wgpu_attention::reference::Real>(
    case: &Case,
    data: &Data,
    b: usize,
    h: usize,
    rows: &[usize],
) -> Vec<f64> {
    let kv = b * case.heads_kv + h / (case.heads / case.heads_kv);
    let cast = |values: &[f32]| values.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
    let q: Vec<T> = rows
        .iter()
        .flat_map(|row| {
            let first = ((b * case.heads + h) * case.len_q + row) * case.head_dim;
            cast(&data.host[0][first..first + case.head_dim])
        })
        .collect();
    let k = cast(&data.host[1][kv * case.len_kv * case.head_dim..][..case.len_kv * case.head_dim]);
    let v = cast(&data.host[2][kv * case.len_kv * case.v_dim..][..case.len_kv * case.v_dim]);
    let sizes = Sizes {
        batch: 1,
        heads: 1,
        heads_kv: 1,
        len_q: rows.len(),
        len_kv: case.len_kv,
        head_dim: case.head_dim,
        v_dim: case.v_dim,
    };
    let scale = T::of(1.0 / (case.head_dim as f64).sqrt());
    let host = case.mask.host([1, 1, case.len_q, case.len_kv]).expect("masks of the table are known on the host");
    let mask = |_: usize, _: usize, i: usize, j: usize| host.allows(0, 0, rows[i], j);
    let scale = |_| scale;
    let rules = Rules { mask: &mask, ..Rules::dense(&scale) };
    softmax_attention(sizes, &q, &k, &v, rules).0.into_iter().map(T::to_f64).collect()
}

impl Measured {
    fn tflops(&self, case: &Case) -> f64 {
        case.flops() / self.seconds * 1e-12
    }

    fn line(&self, case: &Case, tile: &Option<Tile>, ceilings: &Ceilings) -> String {
        let tile = tile.map_or(String::new(), |t| {
            let Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident, products } = t;
            format!(
                "  {block_q}:{block_kv}:{lanes}:{threads}:{slice_qk}:{slice_v}:{} {products:?}",
                u32::from(q_resident)
            )
        });
        let splits = if self.splits > 1 { format!(", {} parts", self.splits) } else { String::new() };
        let dense = self.of_dense.zip(self.tile_density).map_or(String::new(), |(of_dense, density)| {
            format!(", {of_dense:.4} of dense, tiles {density:.4}, {:.3} of that", of_dense / density)
        });
        format!(
            "{:<36} {:>9.3} ms {:>8.3} TFLOP/s {:>4.0} % of fma, {:>5.0} GB/s, error {:.1e}{tile}{splits}{dense}",
            case.name,
            self.seconds * 1e3,
            self.tflops(case),
            100.0 * self.tflops(case) / ceilings.fma_tflops,
            case.bytes() / self.seconds * 1e-9,
            self.rel_err
        )
    }

    fn csv(&self, case: &Case, info: &wgpu::AdapterInfo, ceilings: &Ceilings) -> String {
        let (tflops, gbs) = (self.tflops(case), case.bytes() / self.seconds * 1e-9);
        let text = |s: &str| s.replace(',', ";");
        let Case { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim, dtype, .. } = case;
        format!(
            "{},{},{},{dtype},{batch},{heads},{heads_kv},{len_q},{len_kv},{head_dim},{v_dim},{},{},{:.4},{tflops:.4},\
             {gbs:.1},{:.4},{:.4},{:.2e},{},{}",
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
            optional(self.of_dense)
        )
    }
}

fn optional(number: Option<f64>) -> String {
    number.map_or(String::new(), |number| format!("{number:.5}"))
}
