//! A stream of tokens through one layer of a gated delta rule, piece by piece: the state is all that is kept, so memory stays as it is
//! however long the stream, and a token costs what the first did.
//!
//!     cargo run --release --example linear_stream -- [--tokens 262144] [--piece 1024]
//!
//! First some tokens go through in pieces of odd lengths and at once: both must be as the recurrence in f64 says. Then the stream: the
//! same tensors, plan and state for every piece.

use std::time::{Duration, Instant};

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::reference::{LinearRules, LinearSizes, Real, check, linear_attention};
use wgpu_attention::{Context, DType, Decay, FeatureMap, LinearAttention, LinearIo, Plan, Tensor};

#[derive(Parser)]
#[command(about = "Streams tokens through linear attention: constant memory, the state carried from piece to piece.")]
struct Args {
    /// Tokens of the stream; 1048576 on a GPU and 16384 on a CPU unless given.
    #[arg(long)]
    tokens: Option<usize>,
    /// Tokens that arrive at once.
    #[arg(long, default_value_t = 1024)]
    piece: usize,
}

const HEADS: usize = 8;
const DIM: usize = 64;

/// Lengths of the pieces of the check: a token alone, fewer than a chunk, several chunks and a bit.
const ODD: [usize; 5] = [1, 7, 200, 64, 129];

