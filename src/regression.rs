//! In-context linear regression by attention heads: the estimators that trained heads turn out to compute.
//!
//! A head attends from a query `x_q` to examples `x_l` and reads their labels: `head_h = sum_l softmax_l(omega_h <x_q,
//! x_l>) y_l`; the prediction is `sum_h mu_h head_h`. The heads themselves are [`Attention`](crate::Attention) with
//! [`scale_per_head`](crate::Attention::scale_per_head) `omega`, q, k and v shared by all heads (stride 0), and a `v_dim`
//! of 1. What is left is host arithmetic in f64, here.
//!
//! Source: "In-context linear regression with softmax attention" line of work: two heads of opposite sign implement a
//! debiased gradient step.

use crate::{Error, Result};

/// The output weights that minimise the expected squared error for the temperatures `omega`, with `dim` features,
/// `examples` examples and label noise of variance `noise_var`:
/// `mu = (omega omega^T + (1 + noise_var) / examples * exp(dim omega omega^T))^-1 omega`, exp taken by element.
///
/// Nearly singular for small omega: solved in f64 by elimination with pivoting. `None` where it is singular, or where its numbers
/// outgrow f64.
pub fn optimal_head_weights(omega: &[f64], dim: usize, examples: usize, noise_var: f64) -> Option<Vec<f64>> {
    let entry = |a: f64, b: f64| a * b + (1.0 + noise_var) / examples as f64 * (dim as f64 * a * b).exp();
    let rows: Vec<Vec<f64>> = omega.iter().map(|&a| omega.iter().map(|&b| entry(a, b)).chain([a]).collect()).collect();
    let finite = |x: &[f64]| x.iter().all(|x| x.is_finite());
    if !rows.iter().all(|row| finite(row)) {
        return None;
    }
    solve(rows).filter(|weights| finite(weights))
}

/// One step of gradient descent from 0 on the squared error, of total size `step`, at the query:
/// `step / L * sum_l y_l <x_l - center, x_q>`; `x` is `[examples, dim]`, `y` `[examples]`.
///
/// With `debias` the center is the mean example, which is what two heads of opposite temperature compute to first
/// order, with `step = sum_h omega_h mu_h`; without, it is 0.
///
/// # Errors
/// [`Error::Shape`] without an example, or when x has not as many numbers as the query for each.
pub fn gradient_step(x: &[f64], y: &[f64], x_query: &[f64], step: f64, debias: bool) -> Result<f64> {
    let (dim, examples) = (x_query.len(), y.len());
    if examples == 0 {
        return Err(Error::Shape("y: has no example, but must have at least 1".into()));
    }
    if x.len() != examples.saturating_mul(dim) {
        return Err(Error::Shape(format!(
            "x: has {} values, but must have those of x_query ({dim}) for each example ({examples})",
            x.len()
        )));
    }
    let mean =
        |d: usize| if debias { (0..examples).map(|l| x[l * dim + d]).sum::<f64>() / examples as f64 } else { 0.0 };
    let center: Vec<f64> = (0..dim).map(mean).collect();
    let along = |l: usize| (0..dim).map(|d| (x[l * dim + d] - center[d]) * x_query[d]).sum::<f64>();
    Ok(step / examples as f64 * (0..examples).map(|l| y[l] * along(l)).sum::<f64>())
}

/// Solves a square system, each row ending in its right-hand side.
fn solve(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))?;
        rows.swap(column, pivot);
        if rows[column][column] == 0.0 {
            return None;
        }
        let (done, below) = rows.split_at_mut(column + 1);
        let pivot = &done[column];
        for row in below {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).for_each(|(x, p)| *x -= factor * p);
        }
    }
    let mut solution = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|c| rows[row][c] * solution[c]).sum();
        solution[row] = (rows[row][n] - known) / rows[row][row];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_what_needs_pivoting() {
        let solution = solve(vec![vec![0.0, 2.0, 4.0], vec![3.0, 1.0, 5.0]]).unwrap();
        assert!((solution[0] - 1.0).abs() < 1e-12 && (solution[1] - 2.0).abs() < 1e-12);
        assert_eq!(solve(vec![vec![1.0, 2.0, 3.0], vec![2.0, 4.0, 6.0]]), None);
    }

    #[test]
    fn a_constant_label_is_no_gradient_once_debiased() {
        let x = [1.0, 2.0, 3.0, 5.0];
        assert_eq!(gradient_step(&x, &[7.0, 7.0], &[1.0, 1.0], 0.5, true).unwrap(), 0.0);
        assert_eq!(gradient_step(&x, &[1.0, 1.0], &[1.0, 0.0], 1.0, false).unwrap(), 2.0);
        assert!(
            gradient_step(&x, &[], &[1.0], 1.0, true).is_err() && gradient_step(&x, &[1.0], &[1.0], 1.0, true).is_err()
        );
        assert_eq!(optimal_head_weights(&[1.0], 4, 0, 0.1), None);
        assert_eq!(optimal_head_weights(&[40.0, -40.0], 64, 8, 0.1), None);
    }
}
