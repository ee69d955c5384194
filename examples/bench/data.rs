//! Operands of a case.

use half::f16;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::{Context, DType, Error, Tensor};

use crate::cases::Case;

/// Random operands of a case, on the device and, rounded as there, on the host.
pub struct Data {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    pub out: Tensor,
    pub host: [Vec<f32>; 3],
}

impl Data {
    pub fn new(ctx: &Context, case: &Case) -> Result<Data, Error> {
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
