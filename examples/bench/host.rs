//! What the host spends: on a first plan, on those that follow, on recording.

use std::time::Instant;

use naga::back::spv;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use wgpu_attention::{Attention, AttentionIo, Context, Input, Plan, Tensor, Tile};

use crate::cases::{Case, Wgsl};

const CSV_HEADER: &str = "case,device,driver,first_ms,link_ms,naga_ms,driver_ms,kept_ms,kept_bytes,plan_us,stages,\
                          encode_us,finish_us";

/// Cases unless some are asked for: a kernel of each kind, on problems small enough for any device.
const CASES: [&str; 6] = [
    "dense_f32_b1_h8_n1024_d64",
    "causal_f32_b1_h8_n1024_d64",
    "window_f32_b1_h8_n1024_d64",
    "dense_f16_b1_h8_n1024_d64",
    "blocks020_f32_b1_h8_n1024_d64",
    "natten2d_f32_b1_h8_n1024_d64",
];

/// Repetitions of what takes microseconds.
const REPEATS: usize = 200;

/// Rows of the file, header first; prints each as it comes.
pub fn measure(cases: &[Case], tiles: &[Option<Tile>], asked: bool) -> Result<Vec<String>, String> {
    let mut rows = vec![CSV_HEADER.to_string()];
    for case in cases.iter().filter(|case| asked || CASES.contains(&&*case.name)) {
        if case.linear.is_some() {
            return Err(format!("--host: {} is linear attention, but what the host spends is of softmax", case.name));
        }
        for &tile in tiles {
            let spent = Spent::on(case, tile).map_err(|e| format!("{}: {e}", case.name))?;
            eprintln!("{:<36} {spent}", case.name);
            rows.push(format!("{},{}", case.name, spent.csv()));
        }
    }
    Ok(rows)
}

struct Spent {
    info: wgpu::AdapterInfo,
    /// The first plan, nothing compiled; of it: text and parsing, validation and translation, all else.
    first_ms: f64,
    link_ms: f64,
    naga_ms: f64,
    /// The first plan on a device opened anew, with the pipeline cache kept, and that cache's size.
    kept: Option<(f64, usize)>,
    plan_us: f64,
    stages: usize,
    /// A stage: recording, and wgpu's translation of it when the encoder is finished.
    encode_us: f64,
    finish_us: f64,
}

impl Spent {
    fn on(case: &Case, tile: Option<Tile>) -> Result<Spent, String> {
        let text = |e: wgpu_attention::Error| e.to_string();
        let open = || pollster::block_on(Context::request()).map_err(text);
        let ctx = open()?;
        let tensors = Tensors::new(&ctx, case).map_err(text)?;
        let mut description = tensors.describe(case);
        if let Some(tile) = tile {
            description = description.tile(tile);
        }
        let started = Instant::now();
        let plan = description.plan(&ctx).map_err(text)?;
        let first_ms = milliseconds(started);
        let started = Instant::now();
        let shaders = plan.shaders();
        let link_ms = milliseconds(started);
        let naga_ms = shaders.iter().map(|shader| translated(shader)).sum::<Result<f64, String>>()?;
        let kept = match ctx.pipeline_cache_data() {
            None => None,
            Some(bytes) => {
                // SAFETY: the bytes are those that the line above gave.
                let fresh = unsafe { open()?.with_pipeline_cache(&bytes) }.map_err(text)?;
                let started = Instant::now();
                description.plan(&fresh).map_err(text)?;
                Some((milliseconds(started), bytes.len()))
            }
        };
        let plan_us = planning(&ctx, &description).map_err(text)?;
        let [encode_us, finish_us] = recording(&ctx, &plan, &tensors.io(case)).map_err(text)?;
        let (info, stages) = (ctx.device().adapter_info(), plan.stages().len());
        Ok(Spent { info, first_ms, link_ms, naga_ms, kept, plan_us, stages, encode_us, finish_us })
    }

    /// The compilation itself, buffers, and lists made when planning, their kernels included.
    fn driver_ms(&self) -> f64 {
        self.first_ms - self.link_ms - self.naga_ms
    }

