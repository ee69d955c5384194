//! Attention under one mask: run, checked in full against the f64 oracle, timed.

use wgpu_attention::reference::{Real, Rules, Sizes, allowed, softmax_attention};
use wgpu_attention::{Attention, AttentionIo, Context, DType, Error, Mask, Tensor};

use crate::input::Input;
use crate::timing::median_seconds;

/// Timed repetitions; the median counts.
const REPEATS: usize = 11;

/// A mask and what to call it.
pub struct Named {
    pub name: &'static str,
    pub mask: Mask,
}

/// The masks of the demo.
pub fn all() -> [Named; 3] {
    [
        Named { name: "dense", mask: Mask::all() },
        Named { name: "causal", mask: Mask::causal() },
        Named { name: "window(16, 16)", mask: Mask::window(16, 16) },
    ]
}

/// What one mask gave.
pub struct Outcome {
    /// What ran, as the plan tells it.
    pub plan: String,
    pub seconds: f64,
    /// Share of all pairs that attend.
    pub share: f64,
    /// Floating-point operations over those pairs: two products, a multiply and an add each.
    pub flops: f64,
    /// Of out, and of lse.
    pub errors: [Deviation; 2],
    /// As the GPU wrote it: `[batch, heads, len]`.
    pub lse: Vec<f32>,
}

impl Outcome {
    /// Whether both errors are allowed.
    pub fn ok(&self) -> bool {
        self.errors.iter().all(Deviation::ok)
    }
}

/// The largest error, and the largest that is allowed.
#[derive(Clone, Copy)]
pub struct Deviation {
    pub error: f64,
    pub allowed: f64,
}

impl Deviation {
    /// Whether the error is allowed; a NaN is not.
    pub fn ok(&self) -> bool {
        self.error <= self.allowed
    }

    /// By the project's one rule.
    fn of(got: &[f32], exact: &[f64], plain: &[f32]) -> Deviation {
        // NaN must win here, and f64::max drops it.
        let errors = got.iter().zip(exact).map(|(&x, want)| (f64::from(x) - want).abs());
        let error = errors.fold(0.0, |worst, error| if error <= worst { worst } else { error });
        let plain: Vec<f64> = plain.iter().map(|&x| x.into()).collect();
        Deviation { error, allowed: allowed(exact, &plain, DType::F32) }
    }
}

/// The input on the GPU.
pub struct Uploaded {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl Uploaded {
    pub fn new(ctx: &Context, input: &Input) -> Result<Uploaded, Error> {
        let upload = |values: &[f32]| Tensor::from_slice(ctx, input.shape, values);
        Ok(Uploaded { q: upload(&input.q)?, k: upload(&input.k)?, v: upload(&input.v)? })
    }
}

/// Plans, runs, checks and times attention under one mask.
pub fn run(ctx: &Context, input: &Input, gpu: &Uploaded, mask: &Mask) -> Result<Outcome, Error> {
    let [batch, heads, len, dim] = input.shape;
    let out = Tensor::zeros(ctx, DType::F32, input.shape)?;
    let lse = Tensor::zeros(ctx, DType::F32, [batch, heads, len, 1])?;
    let plan = Attention::new(&gpu.q, &gpu.k, &gpu.v).mask(mask.clone()).lse().plan(ctx)?;
    let io = AttentionIo::new(&gpu.q, &gpu.k, &gpu.v, &out).lse(&lse);
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, &io)?;
    ctx.queue().submit([encoder.finish()]);
    let out: Vec<f32> = pollster::block_on(out.read(ctx))?;
    let lse: Vec<f32> = pollster::block_on(lse.read(ctx))?;

    let exact = oracle::<f64>(input, mask);
    let plain = oracle::<f32>(input, mask);
    let errors = [Deviation::of(&out, &exact.0, &plain.0), Deviation::of(&lse, &exact.1, &plain.1)];
    let seconds = median_seconds(ctx, REPEATS, |encoder| {
        plan.encode(encoder, &io).expect("the plan was made for these tensors");
    });
    let host = mask.host([1, 1, len, len])?;
    let pairs = (0..len).map(|i| host.count(0, 0, i)).sum::<usize>() as f64;
    let flops = 2.0 * pairs * (dim + dim) as f64 * (batch * heads) as f64;
    Ok(Outcome { plan: plan.to_string(), seconds, share: pairs / (len * len) as f64, flops, errors, lse })
}

/// Every row by the reference.
fn oracle<T: Real>(input: &Input, mask: &Mask) -> (Vec<T>, Vec<T>) {
    let [batch, heads, len, dim] = input.shape;
    let sizes = Sizes { batch, heads, heads_kv: heads, len_q: len, len_kv: len, head_dim: dim, v_dim: dim };
    let cast = |values: &[f32]| values.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
    let scale = |_| T::of(1.0 / (dim as f64).sqrt());
    let host = mask.host([1, 1, len, len]).expect("the demo's masks are known on the host");
    let visible = |_: usize, _: usize, i: usize, j: usize| host.allows(0, 0, i, j);
    let rules = Rules { mask: &visible, ..Rules::dense(&scale) };
    softmax_attention(sizes, &cast(&input.q), &cast(&input.k), &cast(&input.v), rules)
}
