//! A sliding window over an ever longer sequence: only tiles that touch the window are visited, so time follows the
//! window and not the length.
//!
//!     cargo run --release --example window

#[path = "bench/timing.rs"]
mod timing;

use wgpu_attention::reference::{Real, Rules, Sizes, check, softmax_attention};
use wgpu_attention::{Attention, AttentionIo, Context, DType, Mask, Plan, Tensor};

/// A chunk of new queries at the end of a cache of keys.
const QUERIES: usize = 256;
const HEADS: usize = 2;
const DIM: usize = 64;
/// The last two are for GPUs alone: all of the keys take a CPU too long.
const LENGTHS: [usize; 5] = [8192, 16384, 32768, 65536, 131072];
/// Keys that a query sees, its own included; the last column sees all.
const WINDOWS: [Option<usize>; 3] = [Some(256), Some(1024), None];
/// Queries compared with the oracle in every cell of the table.
const CHECKED: [usize; 3] = [0, QUERIES / 2, QUERIES - 1];

fn main() {
    if let Err(e) = run() {
        eprintln!("window: {e}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let ctx = pollster::block_on(Context::request()).map_err(|e| e.to_string())?;
    println!(
        "{QUERIES} queries at the end of a sequence, {HEADS} heads of {DIM}, on {}",
        ctx.device().adapter_info().name
    );
    print!("{:>8}", "length");
    for window in WINDOWS {
        print!("{:>18}", window.map_or("causal".into(), |keys| format!("window of {keys}")));
    }
    println!();
    let mut worst: f64 = 0.0;
    let lengths = if ctx.capabilities().cpu { &LENGTHS[..3] } else { &LENGTHS[..] };
    for &len in lengths {
        let problem = Problem::new(&ctx, len).map_err(|e| e.to_string())?;
        print!("{len:>8}");
        for window in WINDOWS {
            let mask = window.map_or(Mask::causal(), |keys| Mask::window(keys - 1, 0));
            let plan = problem.plan(&ctx, &mask).map_err(|e| e.to_string())?;
            let seconds = timing::median_seconds(&ctx, 3, |encoder| {
                plan.encode(encoder, &problem.io()).expect("the plan was made for these tensors");
            });
            print!("{:>15.3} ms", seconds * 1e3);
            worst = worst.max(problem.check(&ctx, &mask)?);
        }
        println!();
    }
    println!("queries {CHECKED:?} agree with the f64 oracle everywhere: largest error {worst:.1e}");
    Ok(())
}

/// The tensors of one length, on the device and on the host.
struct Problem {
    len: usize,
    host: [Vec<f32>; 3],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
}

impl Problem {
    fn new(ctx: &Context, len: usize) -> wgpu_attention::Result<Problem> {
        // Numbers without a period that a window could fit.
        let values = |n: usize, step: f32| (0..HEADS * n * DIM).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        let host = [values(QUERIES, 0.731), values(len, 0.577), values(len, 0.413)];
        Ok(Problem {
            q: Tensor::from_slice(ctx, [1, HEADS, QUERIES, DIM], &host[0])?,
            k: Tensor::from_slice(ctx, [1, HEADS, len, DIM], &host[1])?,
            v: Tensor::from_slice(ctx, [1, HEADS, len, DIM], &host[2])?,
            out: Tensor::zeros(ctx, DType::F32, [1, HEADS, QUERIES, DIM])?,
            len,
            host,
        })
    }

    fn plan(&self, ctx: &Context, mask: &Mask) -> wgpu_attention::Result<Plan> {
        Attention::new(&self.q, &self.k, &self.v).mask(mask.clone()).plan(ctx)
    }

    fn io(&self) -> AttentionIo<'_> {
        AttentionIo::new(&self.q, &self.k, &self.v, &self.out)
    }

    /// The largest error of some rows, or a sentence when the project's rule does not allow it.
    fn check(&self, ctx: &Context, mask: &Mask) -> Result<f64, String> {
        let out: Vec<f32> = pollster::block_on(self.out.read(ctx)).map_err(|e| e.to_string())?;
        let got: Vec<f64> = rows(&out).map(f64::from).collect();
        let exact = self.oracle::<f64>(mask);
        let plain = self.oracle::<f32>(mask);
        check(&got, &exact, &plain, DType::F32)
    }

    fn oracle<T: Real>(&self, mask: &Mask) -> Vec<f64> {
        let cast = |x: f32| T::of(x.into());
        let q: Vec<T> = rows(&self.host[0]).map(cast).collect();
        let [k, v] = [1, 2].map(|n| self.host[n].iter().map(|&x| cast(x)).collect::<Vec<T>>());
        let sizes = Sizes {
            batch: 1,
            heads: HEADS,
            heads_kv: HEADS,
            len_q: CHECKED.len(),
            len_kv: self.len,
            head_dim: DIM,
            v_dim: DIM,
        };
        let scale = |_| T::of(1.0 / (DIM as f64).sqrt());
        let host = mask.host([1, 1, QUERIES, self.len]).expect("a window is known on the host");
        let visible = |_: usize, _: usize, i: usize, j: usize| host.allows(0, 0, CHECKED[i], j);
        let rules = Rules { mask: &visible, ..Rules::dense(&scale) };
        softmax_attention(sizes, &q, &k, &v, rules).0.into_iter().map(T::to_f64).collect()
    }
}

/// The checked rows of every head.
fn rows(values: &[f32]) -> impl Iterator<Item = f32> {
    let heads = values.chunks(QUERIES * DIM);
    heads.flat_map(|head| CHECKED.into_iter().flat_map(|row| head[row * DIM..][..DIM].iter().copied()))
}