    fn csv(&self) -> String {
        let text = |s: &str| s.replace(',', ";");
        let Spent { info, first_ms, link_ms, naga_ms, kept, plan_us, stages, encode_us, finish_us } = self;
        let kept = kept.map_or(",".into(), |(ms, bytes)| format!("{ms:.3},{bytes}"));
        format!(
            "{},{},{first_ms:.3},{link_ms:.3},{naga_ms:.3},{:.3},{kept},{plan_us:.2},{stages},{encode_us:.2},{finish_us:.2}",
            text(&info.name),
            text(&format!("{} {}", info.driver, info.driver_info)),
            self.driver_ms()
        )
    }
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "first plan {:.1} ms (link {:.1}, naga {:.1}, driver {:.1})",
            self.first_ms,
            self.link_ms,
            self.naga_ms,
            self.driver_ms()
        )?;
        if let Some((ms, bytes)) = self.kept {
            write!(f, ", {ms:.1} with {bytes} bytes kept")?;
        }
        write!(
            f,
            "; plan {:.1} us; a stage of {}: encode {:.1} us, finish {:.1}",
            self.plan_us, self.stages, self.encode_us, self.finish_us
        )
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Milliseconds that wgpu's validation of a text and its translation to SPIR-V take; parsing is the library's.
fn translated(shader: &str) -> Result<f64, String> {
    let module = naga::front::wgsl::parse_str(shader).map_err(|e| e.to_string())?;
    let started = Instant::now();
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module);
    let info = info.map_err(|e| format!("{e:?}"))?;
    spv::write_vec(&module, &info, &spv::Options::default(), None).map_err(|e| e.to_string())?;
    Ok(milliseconds(started))
}

/// Microseconds of a plan whose kernels are there: the median.
fn planning(ctx: &Context, description: &Attention) -> wgpu_attention::Result<f64> {
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let started = Instant::now();
        let plan = description.plan(ctx)?;
        times.push(milliseconds(started) * 1e3);
        drop(plan);
        settle(ctx);
    }
    Ok(median(times))
}

/// Microseconds a stage of recording, and of finishing what was recorded: medians.
fn recording(ctx: &Context, plan: &Plan, io: &AttentionIo<'_>) -> wgpu_attention::Result<[f64; 2]> {
    let (mut encoding, mut finishing) = (Vec::with_capacity(REPEATS), Vec::with_capacity(REPEATS));
    let stages = plan.stages().len().max(1) as f64;
    for _ in 0..REPEATS {
        let mut encoder = ctx.device().create_command_encoder(&Default::default());
        let started = Instant::now();
        plan.encode(&mut encoder, io)?;
        encoding.push(milliseconds(started) * 1e3 / stages);
        let started = Instant::now();
        let commands = encoder.finish();
        finishing.push(milliseconds(started) * 1e3 / stages);
        drop(commands);
        settle(ctx);
    }
    Ok([median(encoding), median(finishing)])
}

/// Lets wgpu release what was dropped, outside of the measurement.
fn settle(ctx: &Context) {
    ctx.queue().submit([]);
    ctx.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device answers");
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Operands of a case, of zeros.
struct Tensors {
    operands: [Tensor; 3],
    out: Tensor,
    ids: Tensor,
}

impl Tensors {
    fn new(ctx: &Context, case: &Case) -> wgpu_attention::Result<Tensors> {
        let Case { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim, dtype, .. } = *case;
        let zeros = |heads, len, dim| Tensor::zeros(ctx, dtype, [batch, heads, len, dim]);
        Ok(Tensors {
            operands: [
                zeros(heads, len_q, head_dim)?,
                zeros(heads_kv, len_kv, head_dim)?,
                zeros(heads_kv, len_kv, v_dim)?,
            ],
            out: zeros(heads, len_q, v_dim)?,
            ids: Tensor::zeros(ctx, wgpu_attention::DType::U32, [1, 1, 1, len_kv])?,
        })
    }

    /// By layouts alone: another device plans it too.
    fn describe(&self, case: &Case) -> Attention {
        let input = |tensor: &Tensor| Input::from(*tensor.layout());
        let [q, k, v] = &self.operands;
        case.describe([input(q), input(k), input(v)], input(&self.ids))
    }

    fn io(&self, case: &Case) -> AttentionIo<'_> {
        let [q, k, v] = &self.operands;
        let io = AttentionIo::new(q, k, v, &self.out);
        if case.wgsl == Some(Wgsl::Classify) { io.data("ids", &self.ids) } else { io }
    }
}
