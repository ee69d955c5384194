//! The rule a case passes by.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::case::{Array, Case, Data, Tolerance};
use crate::operators::Output;

/// What came of one output.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub output: String,
    pub passed: bool,
    pub elements: usize,
    /// Elements that are further off than they may be.
    pub wrong: usize,
    /// Why nothing could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The element that is furthest off for what it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<Worst>,
}

#[derive(Debug, Serialize)]
pub struct Worst {
    pub index: Vec<usize>,
    pub got: Number,
    pub want: Number,
    pub allowance: f64,
}

/// An element. JSON has no infinities: there they are strings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Float(f32),
    Integer(i64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Debug gives as many digits as tell the value apart, and an exponent where that is shorter.
            Number::Float(x) => write!(f, "{x:?}"),
            Number::Integer(x) => write!(f, "{x}"),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Number::Float(x) if x.is_finite() => serializer.serialize_f32(x),
            Number::Float(x) => serializer.collect_str(&x),
            Number::Integer(x) => serializer.serialize_i64(x),
        }
    }
}

/// Compares every output that the case expects; one that was not computed fails. One may be computed in several ways, all of
/// which count.
pub fn compare_all(case: &Case, outputs: &[Output]) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (name, (want, tolerance)) in &case.expected {
        let computed: Vec<_> =
            outputs.iter().filter(|output| output.name == name).map(|output| &output.array).collect();
        if computed.is_empty() {
            comparisons.push(compare(name, want, None, *tolerance));
        }
        comparisons.extend(computed.into_iter().map(|got| compare(name, want, Some(got), *tolerance)));
    }
    comparisons
}

/// Refuses two runs whose results are not the same, bit by bit.
pub fn same_bits(first: &[Output], second: &[Output]) -> Result<(), String> {
    if first.len() != second.len() {
        return Err(format!("two runs: one has {} outputs, the other {}", first.len(), second.len()));
    }
    for (a, b) in first.iter().zip(second) {
        let differ = match (&a.array.data, &b.array.data) {
            (Data::Floats(a), Data::Floats(b)) => a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits()),
            (Data::Integers(a), Data::Integers(b)) => a.iter().zip(b).position(|(a, b)| a != b),
            _ => Some(0),
        };
        if a.name != b.name || a.array.shape != b.array.shape {
            return Err(format!(
                "two runs: one gives {} of {:?}, the other {} of {:?}",
                a.name, a.array.shape, b.name, b.array.shape
            ));
        }
        if let Some(n) = differ {
            return Err(format!("{}: two runs differ, in number {n} first", a.name));
        }
    }
    Ok(())
}

fn compare(output: &str, want: &Array, got: Option<&Array>, tolerance: Tolerance) -> Comparison {
    match got.ok_or("is expected, but the runner does not compute it".to_string()).and_then(|got| pairs(got, want)) {
        Ok(pairs) => judge(output, &want.shape, &pairs, tolerance),
        Err(problem) => Comparison {
            output: output.to_string(),
            passed: false,
            elements: 0,
            wrong: 0,
            problem: Some(problem),
            worst: None,
        },
    }
}

/// `(got, want)`, element by element.
fn pairs(got: &Array, want: &Array) -> Result<Vec<(Number, Number)>, String> {
    if got.shape != want.shape {
        return Err(format!("has shape {:?}, but must have {:?}", got.shape, want.shape));
    }
    match (&got.data, &want.data) {
        (Data::Floats(got), Data::Floats(want)) => {
            Ok(got.iter().zip(want).map(|(&got, &want)| (Number::Float(got), Number::Float(want))).collect())
        }
        (Data::Integers(got), Data::Integers(want)) => {
            Ok(got.iter().zip(want).map(|(&got, &want)| (Number::Integer(got), Number::Integer(want))).collect())
        }
        (Data::Floats(_), Data::Integers(_)) => Err("holds floats, but must hold integers".into()),
        (Data::Integers(_), Data::Floats(_)) => Err("holds integers, but must hold floats".into()),
    }
}

fn judge(output: &str, shape: &[usize], pairs: &[(Number, Number)], tolerance: Tolerance) -> Comparison {
    let (mut wrong, mut worst) = (0, None);
    for (i, &(got, want)) in pairs.iter().enumerate() {
        let allowance = allowance(want, tolerance);
        let excess = excess(got, want, allowance);
        wrong += usize::from(excess > 1.0);
        if worst.as_ref().is_none_or(|&(most, _)| excess > most) {
            worst = Some((excess, Worst { index: index(i, shape), got, want, allowance }));
        }
    }
    Comparison {
        output: output.to_string(),
        passed: wrong == 0,
        elements: pairs.len(),
        wrong,
        problem: None,
        worst: worst.map(|(_, worst)| worst),
    }
}

/// How far an element may be off: integers and infinities must be exact.
fn allowance(want: Number, tolerance: Tolerance) -> f64 {
    match want {
        Number::Float(want) if want.is_finite() => tolerance.atol + tolerance.rtol * f64::from(want.abs()),
        _ => 0.0,
    }
}

/// The error over what is allowed: above 1 is wrong. Never NaN.
fn excess(got: Number, want: Number, allowance: f64) -> f64 {
    match (got, want) {
        _ if got == want => 0.0,
        (Number::Float(got), Number::Float(want)) if got.is_finite() && want.is_finite() => {
            // Differs, so an allowance of 0 gives infinity.
            (f64::from(got) - f64::from(want)).abs() / allowance
        }
        // NaN, which equals nothing, an infinity that should be another value, or a wrong integer.
        _ => f64::INFINITY,
    }
}

