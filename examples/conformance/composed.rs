//! Operators that are attention over views, or several attentions put together.

use wgpu_attention::regression::{gradient_step, optimal_head_weights};
use wgpu_attention::{Attention, Context, DType, Merge, Tensor};

use crate::case::Case;
use crate::operators::{Output, Stop, read};
use crate::softmax::{mask, scaled, tiled};

/// Attention whose q and k, `[heads, len, dim]`, come from positions alone: all batches share them by a stride of 0.
pub fn positional_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let v = case.tensor(ctx, "v")?;
    let shared = |name: &str| -> Result<Tensor, Stop> {
        let [heads, len, dim] = case.dims(name)?;
        Ok(case.tensor_as(ctx, name, [1, heads, len, dim])?.expand(0, v.shape()[0])?)
    };
    let (q, k) = (shared("q")?, shared("k")?);
    let attention = scaled(Attention::new(&q, &k, &v), case)?.mask(mask(case)?);
    let (out, lse) = attention.run_with_lse(ctx)?;
    let [_, heads, len, _] = lse.shape();
    let rows = furthest_from_first(&read(ctx, &lse)?, heads * len);
    Ok(vec![Output::read(ctx, "out", &out)?, Output::new("lse", [heads, len], rows)])
}

/// One value for all batches, where all should have the same: the one that strays furthest from the first batch's, so
/// that a wrong one is seen whichever batch it is in.
fn furthest_from_first(batches: &[f32], rows: usize) -> Vec<f32> {
    let apart = |a: f32, b: f32| if a == b { 0.0 } else { (a - b).abs() };
    let of_row = |row: usize| {
        let first = batches[row];
        let values = batches.iter().skip(row).step_by(rows);
        values.fold(first, |most, &value| {
            let further = apart(value, first).total_cmp(&apart(most, first)).is_gt();
            if further { value } else { most }
        })
    };
    // Without a batch there is no value to show.
    if batches.is_empty() { Vec::new() } else { (0..rows).map(of_row).collect() }
}

/// Heads that regress y on x: head h scores with `omega[h] * <x_query, x>` and reads y. Heads share all three tensors.
pub fn kernel_regression_heads(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let [batch, examples, dim] = case.dims("x")?;
    let [_, queries, _] = case.dims("x_query")?;
    let (omega, mu) = (case.floats("omega")?, case.floats("mu")?);
    let heads = omega.len();
    if mu.len() != heads {
        return Err(Stop::Failed(format!("mu: has {} values, but must have one a value of omega ({heads})", mu.len())));
    }
    let shared = |name: &str, len: usize, dim: usize| -> Result<Tensor, Stop> {
        Ok(case.tensor_as(ctx, name, [batch, 1, len, dim])?.expand(1, heads)?)
    };
    let (q, k, v) = (shared("x_query", queries, dim)?, shared("x", examples, dim)?, shared("y", examples, 1)?);
    let (out, lse) = tiled(Attention::new(&q, &k, &v), case).scale_per_head(omega).run_with_lse(ctx)?;
    let head_out = Output::read_rows(ctx, "head_out", &out)?;
    let lse = Output::read_rows(ctx, "lse", &lse)?;

    // The rest is host arithmetic, in f64.
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| value.into()).collect() };
    let (x, x_query, y) = (wide(case.floats("x")?), wide(case.floats("x_query")?), wide(case.floats("y")?));
    let (omega, mu, head_values) = (wide(omega), wide(mu), wide(&read(ctx, &out)?));
    let step = omega.iter().zip(&mu).map(|(omega, mu)| omega * mu).sum();
    let each_query = |value: &dyn Fn(usize, usize) -> f64| -> Vec<f32> {
        (0..batch * queries).map(|i| value(i / queries, i % queries) as f32).collect()
    };
    let pred = each_query(&|b, i| (0..heads).map(|h| mu[h] * head_values[(b * heads + h) * queries + i]).sum());
    let descent = |debias: bool| -> Result<Vec<f32>, Stop> {
        let each = x_query.chunks(dim).enumerate().map(|(n, x_query)| {
            let b = n / queries;
            let (x, y) = (&x[b * examples * dim..][..examples * dim], &y[b * examples..][..examples]);
            Ok(gradient_step(x, y, x_query, step, debias)? as f32)
        });
        each.collect()
    };
    let mut outputs = vec![
        head_out,
        lse,
        Output::new("pred", [batch, queries], pred),
        Output::new("gd", [batch, queries], descent(false)?),
        Output::new("debiased_gd", [batch, queries], descent(true)?),
    ];
    if let Some(noise_var) = case.params.number_f64("noise_var")? {
        let weights = optimal_head_weights(&omega, dim, examples, noise_var);
        let weights = weights.ok_or_else(|| Stop::Failed("omega: gives a singular system for mu_star".into()))?;
        outputs.push(Output::new("mu_star", [heads], weights.iter().map(|&weight| weight as f32).collect()));
    }
    Ok(outputs)
}

