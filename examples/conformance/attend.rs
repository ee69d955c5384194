//! Attention under a mask, which must not depend on how tiles are visited.

use wgpu_attention::{Attention, Context, HostMask, Mask, Order, Tensor, Visit};

use crate::case::{Case, Tolerance};
use crate::operators::{Output, Stop, read};
use crate::softmax::scaled;

/// Attention under a mask, however its tiles are visited.
pub fn attend(ctx: &Context, case: &Case, mask: Mask) -> Result<(Tensor, Tensor), Stop> {
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    same_however_visited(ctx, case, scaled(Attention::new(&q, &k, &v), case)?, mask)
}

/// Runs as planned, by a list, and in the mask's own order, which planning leaves out on CPUs: results must not depend on
/// it.
pub fn same_however_visited(
    ctx: &Context,
    case: &Case,
    attention: Attention,
    mask: Mask,
) -> Result<(Tensor, Tensor), Stop> {
    let attention = attention.mask(mask.clone());
    let (out, lse) = attention.run_with_lse(ctx)?;
    let [_, heads, len_q, _] = out.shape();
    let [_, _, len_kv, _] = case.dims("k")?;
    let mut others = vec![attention.clone().visit(Visit::Listed)];
    // Masks of tensors have no host form, and no order.
    if let Ok(host) = mask.host([1, heads, len_q, len_kv]) {
        let mut orders: Vec<Order> = (0..heads).map(|h| host.order(h)).filter(|order| !order.is_sequence()).collect();
        orders.dedup();
        others.extend(orders.into_iter().map(|order| attention.clone().order(order)));
    }
    for other in others {
        let (other_out, other_lse) = other.run_with_lse(ctx)?;
        same(ctx, case, "out", &out, &other_out)?;
        same(ctx, case, "lse", &lse, &other_lse)?;
    }
    Ok((out, lse))
}

/// Refuses results that are further apart than twice what the case allows, as two that pass may be.
pub fn same(ctx: &Context, case: &Case, name: &str, a: &Tensor, b: &Tensor) -> Result<(), Stop> {
    let tolerance = case.expected.get(name).or(case.expected.get("out")).map(|(_, tolerance)| *tolerance);
    let Some(Tolerance { rtol, atol }) = tolerance else { return Ok(()) };
    let pairs = read(ctx, a)?.into_iter().zip(read(ctx, b)?);
    if pairs.map(|(a, b)| (a.into(), b.into())).all(|(a, b)| near(a, b, 2.0 * rtol, 2.0 * atol)) {
        return Ok(());
    }
    Err(Stop::Failed(format!("{name}: differs between ways of visiting tiles")))
}

/// Equal infinities are no distance apart, others too far; NaN is never near.
fn near(a: f64, b: f64, rtol: f64, atol: f64) -> bool {
    a == b || (a.is_finite() && b.is_finite() && (a - b).abs() <= atol + rtol * a.abs())
}

/// Both outputs of an attention.
pub fn outputs(ctx: &Context, (out, lse): &(Tensor, Tensor)) -> Result<Vec<Output>, Stop> {
    Ok(vec![Output::read(ctx, "out", out)?, Output::read_rows(ctx, "lse", lse)?])
}

/// Packed bits of a host mask, `[heads, len_q, words]`.
pub fn bits(host: &HostMask, heads: usize, len_q: usize, len_kv: usize) -> Vec<i64> {
    let mut words = Vec::new();
    for (h, i) in (0..heads).flat_map(|h| (0..len_q).map(move |i| (h, i))) {
        words.extend((0..len_kv.div_ceil(32)).map(|word| {
            let seen = (word * 32..len_kv.min(word * 32 + 32)).filter(|&j| host.allows(0, h, i, j));
            seen.fold(0i64, |bits, j| bits | 1 << (j % 32))
        }));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near() {
        let inf = f64::INFINITY;
        assert!(near(-inf, -inf, 0.1, 0.0) && near(1.0, 1.05, 0.1, 0.0) && near(0.0, 0.05, 0.0, 0.1));
        for (a, b) in [(-inf, 3.0), (3.0, -inf), (inf, -inf), (f64::NAN, f64::NAN), (1.0, 1.2)] {
            assert!(!near(a, b, 0.1, 0.0), "{a}, {b}");
        }
    }
}
