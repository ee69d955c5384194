//! Where the poles of a diagonal state space begin: host, f64.

use std::f64::consts::PI;

use crate::{Error, Result};

/// How the transitions of a diagonal state space begin (S4D, Gu et al. 2022, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum S4dInit {
    /// `-1/2 - i pi n`: S4D-Lin.
    Lin,
    /// `-1/2 - i N / pi (N / (2 n + 1) - 1)`: S4D-Inv.
    Inv,
    /// `-1/2 - i (1 + 2 n)^2 / pi`: a quadratic spectrum.
    Quad,
    /// `-(n + 1)`: S4D-Real.
    Real,
    /// The eigenvalues of the normal part of HiPPO-LegS: S4D-LegS.
    Legs,
}

impl S4dInit {
    /// The poles `[re, im]` of a state of size `d_state`: half as many, each standing for a pair of conjugates; imaginary parts are not
    /// above 0.
    ///
    /// ```
    /// use wgpu_attention::S4dInit;
    ///
    /// assert_eq!(S4dInit::Real.poles(4)?, [[-1.0, 0.0], [-2.0, 0.0]]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when `d_state` is odd or 0.
    pub fn poles(self, d_state: usize) -> Result<Vec<[f32; 2]>> {
        if d_state == 0 || !d_state.is_multiple_of(2) {
            return Err(Error::Value(format!("d_state: is {d_state}, but must be even and at least 2")));
        }
        let size = d_state as f64;
        let half =
            |im: fn(f64, f64) -> f64| (0..d_state / 2).map(|n| [-0.5, -im(n as f64, size) as f32]).collect::<Vec<_>>();
        Ok(match self {
            S4dInit::Lin => half(|n, _| PI * n),
            S4dInit::Inv => half(|n, size| size / PI * (size / (2.0 * n + 1.0) - 1.0)),
            S4dInit::Quad => half(|n, _| (1.0 + 2.0 * n) * (1.0 + 2.0 * n) / PI),
            S4dInit::Real => (0..d_state / 2).map(|n| [-(n as f32 + 1.0), 0.0]).collect(),
            S4dInit::Legs => legs(d_state).into_iter().map(|im| [-0.5, im as f32]).collect(),
        })
    }
}

/// Imaginary parts below 0, ascending, of the eigenvalues of the skew matrix S with `1/2 sqrt((2i + 1)(2k + 1))` above the diagonal. They
/// come in pairs of conjugates, so `-S^2` is symmetric with each square twice.
fn legs(n: usize) -> Vec<f64> {
    let root = |i: usize| (2.0 * i as f64 + 1.0).sqrt();
    let skew = |i: usize, k: usize| match i.cmp(&k) {
        std::cmp::Ordering::Less => 0.5 * root(i) * root(k),
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => -0.5 * root(i) * root(k),
    };
    let mut square = vec![0.0; n * n];
    for i in 0..n {
        for k in 0..n {
            square[i * n + k] = (0..n).map(|j| skew(j, i) * skew(j, k)).sum();
        }
    }
    let mut squares = symmetric_eigenvalues(&mut square, n);
    squares.sort_by(f64::total_cmp);
    squares.chunks(2).rev().map(|pair| -(0.5 * (pair[0] + pair[1])).max(0.0).sqrt()).collect()
}

/// By Jacobi's rotations, which are as exact as the numbers themselves; `a` is overwritten.
fn symmetric_eigenvalues(a: &mut [f64], n: usize) -> Vec<f64> {
    let at = |i: usize, k: usize| i * n + k;
    let norm: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..100 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |k| (i, k))).map(|(i, k)| a[at(i, k)].powi(2)).sum();
        if off <= 1e-30 * norm {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[at(p, q)] == 0.0 {
                    continue;
                }
                let theta = (a[at(q, q)] - a[at(p, p)]) / (2.0 * a[at(p, q)]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[at(k, p)], a[at(k, q)]);
                    (a[at(k, p)], a[at(k, q)]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a[at(p, k)], a[at(q, k)]);
                    (a[at(p, k)], a[at(q, k)]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    (0..n).map(|i| a[at(i, i)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_find_what_is_known() {
        // Eigenvalues of the path's second differences are 2 - 2 cos(pi k / (n + 1)).
        let n = 9;
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            a[i * n + i] = 2.0;
            if i > 0 {
                (a[i * n + i - 1], a[(i - 1) * n + i]) = (-1.0, -1.0);
            }
        }
        let mut found = symmetric_eigenvalues(&mut a, n);
        found.sort_by(f64::total_cmp);
        for (k, got) in found.iter().enumerate() {
            let want = 2.0 - 2.0 * (PI * (k + 1) as f64 / (n + 1) as f64).cos();
            assert!((got - want).abs() < 1e-12, "{got} is not {want}");
        }
    }

    #[test]
    fn poles_are_stable() {
        for init in [S4dInit::Lin, S4dInit::Inv, S4dInit::Quad, S4dInit::Real, S4dInit::Legs] {
            let poles = init.poles(16).unwrap();
            assert!(poles.len() == 8 && poles.iter().all(|[re, im]| *re < 0.0 && *im <= 0.0), "{init:?}: {poles:?}");
        }
        let refusal = S4dInit::Lin.poles(7).unwrap_err().to_string();
        assert_eq!(refusal, "d_state: is 7, but must be even and at least 2");
    }
}