fn index(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, &len) in index.iter_mut().zip(shape).rev() {
        (*place, flat) = (flat % len, flat / len);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::tests::parse;

    const INF: f32 = f32::INFINITY;

    fn floats(got: &[f32], want: &[f32]) -> Comparison {
        let array = |data: &[f32]| Array { shape: vec![data.len()], data: Data::Floats(data.to_vec()) };
        compare("out", &array(want), Some(&array(got)), Tolerance { rtol: 1e-2, atol: 1e-3 })
    }

    fn integers(got: &[i64], want: &[i64]) -> Comparison {
        let array = |data: &[i64]| Array { shape: vec![data.len()], data: Data::Integers(data.to_vec()) };
        // Integers are exact, whatever the tolerance.
        compare("ids", &array(want), Some(&array(got)), Tolerance { rtol: 10.0, atol: 10.0 })
    }

    #[test]
    fn two_runs_must_be_the_same() {
        let of = |x: f32| [Output::new("out", [2], vec![1.0, x])];
        assert!(same_bits(&of(2.0), &of(2.0)).is_ok() && same_bits(&of(f32::NAN), &of(f32::NAN)).is_ok());
        assert_eq!(same_bits(&of(0.0), &of(-0.0)).unwrap_err(), "out: two runs differ, in number 1 first");
        assert!(same_bits(&of(1.0), &[]).is_err());
        assert!(same_bits(&of(1.0), &[Output::new("lse", [2], vec![1.0, 1.0])]).is_err());
        let integers = |x: i64| [Output::integers("mask", [1], vec![x])];
        assert!(same_bits(&integers(1), &integers(1)).is_ok() && same_bits(&integers(1), &integers(2)).is_err());
    }

    #[test]
    fn a_perturbed_value_fails() {
        assert!(floats(&[1.0, 100.0, -INF], &[1.0, 100.0, -INF]).passed);
        assert!(floats(&[1.0109, 99.0], &[1.0, 100.0]).passed);
        let failed = floats(&[1.0, 98.9, 1.02], &[1.0, 100.0, 1.0]);
        let worst = failed.worst.unwrap();
        assert_eq!((failed.passed, failed.wrong, worst.index), (false, 2, vec![2]));
        assert_eq!((worst.got, worst.want), (Number::Float(1.02), Number::Float(1.0)));
        assert!((worst.allowance - 0.011).abs() < 1e-12);
    }

    #[test]
    fn a_nan_fails() {
        let failed = floats(&[5.0, f32::NAN, 3.0], &[1.0, 2.0, 3.0]);
        assert_eq!((failed.wrong, failed.worst.unwrap().index), (2, vec![1]));
        assert!(!floats(&[f32::NAN], &[f32::NAN]).passed && !floats(&[f32::NAN], &[-INF]).passed);
    }

    #[test]
    fn an_infinity_equals_only_itself() {
        for (got, want) in [(-INF, 0.0), (0.0, -INF), (-INF, -1e30), (-1e30, -INF), (INF, -INF), (-INF, INF)] {
            assert!(!floats(&[got], &[want]).passed, "{got} for {want}");
        }
    }

    #[test]
    fn a_wrong_integer_fails() {
        assert!(integers(&[1, i64::MIN], &[1, i64::MIN]).passed);
        let failed = integers(&[1, 3], &[1, 2]);
        assert_eq!((failed.wrong, failed.worst.unwrap().index), (1, vec![1]));
        // These two are the same float.
        assert!(!integers(&[(1 << 53) + 1], &[1 << 53]).passed);
    }

    #[test]
    fn a_wrong_shape_or_kind_fails() {
        assert!(!floats(&[1.0], &[1.0, 1.0]).passed && !floats(&[], &[1.0]).passed);
        let want = Array { shape: vec![2, 1], data: Data::Floats(vec![1.0; 2]) };
        let tolerance = Tolerance { rtol: 0.0, atol: 1.0 };
        let flat = Array { shape: vec![2], ..want.clone() };
        assert!(compare("out", &want, Some(&flat), tolerance).problem.unwrap().contains("[2], but must have [2, 1]"));
        let integers = Array { shape: vec![2, 1], data: Data::Integers(vec![1; 2]) };
        assert!(!compare("out", &want, Some(&integers), tolerance).passed);
        assert!(!compare("out", &integers, Some(&want), tolerance).passed);
    }

    #[test]
    fn a_missing_output_fails() {
        let tensors: [(&str, &[f32]); 2] = [("expected.out", &[1.0]), ("expected.lse", &[2.0])];
        let case = parse(&tensors, &[("params", "{}"), ("rtol", "0"), ("atol", "0")]).unwrap();
        let comparisons = compare_all(&case, &[Output::new("out", [1], vec![1.0])]);
        let failed: Vec<&str> = comparisons.iter().filter(|c| !c.passed).map(|c| &*c.output).collect();
        assert_eq!((comparisons.len(), &failed[..]), (2, &["lse"][..]));
    }

    #[test]
    fn an_index_counts_the_last_dimension_fastest() {
        assert_eq!(index(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(index(5, &[2, 3, 4]), [0, 1, 1]);
        assert_eq!(index(0, &[]), [0usize; 0]);
    }
}
