//! Decoding with a KV cache: a prompt at once, then token by token. Keys and values of each new token are appended on the GPU, and its queries
//! read all that is there. One plan a token serves every layer; its kernels are those of the tokens before.
//!
//!     cargo run --release --example kv_cache -- [--prompt 100] [--tokens 200]
//!
//! At the end every row of every layer is compared with causal attention over the whole sequence, in f64.

use std::time::{Duration, Instant};

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::reference::{Real, Rules, Sizes, check, softmax_attention};
use wgpu_attention::{Attention, AttentionIo, Context, DType, Mask, Plan, Tensor};

#[derive(Parser)]
#[command(about = "Decodes with a KV cache, and checks it against causal attention over the whole sequence.")]
struct Args {
    /// Tokens that are there from the beginning.
    #[arg(long, default_value_t = 100)]
    prompt: usize,
    /// Tokens that are decoded one by one.
    #[arg(long, default_value_t = 200)]
    tokens: usize,
}

const LAYERS: usize = 4;
const HEADS: usize = 8;
/// Four query heads read each of them.
const KV_HEADS: usize = 2;
const DIM: usize = 64;

fn main() {
    if let Err(e) = run(&Args::parse()) {
        eprintln!("kv_cache: {e}");
        std::process::exit(1);
    }
}

/// What a layer keeps: queries and results here only so that they can be checked, keys and values as every decoder keeps them.
struct Layer {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
}

impl Layer {
    /// Room for so many tokens. In memory tokens come first, so that what a new one adds lies in one piece; the tensors are views with heads first.
    fn new(ctx: &Context, room: usize) -> wgpu_attention::Result<Layer> {
        let tokens_first = |heads| Tensor::zeros(ctx, DType::F32, [1, room, heads, DIM])?.transpose(1, 2);
        Ok(Layer {
            q: tokens_first(HEADS)?,
            k: tokens_first(KV_HEADS)?,
            v: tokens_first(KV_HEADS)?,
            out: tokens_first(HEADS)?,
        })
    }

    /// Puts in tokens `first..` of a sequence whose q, k and v these are. In a model its projections write here themselves.
    fn append(&self, ctx: &Context, [q, k, v]: [&[f32]; 3], first: usize, n: usize) {
        for (tensor, values, heads) in [(&self.q, q, HEADS), (&self.k, k, KV_HEADS), (&self.v, v, KV_HEADS)] {
            let row = heads * DIM;
            let bytes = bytemuck::cast_slice(&values[first * row..][..n * row]);
            ctx.queue().write_buffer(tensor.buffer(), (first * row * size_of::<f32>()) as u64, bytes);
        }
    }

    /// Queries `first..first + n`, all keys and values up to the last of them, and where the results go.
    fn views(&self, first: usize, n: usize) -> wgpu_attention::Result<[Tensor; 4]> {
        let rows = |x: &Tensor| x.narrow(2, first, n);
        let all = |x: &Tensor| x.narrow(2, 0, first + n);
        Ok([rows(&self.q)?, all(&self.k)?, all(&self.v)?, rows(&self.out)?])
    }
}

/// A plan for tokens `first..first + n` of any layer. Causal masks are aligned at the last query and the last key.
fn plan(ctx: &Context, layer: &Layer, first: usize, n: usize) -> wgpu_attention::Result<Plan> {
    let [q, k, v, out] = layer.views(first, n)?;
    Attention::new(&q, &k, &v).out(&out).mask(Mask::causal()).plan(ctx)
}

/// One plan, recorded for every layer into one pass.
fn step(ctx: &Context, layers: &[Layer], plan: &Plan, first: usize, n: usize) -> wgpu_attention::Result<()> {
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    for layer in layers {
        let [q, k, v, out] = layer.views(first, n)?;
        plan.encode_in(&mut pass, &AttentionIo::new(&q, &k, &v, &out))?;
    }
    drop(pass);
    ctx.queue().submit([encoder.finish()]);
    Ok(())
}

