//! Feature maps, row by row.

use super::Real;
use crate::FeatureMap;

/// What some maps ask for besides rows.
#[derive(Debug, Clone, Copy)]
pub struct FeatureRules<'a, T> {
    /// `[dim, directions]` of [`FeatureMap::Favor`].
    pub omega: &'a [T],
    /// The longer of q and k, for [`FeatureMap::Cosformer`].
    pub longest: usize,
    /// The scale that [`FeatureMap::Taylor`] takes into its features.
    pub scale: T,
    /// Whether the rows are those of k, for [`FeatureMap::Efficient`].
    pub of_keys: bool,
}

/// `phi` of every row of `[.., len, dim]`, one after the other; [`FeatureMap`] has the formulas.
pub fn features<T: Real>(map: &FeatureMap, x: &[T], len: usize, dim: usize, rules: FeatureRules<'_, T>) -> Vec<T> {
    if *map == FeatureMap::Efficient && rules.of_keys {
        return x.chunks(len * dim).flat_map(|sequence| softmax_of_columns(sequence, dim)).collect();
    }
    x.chunks(dim).enumerate().flat_map(|(n, row)| row_features(map, row, n % len, rules)).collect()
}

/// Of the row at this position of its sequence.
fn row_features<T: Real>(map: &FeatureMap, row: &[T], position: usize, rules: FeatureRules<'_, T>) -> Vec<T> {
    let (zero, one) = (T::of(0.0), T::of(1.0));
    let each = |f: &dyn Fn(T) -> T| row.iter().map(|&x| f(x)).collect::<Vec<T>>();
    let squares = row.iter().fold(zero, |sum, &x| sum + x * x);
    let relu = |x: T| if x > zero { x } else { zero };
    match map {
        FeatureMap::Identity => row.to_vec(),
        FeatureMap::Elu1 => each(&|x| if x > zero { x + one } else { x.exp() }),
        FeatureMap::Elu => each(&|x| if x > zero { x } else { x.exp() - one }),
        FeatureMap::Relu => each(&relu),
        FeatureMap::Silu => each(&|x| x / (one + (zero - x).exp())),
        FeatureMap::Exp => each(&T::exp),
        FeatureMap::L2Norm => each(&|x| x / (squares + T::of(1e-6)).sqrt()),
        FeatureMap::SoftmaxDim | FeatureMap::Efficient => softmax(row),
        FeatureMap::Favor { temperature, .. } => {
            let temperature = T::of(f64::from(*temperature));
            let directions = rules.omega.len() / row.len();
            let off = temperature * squares / T::of(2.0) + T::of((2.0 * directions as f64).ln() / 2.0);
            let along = |m: usize| {
                row.iter().enumerate().fold(zero, |sum, (d, &x)| sum + x * rules.omega[d * directions + m])
                    * temperature.sqrt()
            };
            let positive = (0..directions).map(|m| (along(m) - off).exp());
            positive.chain((0..directions).map(|m| (zero - along(m) - off).exp())).collect()
        }
        FeatureMap::Cosformer => {
            let share = (position + 1) as f64 / rules.longest as f64;
            let of_angle = |share: f64| T::of(share * std::f64::consts::FRAC_PI_2).sin();
            let (sin, cos) = (of_angle(share), of_angle(1.0 - share));
            row.iter().map(|&x| relu(x) * sin).chain(row.iter().map(|&x| relu(x) * cos)).collect()
        }
        FeatureMap::Taylor => {
            let first = row.iter().map(|&x| x * rules.scale.sqrt());
            let half = T::of(0.5f64.sqrt());
            let pairs = (0..row.len()).flat_map(|a| (a..row.len()).map(move |b| (a, b)));
            let second = pairs.map(|(a, b)| rules.scale * row[a] * row[b] * if a == b { half } else { one });
            [one].into_iter().chain(first).chain(second).collect()
        }
    }
}

fn softmax<T: Real>(x: &[T]) -> Vec<T> {
    let top = x.iter().fold(x[0], |top, &x| if x > top { x } else { top });
    let powers: Vec<T> = x.iter().map(|&x| (x - top).exp()).collect();
    let sum = powers.iter().fold(T::of(0.0), |sum, &p| sum + p);
    powers.into_iter().map(|p| p / sum).collect()
}

