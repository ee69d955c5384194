//! The merge of partial softmax results.

use super::Real;

/// `lse = ln sum_p exp(lse_p)`, `mass_p = exp(lse_p - lse)`, `out = sum_p weight_p mass_p out_p`, row by row. `out_parts`
/// is `[parts, rows, dim]`, `lse_parts` `[parts, rows]`. Returns out `[rows, dim]`, lse `[rows]`, mass `[parts, rows]`.
pub fn merge<T: Real>(out_parts: &[T], lse_parts: &[T], weights: &[T], rows: usize) -> (Vec<T>, Vec<T>, Vec<T>) {
    let parts = weights.len();
    let dim = out_parts.len() / (parts * rows).max(1);
    let (mut out, mut lse) = (vec![T::of(0.0); rows * dim], vec![T::of(f64::NEG_INFINITY); rows]);
    let mut mass = vec![T::of(0.0); parts * rows];
    for row in 0..rows {
        let seen: Vec<usize> = (0..parts).filter(|p| lse_parts[p * rows + row].to_f64() != f64::NEG_INFINITY).collect();
        let Some(top) = seen.iter().map(|p| lse_parts[p * rows + row]).reduce(|a, b| if b > a { b } else { a }) else {
            continue;
        };
        let share = |p: usize| (lse_parts[p * rows + row] - top).exp();
        let total = seen.iter().fold(T::of(0.0), |sum, &p| sum + share(p));
        lse[row] = top + total.ln();
        for &p in &seen {
            mass[p * rows + row] = share(p) / total;
            for d in 0..dim {
                let part = out_parts[(p * rows + row) * dim + d];
                out[row * dim + d] = out[row * dim + d] + weights[p] * mass[p * rows + row] * part;
            }
        }
    }
    (out, lse, mass)
}

#[cfg(test)]
mod tests {
    use super::merge;

    #[test]
    fn by_hand() {
        let empty = f64::NEG_INFINITY;
        let (out, lse, mass) = merge(&[1.0, f64::NAN, 5.0, f64::NAN], &[0.0, empty, 3f64.ln(), empty], &[1.0, 1.0], 2);
        assert!((out[0] - 4.0).abs() < 1e-12 && (lse[0] - 4f64.ln()).abs() < 1e-12 && (mass[2] - 0.75).abs() < 1e-12);
        assert_eq!((out[1], lse[1], mass[1], mass[3]), (0.0, empty, 0.0, 0.0));
    }
}