fn main() {
    if let Err(e) = run(&Args::parse()) {
        eprintln!("linear_stream: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), String> {
    let text = |e: wgpu_attention::Error| e.to_string();
    let ctx = pollster::block_on(Context::request()).map_err(text)?;
    if args.piece == 0 {
        return Err("--piece: is 0, but must be at least 1".into());
    }
    let tokens = args.tokens.unwrap_or(if ctx.capabilities().cpu { 16 << 10 } else { 1 << 20 });
    println!("{HEADS} heads of {DIM}, a gated delta rule, on {}", ctx.device().adapter_info().name);
    let checked = verify(&ctx).map_err(|e| format!("the check failed: {e}"))?;
    println!("{checked} tokens in pieces of {ODD:?} and at once: both as the recurrence in f64 says");
    stream(&ctx, tokens, args.piece)
}

/// Random operands of so many tokens, one head after the other: q, k, v, log-decays, beta.
fn operands(rng: &mut StdRng, tokens: usize) -> [Vec<f32>; 5] {
    let mut normal =
        |columns: usize| -> Vec<f32> { StandardNormal.sample_iter(&mut *rng).take(HEADS * tokens * columns).collect() };
    let sigmoid = |x: &f32| 1.0 / (1.0 + (-x).exp());
    let (q, k, v) = (normal(DIM), normal(DIM), normal(DIM));
    let log_decay = normal(1).iter().map(|x| sigmoid(x).ln() / 16.0).collect();
    [q, k, v, log_decay, normal(1).iter().map(sigmoid).collect()]
}

/// The tensors of a piece, and the layer planned for them.
struct Layer {
    x: [Tensor; 5],
    out: Tensor,
    plan: Plan,
}

impl Layer {
    fn new(ctx: &Context, tokens: usize, state: &Tensor) -> wgpu_attention::Result<Layer> {
        let zeros = |columns| Tensor::zeros(ctx, DType::F32, [1, HEADS, tokens, columns]);
        let x = [zeros(DIM)?, zeros(DIM)?, zeros(DIM)?, zeros(1)?, zeros(1)?];
        let [q, k, v, log_decay, beta] = &x;
        let plan = LinearAttention::new(q, k, v)
            .map(FeatureMap::L2Norm)
            .decay(Decay::PerToken(log_decay.into()))
            .delta(beta)
            .scale(1.0 / (DIM as f32).sqrt())
            .state(state)
            .plan(ctx)?;
        let out = zeros(DIM)?;
        Ok(Layer { x, out, plan })
    }

    /// Takes a piece in, and moves the state on.
    fn push(&self, ctx: &Context, operands: &[Vec<f32>; 5], state: &Tensor) -> wgpu_attention::Result<()> {
        for (tensor, values) in self.x.iter().zip(operands) {
            ctx.queue().write_buffer(tensor.buffer(), 0, bytemuck::cast_slice(values));
        }
        let [q, k, v, log_decay, beta] = &self.x;
        let io = LinearIo::new(q, k, v, &self.out).log_decay(log_decay).beta(beta).state(state);
        let mut encoder = ctx.device().create_command_encoder(&Default::default());
        self.plan.encode(&mut encoder, &io)?;
        ctx.queue().submit([encoder.finish()]);
        Ok(())
    }
}

fn new_state(ctx: &Context) -> wgpu_attention::Result<Tensor> {
    Tensor::zeros(ctx, DType::F32, [1, HEADS, DIM, DIM])
}

/// Pieces and the whole against the recurrence; returns how many tokens.
fn verify(ctx: &Context) -> Result<usize, String> {
    let text = |e: wgpu_attention::Error| e.to_string();
    let read = |x: &Tensor| pollster::block_on(x.read::<f32>(ctx)).map_err(text);
    let tokens: usize = ODD.iter().sum();
    let all = operands(&mut StdRng::seed_from_u64(3), tokens);
    let state = new_state(ctx).map_err(text)?;
    let layer = Layer::new(ctx, tokens, &state).map_err(text)?;
    layer.push(ctx, &all, &state).map_err(text)?;
    let whole = [read(&layer.out)?, read(&state)?].concat();

    let state = new_state(ctx).map_err(text)?;
    let mut out = vec![0.0; whole.len() - HEADS * DIM * DIM];
    let mut first = 0;
    for len in ODD {
        let part = |values: &Vec<f32>| -> Vec<f32> {
            let columns = values.len() / (HEADS * tokens);
            values
                .chunks(tokens * columns)
                .flat_map(|head| &head[first * columns..][..len * columns])
                .copied()
                .collect()
        };
        let layer = Layer::new(ctx, len, &state).map_err(text)?;
        layer.push(ctx, &all.each_ref().map(part), &state).map_err(text)?;
        for (head, rows) in read(&layer.out)?.chunks(len * DIM).enumerate() {
            out[(head * tokens + first) * DIM..][..rows.len()].copy_from_slice(rows);
        }
        first += len;
    }
    let pieces = [out, read(&state)?].concat();
    let (exact, plain) = (oracle::<f64>(&all, tokens), oracle::<f32>(&all, tokens));
    for (name, got) in [("at once", whole), ("in pieces", pieces)] {
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        check(&got, &exact, &plain, DType::F32).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(tokens)
}

/// out, then the state after the last token.
fn oracle<T: Real>(operands: &[Vec<f32>; 5], tokens: usize) -> Vec<f64> {
    let [q, k, v, log_decay, beta] =
        operands.each_ref().map(|x| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>());
    let unit = |x: &[T]| -> Vec<T> {
        let row = |row: &[T]| {
            let squares = row.iter().fold(T::of(1e-6), |sum, &x| sum + x * x);
            row.iter().map(|&x| x / squares.sqrt()).collect::<Vec<T>>()
        };
        x.chunks(DIM).flat_map(row).collect()
    };
    let sizes = LinearSizes { batch: 1, heads: HEADS, heads_k: HEADS, len: tokens, steps: 1, dim_k: DIM, dim_v: DIM };
    let decay = |_: usize, h: usize, t: usize, _: usize| log_decay[h * tokens + t];
    let scale = T::of((1.0 / (DIM as f32).sqrt()).into());
    let rules = LinearRules { log_decay: &decay, beta: Some(&beta), ..LinearRules::additive(scale) };
    let result = linear_attention(sizes, &unit(&q), &unit(&k), &v, rules);
    result.out.into_iter().chain(result.state).map(T::to_f64).collect()
}

/// Piece after piece, with a line twice a second.
fn stream(ctx: &Context, tokens: usize, piece: usize) -> Result<(), String> {
    let text = |e: wgpu_attention::Error| e.to_string();
    let state = new_state(ctx).map_err(text)?;
    let layer = Layer::new(ctx, piece, &state).map_err(text)?;
    let bytes = |x: &Tensor| x.layout().len() * x.layout().dtype().size();
    let tensors = layer.x.iter().chain([&layer.out, &state]).map(bytes).sum::<usize>() as u64;
    println!(
        "a piece of {piece} takes {} in tensors and {} in the plan; the state is {}",
        kib(tensors),
        kib(layer.plan.workspace_bytes()),
        kib(bytes(&state) as u64)
    );
    // Drawn beforehand, so that what is measured is the layer: four pieces in turn.
    let mut rng = StdRng::seed_from_u64(5);
    let pieces: [[Vec<f32>; 5]; 4] = std::array::from_fn(|_| operands(&mut rng, piece));
    let (started, mut told, mut told_at) = (Instant::now(), Instant::now(), 0);
    let (mut first_memory, mut done) = (None, 0);
    while done < tokens {
        layer.push(ctx, &pieces[done / piece % pieces.len()], &state).map_err(text)?;
        ctx.device().poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
        done += piece;
        if told.elapsed() >= Duration::from_millis(500) || done >= tokens {
            let memory = ctx.device().generate_allocator_report().map(|report| report.total_allocated_bytes);
            let rate = (done - told_at) as f64 / told.elapsed().as_secs_f64();
            let shown = memory.map_or("unknown".into(), kib);
            println!("{done:>9} tokens  {rate:>10.0} tokens/s  {shown} on the device");
            let first = *first_memory.get_or_insert(memory);
            if memory > first {
                return Err(format!("memory grew from {first:?} to {memory:?} bytes"));
            }
            (told, told_at) = (Instant::now(), done);
        }
    }
    let last: Vec<f32> = pollster::block_on(state.read(ctx)).map_err(text)?;
    if last.iter().any(|x| !x.is_finite()) {
        return Err("the state holds what is no number".into());
    }
    println!("{:.0} tokens/s over all", done as f64 / started.elapsed().as_secs_f64());
    Ok(())
}

fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