fn softmax_of_columns<T: Real>(x: &[T], dim: usize) -> Vec<T> {
    let mut out = x.to_vec();
    for d in 0..dim {
        let column: Vec<T> = x.iter().skip(d).step_by(dim).copied().collect();
        out.iter_mut().skip(d).step_by(dim).zip(softmax(&column)).for_each(|(to, p)| *to = p);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: FeatureRules<'_, f64> = FeatureRules { omega: &[], longest: 4, scale: 0.25, of_keys: false };

    fn dot(map: FeatureMap, q: [f64; 2], k: [f64; 2], at: [usize; 2]) -> f64 {
        let of = |row: [f64; 2], at: usize| {
            let all = features(&map, &row.repeat(4), 4, 2, RULES);
            let width = all.len() / 4;
            all[at * width..][..width].to_vec()
        };
        of(q, at[0]).iter().zip(of(k, at[1])).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn maps_are_kernels() {
        let (q, k) = ([0.3, -0.7], [1.1, 0.4]);
        let s = 0.25 * (0.3 * 1.1 - 0.7 * 0.4);
        assert!((dot(FeatureMap::Taylor, q, k, [0, 1]) - (1.0 + s + s * s / 2.0)).abs() < 1e-12);
        // relu(q).relu(k) cos(pi / 2 (i - j) / longest), positions from 1.
        let angle = std::f64::consts::FRAC_PI_2 * 3.0 / 4.0;
        assert!((dot(FeatureMap::Cosformer, q, k, [3, 0]) - 0.3 * 1.1 * angle.cos()).abs() < 1e-12);
        let unit = dot(FeatureMap::L2Norm, k, k, [0, 0]);
        assert!((unit - 1.0).abs() < 1e-6);
    }

    #[test]
    fn positive_random_features_imitate_exp() {
        // Directions 1 and -1 of both axes, length sqrt(2): their mean is cosh's, near exp for small q and k.
        let root = 2f64.sqrt();
        let rules = FeatureRules { omega: &[root, 0.0, 0.0, root], ..RULES };
        let favor = FeatureMap::Favor {
            omega: crate::Layout::new(crate::DType::F32, [1, 1, 2, 2]).unwrap().into(),
            temperature: 1.0,
        };
        let (q, k) = ([0.02, -0.01], [0.03, 0.01]);
        let of = |row: [f64; 2]| features(&favor, &row, 1, 2, rules);
        let got: f64 = of(q).iter().zip(of(k)).map(|(a, b)| a * b).sum();
        assert!((got - (0.02f64 * 0.03 - 0.01 * 0.01).exp()).abs() < 1e-5, "{got}");
    }

    #[test]
    fn softmax_over_features_or_over_the_sequence() {
        let x = [0.0, 3f64.ln(), 0.0, 0.0];
        let near = |got: Vec<f64>, want: [f64; 4]| got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near(features(&FeatureMap::Efficient, &x, 2, 2, RULES), [0.25, 0.75, 0.5, 0.5]));
        assert!(near(features(&FeatureMap::SoftmaxDim, &x, 2, 2, RULES), [0.25, 0.75, 0.5, 0.5]));
        let keys = FeatureRules { of_keys: true, ..RULES };
        assert!(near(features(&FeatureMap::Efficient, &x, 2, 2, keys), [0.5, 0.75, 0.5, 0.25]));
    }

    #[test]
    fn number_by_number() {
        let of = |map| features(&map, &[-1.0, 2.0], 1, 2, RULES);
        let e = (-1f64).exp();
        assert_eq!(of(FeatureMap::Elu1), [e, 3.0]);
        assert_eq!(of(FeatureMap::Elu), [e - 1.0, 2.0]);
        assert_eq!(of(FeatureMap::Relu), [0.0, 2.0]);
        assert_eq!(of(FeatureMap::Exp), [e, 2f64.exp()]);
        assert_eq!(of(FeatureMap::Silu), [-1.0 / (1.0 + 1f64.exp()), 2.0 / (1.0 + (-2f64).exp())]);
    }
}
