//! Time of a pattern against dense attention, after a check against the oracle.

use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::reference::{Real, Rules, Sizes, check, softmax_attention};
use wgpu_attention::{Attention, AttentionIo, Context, DType, Mask, Tensor};

use crate::patterns::{Pattern, len};
use crate::timing;

const DIM: usize = 64;
const REPEATS: usize = 11;

/// Operands of one size.
pub struct Bench {
    scale: usize,
    heads: usize,
    /// q, k, v and out.
    x: [Tensor; 4],
    host: [Vec<f32>; 3],
    device: String,
}

/// What a pattern took.
pub struct Time {
    pub seconds: f64,
    pub dense: f64,
    tokens: usize,
    heads: usize,
    device: String,
}

impl Time {
    /// For people.
    pub fn sentence(&self) -> String {
        let Time { seconds, dense, tokens, heads, device } = self;
        let (ms, dense_ms, share) = (seconds * 1e3, dense * 1e3, seconds / dense);
        let size = format!("{tokens} tokens, {heads} heads of {DIM}");
        format!("{size}: {ms:.3} ms, {share:.3} of dense ({dense_ms:.3} ms), on {device}")
    }
}

impl Bench {
    /// So many tokens; else 4096 on a GPU, 1024 on a CPU.
    pub fn new(ctx: &Context, tokens: Option<usize>) -> Result<Bench, String> {
        let (default, heads) = if ctx.capabilities().cpu { (1024, 2) } else { (4096, 8) };
        let tokens = tokens.unwrap_or(default);
        let scale = (tokens / len(1)).isqrt();
        if scale == 0 || len(scale) != tokens {
            return Err(format!("--len: is {tokens}, but must be {} times a square", len(1)));
        }
        let shape = [1, heads, len(scale), DIM];
        let mut rng = rand::rngs::StdRng::seed_from_u64(11);
        let host: [Vec<f32>; 3] =
            std::array::from_fn(|_| StandardNormal.sample_iter(&mut rng).take(shape.iter().product()).collect());
        let upload = |x: &Vec<f32>| Tensor::from_slice(ctx, shape, x).map_err(|e| e.to_string());
        let out = Tensor::zeros(ctx, DType::F32, shape).map_err(|e| e.to_string())?;
        let x = [upload(&host[0])?, upload(&host[1])?, upload(&host[2])?, out];
        let device = ctx.device().adapter_info().name;
        Ok(Bench { scale, heads, x, host, device })
    }

    /// The pattern, checked and timed, and dense attention right before it: clocks and neighbours change within minutes.
    pub fn against_dense(&self, ctx: &Context, pattern: &Pattern) -> Result<Time, String> {
        let made = pattern.at(self.scale).map_err(|e| e.to_string())?;
        let runs = made.runs.map_or(made.mask.clone(), |runs| runs(self.heads));
        let dense = self.checked_seconds(ctx, Mask::all(), &Mask::all()).map_err(|e| format!("dense: {e}"))?;
        let seconds = self.checked_seconds(ctx, runs, &made.mask)?;
        let (heads, device) = (self.heads, self.device.clone());
        Ok(Time { seconds, dense, tokens: len(self.scale), heads, device })
    }

    /// Runs one mask, and times it if its last head is as the other says.
    fn checked_seconds(&self, ctx: &Context, mask: Mask, last: &Mask) -> Result<f64, String> {
        let [q, k, v, out] = &self.x;
        let plan = Attention::new(q, k, v).mask(mask).plan(ctx).map_err(|e| e.to_string())?;
        let io = AttentionIo::new(q, k, v, out);
        let mut encoder = ctx.device().create_command_encoder(&Default::default());
        plan.encode(&mut encoder, &io).map_err(|e| e.to_string())?;
        ctx.queue().submit([encoder.finish()]);
        self.verify(ctx, last)?;
        Ok(timing::median_seconds(ctx, REPEATS, |encoder| {
            plan.encode(encoder, &io).expect("the plan was made for these tensors");
        }))
    }

    /// Some rows of the last head, as they were written last, against the oracle.
    fn verify(&self, ctx: &Context, mask: &Mask) -> Result<(), String> {
        let n = len(self.scale);
        let head = self.x[3].narrow(1, self.heads - 1, 1).map_err(|e| e.to_string())?;
        let got: Vec<f32> = pollster::block_on(head.read(ctx)).map_err(|e| e.to_string())?;
        let rows: Vec<usize> = (0..n).step_by(n / 32 + 1).collect();
        let got: Vec<f64> = rows.iter().flat_map(|&i| got[i * DIM..][..DIM].iter().map(|&x| x.into())).collect();
        let exact = self.oracle::<f64>(mask, &rows)?;
        let plain = self.oracle::<f32>(mask, &rows)?;
        check(&got, &exact, &plain, DType::F32).map(|_| ()).map_err(|e| format!("is wrong, not drawn: {e}"))
    }

    fn oracle<T: Real>(&self, mask: &Mask, rows: &[usize]) -> Result<Vec<f64>, String> {
        let n = len(self.scale);
        let cast = |x: &[f32]| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
        let first = (self.heads - 1) * n * DIM;
        let q: Vec<T> = rows.iter().flat_map(|&i| cast(&self.host[0][first + i * DIM..][..DIM])).collect();
        let [k, v] = [&self.host[1], &self.host[2]].map(|x| cast(&x[first..][..n * DIM]));
        let host = mask.host([1, 1, n, n]).map_err(|e| e.to_string())?;
        let visible = |_: usize, _: usize, i: usize, j: usize| host.allows(0, 0, rows[i], j);
        let scale = |_| T::of((1.0 / (DIM as f32).sqrt()).into());
        let sizes = Sizes { batch: 1, heads: 1, heads_kv: 1, len_q: rows.len(), len_kv: n, head_dim: DIM, v_dim: DIM };
        let rules = Rules { mask: &visible, ..Rules::dense(&scale) };
        Ok(softmax_attention(sizes, &q, &k, &v, rules).0.into_iter().map(T::to_f64).collect())
    }
}
