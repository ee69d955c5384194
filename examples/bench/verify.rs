//! A result beside the f64 oracle.

use half::f16;
use wgpu_attention::reference::{Real, Rules, Sizes, check, softmax_attention};
use wgpu_attention::{AttentionIo, Context, DType, Element, Plan, Tensor};

use crate::cases::Case;
use crate::data::Data;

/// Runs once and compares some rows of the first and the last head with the f64 oracle. A kernel that errs more than
/// twice as much as the plain formula, plus rounding, is not worth timing.
pub fn verify(ctx: &Context, case: &Case, data: &Data, plan: &Plan, io: &AttentionIo<'_>) -> Result<f64, String> {
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, io).map_err(|e| e.to_string())?;
    ctx.queue().submit([encoder.finish()]);
    let step = (case.len_q / 24).max(1);
    let rows: Vec<usize> = (0..case.len_q).step_by(step).chain([case.len_q - 1]).collect();
    let mut worst: f64 = 0.0;
    for (b, h) in [(0, 0), (case.batch - 1, case.heads - 1)] {
        let got = read_head(ctx, &data.out, b, h)?;
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

pub fn read_head(ctx: &Context, tensor: &Tensor, b: usize, h: usize) -> Result<Vec<f32>, String> {
    let head = tensor.narrow(0, b, 1).and_then(|x| x.narrow(1, h, 1)).map_err(|e| e.to_string())?;
    fn read<T: Element>(ctx: &Context, head: &Tensor) -> Result<Vec<T>, String> {
        pollster::block_on(head.read(ctx)).map_err(|e| e.to_string())
    }
    if tensor.layout().dtype() == DType::F32 {
        return read(ctx, &head);
    }
    Ok(read::<f16>(ctx, &head)?.iter().map(|x| x.to_f32()).collect())
}

/// Some rows of one head by the reference, in f64 or f32.
fn oracle<T: Real>(case: &Case, data: &Data, b: usize, h: usize, rows: &[usize]) -> Vec<f64> {
    let kv = b * case.heads_kv + h / (case.heads / case.heads_kv);
    let cast = |values: Vec<f32>| values.into_iter().map(|x| T::of(x.into())).collect::<Vec<T>>();
    let first = (b * case.heads + h) * case.len_q;
    let q: Vec<T> = rows.iter().flat_map(|row| cast(data.host[0].read(first + row, 1))).collect();
    let k = cast(data.host[1].read(kv * case.len_kv, case.len_kv));
    let v = cast(data.host[2].read(kv * case.len_kv, case.len_kv));
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
