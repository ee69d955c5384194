//! The one tolerance rule: a kernel may err at most twice as much as the plain formula in the kernel's own types, plus a
//! rounding of the output.

use crate::DType;

/// Rounds to what a tensor of this type can hold.
pub fn round_to(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F16 => half::f16::from_f64(x).to_f64(),
        _ => f64::from(x as f32),
    }
}

/// How much a kernel may err: `2 max|plain - exact| + ulp(max|exact|)`, where `plain` is the naive formula in f32, rounded
/// here to the output's type. Infinities do not count.
pub fn allowed(exact: &[f64], plain: &[f64], dtype: DType) -> f64 {
    let finite = || exact.iter().zip(plain).filter(|(x, _)| x.is_finite());
    let largest = finite().fold(0.0f64, |m, (x, _)| m.max(x.abs()));
    let plain_error = finite().fold(0.0f64, |m, (x, plain)| m.max((round_to(dtype, *plain) - x).abs()));
    let ulp = if dtype == DType::F16 { 2f64.powi(-10) } else { 2f64.powi(-23) };
    2.0 * plain_error + largest * ulp
}

/// Checks `got` against the exact values: no element may err more than [`allowed`]. Minus infinity matches only itself;
/// NaN never passes. Returns the largest error, or a sentence about the first element that fails.
///
/// The same rule on every machine. Source: FlashAttention's tests (Dao et al.), which compare a kernel's error with that
/// of the same-precision reference.
pub fn check(got: &[f64], exact: &[f64], plain: &[f64], dtype: DType) -> Result<f64, String> {
    if got.len() != exact.len() || plain.len() != exact.len() {
        return Err(format!("{} values, but {} are exact and {} plain", got.len(), exact.len(), plain.len()));
    }
    let allowed = allowed(exact, plain, dtype);
    let mut worst: f64 = 0.0;
    for (i, (&got, &exact)) in got.iter().zip(exact).enumerate() {
        // Equal infinities differ by NaN.
        let error = if got == exact { 0.0 } else { (got - exact).abs() };
        if error.is_nan() || error > allowed {
            return Err(format!("element {i} is {got}, but must be {exact} within {allowed:.3e}"));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_passes() {
        let exact = [1.0, -2.0, 0.25, f64::NEG_INFINITY];
        assert_eq!(check(&exact, &exact, &exact, DType::F32), Ok(0.0));
        let near = [1.0, -2.0 + 1e-7, 0.25, f64::NEG_INFINITY];
        assert!(check(&near, &exact, &exact, DType::F32).is_ok());
    }

    #[test]
    fn what_is_wrong_fails() {
        let exact = [1.0, -2.0, 0.25, f64::NEG_INFINITY];
        let wrong = |i: usize, x: f64| {
            let mut got = exact;
            got[i] = x;
            check(&got, &exact, &exact, DType::F32).is_err()
        };
        assert!(wrong(1, -2.0 + 1e-5), "a perturbed value");
        assert!(wrong(0, f64::NAN), "a NaN");
        assert!(wrong(2, f64::INFINITY), "an infinity");
        assert!(wrong(3, -1e30), "a finite value for minus infinity");
        assert!(wrong(1, f64::NEG_INFINITY), "minus infinity for a finite value");
        assert!(check(&exact[..3], &exact, &exact, DType::F32).is_err(), "a missing value");
        // The allowance follows the plain formula's error, and the type.
        let plain = [1.0 + 1e-4, -2.0, 0.25, f64::NEG_INFINITY];
        let got = [1.0, -2.0 + 1.9e-4, 0.25, f64::NEG_INFINITY];
        assert!(check(&got, &exact, &plain, DType::F32).is_ok());
        assert!(check(&got, &exact, &exact, DType::F32).is_err());
        assert!(check(&got, &exact, &exact, DType::F16).is_ok());
    }
}