/// One softmax over `[k1; k2]`: two attentions, each writing its part, and their merge. The second part's mass is what
/// the other picture draws to itself.
pub fn pair_cross_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let q = case.tensor(ctx, "q")?;
    let [batch, heads, len, _] = q.shape();
    let [_, _, _, v_dim] = case.dims("v1")?;
    let out_parts = Tensor::zeros(ctx, case.dtype, [2 * batch, heads, len, v_dim])?;
    let lse_parts = Tensor::zeros(ctx, DType::F32, [2 * batch, heads, len, 1])?;
    for (part, (k, v)) in [("k1", "v1"), ("k2", "v2")].into_iter().enumerate() {
        let (k, v) = (case.tensor(ctx, k)?, case.tensor(ctx, v)?);
        let (out, lse) = (out_parts.narrow(0, part * batch, batch)?, lse_parts.narrow(0, part * batch, batch)?);
        scaled(Attention::new(&q, &k, &v), case)?.out(&out).lse_out(&lse).run(ctx)?;
    }
    let (out, lse, mass) = Merge::new(2, &out_parts, &lse_parts).run_with_mass(ctx)?;
    let other_mass = mass.narrow(0, batch, batch)?;
    Ok(vec![
        Output::read(ctx, "out", &out)?,
        Output::read_rows(ctx, "lse", &lse)?,
        Output::read_rows(ctx, "other_mass", &other_mass)?,
    ])
}

/// Attention between channels: those of k ask, those of v answer, those of q are gathered. All are transposed views,
/// and so is what is written.
pub fn channel_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    case.params.only("rule", "A=softmax_rows(scale*k^T v) [D,D]; out = (A q^T)^T")?;
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    let out = Tensor::zeros(ctx, case.dtype, q.shape())?;
    let [q, k, v] = [q.transpose(2, 3)?, k.transpose(2, 3)?, v.transpose(2, 3)?];
    // The default goes by the channels, not by the positions that the products sum over.
    let scale = case.params.number("scale")?.unwrap_or(1.0 / (k.shape()[2] as f32).sqrt());
    let attention = tiled(Attention::new(&k, &v, &q), case).scale(scale).out(&out.transpose(2, 3)?);
    let (_, lse) = attention.run_with_lse(ctx)?;
    Ok(vec![Output::read(ctx, "out", &out)?, Output::read_rows(ctx, "lse", &lse)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_strays_is_shown() {
        let inf = f32::INFINITY;
        assert_eq!(furthest_from_first(&[1.0, -inf, 1.0, -inf], 2), [1.0, -inf]);
        assert_eq!(furthest_from_first(&[1.0, 2.0, 1.0, 2.5, 0.0, 2.25], 2), [0.0, 2.5]);
        assert_eq!(furthest_from_first(&[-inf, 1.0, 0.0, -inf], 2), [0.0, -inf]);
        assert!(furthest_from_first(&[1.0, 9.0, f32::NAN, 2.0], 1)[0].is_nan());
        assert!(furthest_from_first(&[], 3).is_empty());
    }
}