fn run(args: &Args) -> Result<(), String> {
    let text = |e: wgpu_attention::Error| e.to_string();
    let ctx = pollster::block_on(Context::request()).map_err(text)?;
    let room = args.prompt + args.tokens;
    println!(
        "{LAYERS} layers, {HEADS} heads, {KV_HEADS} of them in the cache, on {}",
        ctx.device().adapter_info().name
    );
    let mut rng = StdRng::seed_from_u64(7);
    let mut normal =
        |heads: usize| -> Vec<f32> { StandardNormal.sample_iter(&mut rng).take(room * heads * DIM).collect() };
    let sequences: Vec<[Vec<f32>; 3]> =
        (0..LAYERS).map(|_| [normal(HEADS), normal(KV_HEADS), normal(KV_HEADS)]).collect();
    let layers = (0..LAYERS).map(|_| Layer::new(&ctx, room)).collect::<Result<Vec<_>, _>>().map_err(text)?;

    let (mut planning, mut recording) = (Vec::new(), Vec::new());
    for (first, n) in std::iter::once((0, args.prompt)).chain((args.prompt..room).map(|token| (token, 1))) {
        for (layer, [q, k, v]) in layers.iter().zip(&sequences) {
            layer.append(&ctx, [q, k, v], first, n);
        }
        let started = Instant::now();
        let plan = plan(&ctx, &layers[0], first, n).map_err(text)?;
        planning.push(started.elapsed());
        let started = Instant::now();
        step(&ctx, &layers, &plan, first, n).map_err(text)?;
        recording.push(started.elapsed());
        if first == args.prompt && n == 1 {
            println!("the first token:\n{plan}");
        }
    }
    println!(
        "{} tokens at once, {} one by one, with {} kernels; on the host a token takes {:?} to plan and {:?} to record and submit for all layers",
        args.prompt,
        args.tokens,
        ctx.pipelines(),
        median(planning),
        median(recording)
    );
    for (n, (layer, sequence)) in layers.iter().zip(&sequences).enumerate() {
        let got: Vec<f32> = pollster::block_on(layer.out.read(&ctx)).map_err(text)?;
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        let worst = check(&got, &causal::<f64>(sequence, room), &causal::<f32>(sequence, room), DType::F32);
        let worst = worst.map_err(|e| format!("layer {n}: {e}"))?;
        println!("layer {n}: as causal attention over all {room} tokens, error {worst:.1e}");
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The oracle's result for a sequence with tokens first, `[heads, tokens, dim]`.
fn causal<T: Real>(sequence: &[Vec<f32>; 3], tokens: usize) -> Vec<f64> {
    let heads_first = |x: &Vec<f32>| -> Vec<T> {
        let heads = x.len() / (tokens * DIM);
        let at = |h: usize, i: usize, d: usize| T::of(x[(i * heads + h) * DIM + d].into());
        let at = &at;
        (0..heads).flat_map(|h| (0..tokens).flat_map(move |i| (0..DIM).map(move |d| at(h, i, d)))).collect()
    };
    let [q, k, v] = sequence.each_ref().map(heads_first);
    let sizes =
        Sizes { batch: 1, heads: HEADS, heads_kv: KV_HEADS, len_q: tokens, len_kv: tokens, head_dim: DIM, v_dim: DIM };
    let scale = |_| T::of(1.0 / (DIM as f64).sqrt());
    let before = |_: usize, _: usize, i: usize, j: usize| j <= i;
    let (out, _) = softmax_attention(sizes, &q, &k, &v, Rules { mask: &before, ..Rules::dense(&scale) });
    out.into_iter().map(T::to_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_the_whole_sequence() {
        run(&Args { prompt: 5, tokens: 40 }).unwrap();
        run(&Args { prompt: 0, tokens: 3 }).unwrap();
    }
}
