//! Operands of a case.

use half::f16;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::{Context, DType, Error, Tensor};

use crate::cases::Case;
use crate::family::Family;

/// Rows after which random ones repeat: drawing billions of numbers takes longer than what is measured. Even, so that copies
/// are of whole words, and no multiple of any length of the table, so that heads differ.
const PERIOD: usize = 32770;

/// Random operands of a case, on the device and, rounded as there, on the host.
pub struct Data {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    pub out: Tensor,
    pub host: [Rows; 3],
}

/// What a tensor holds, row after row, as far as rows are new.
pub struct Rows {
    values: Vec<f32>,
    dim: usize,
}

impl Rows {
    /// Rows of the tensor, counted over all its batches and heads.
    pub fn read(&self, first: usize, count: usize) -> Vec<f32> {
        let at = first * self.dim % self.values.len();
        self.values[at..].iter().chain(self.values.iter().cycle()).take(count * self.dim).copied().collect()
    }
}

impl Data {
    pub fn new(ctx: &Context, case: &Case) -> Result<Data, Error> {
        let mut rng = StdRng::seed_from_u64(7);
        let Case { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim, dtype, .. } = *case;
        // The delta rule wants keys of length 1, and gets queries alike.
        let change = if case.linear.is_some_and(Family::is_delta) { unit_length } else { |_: &mut [f32]| {} };
        let (q, q_host) = upload(ctx, dtype, [batch, heads, len_q, head_dim], &mut rng, change)?;
        let (k, k_host) = upload(ctx, dtype, [batch, heads_kv, len_kv, head_dim], &mut rng, change)?;
        let (v, v_host) = upload(ctx, dtype, [batch, heads_kv, len_kv, v_dim], &mut rng, |_| {})?;
        let out = Tensor::zeros(ctx, dtype, [batch, heads, len_q, v_dim])?;
        Ok(Data { q, k, v, out, host: [q_host, k_host, v_host] })
    }
}

fn unit_length(row: &mut [f32]) {
    let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    row.iter_mut().for_each(|x| *x /= length);
}

/// A tensor of normal numbers, of which each row is changed by a function before it is rounded to the type.
pub fn upload(
    ctx: &Context,
    dtype: DType,
    shape: [usize; 4],
    rng: &mut StdRng,
    change: impl Fn(&mut [f32]),
) -> Result<(Tensor, Rows), Error> {
    let [batch, heads, len, dim] = shape;
    let rows = batch * heads * len;
    let mut values: Vec<f32> = StandardNormal.sample_iter(rng).take(rows.min(PERIOD) * dim).collect();
    values.chunks_mut(dim).for_each(change);
    let period = [1, 1, rows.min(PERIOD), dim];
    let piece = if dtype == DType::F32 {
        Tensor::from_slice(ctx, period, &values)?
    } else {
        let rounded: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
        values = rounded.iter().map(|x| x.to_f32()).collect();
        Tensor::from_slice(ctx, period, &rounded)?
    };
    let tensor = Tensor::zeros(ctx, dtype, shape)?;
    let row_bytes = dim * dtype.size();
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    for first in (0..rows).step_by(PERIOD) {
        let bytes = ((rows - first).min(PERIOD) * row_bytes).next_multiple_of(4);
        let to = (first * row_bytes) as u64;
        encoder.copy_buffer_to_buffer(piece.buffer(), 0, tensor.buffer(), to, bytes as u64);
    }
    ctx.queue().submit([encoder.finish()]);
    Ok((tensor, Rows { values, dim }))
}
