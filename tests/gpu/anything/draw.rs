//! Choices: numbers that a case is decoded from, 0 being the simplest, so that shrinking them shrinks the case.

use half::f16;
use wgpu_attention::reference::allowed;
use wgpu_attention::{DType, Error, Layout, Result, Tensor};

use crate::data;
use crate::support::{ctx, download};

pub struct Draw {
    choices: std::vec::IntoIter<u32>,
    /// Whether a mask with tensors was drawn: there may be one of each kind.
    pub tensors_in_mask: bool,
    /// Whether tensors have holes; drawn for each where nothing is said.
    pub strided: Option<bool>,
    /// What was drawn, for whom a failure is told.
    pub log: Vec<String>,
}

impl Draw {
    pub fn new(choices: Vec<u32>) -> Draw {
        Draw { choices: choices.into_iter(), tensors_in_mask: false, strided: None, log: Vec::new() }
    }

    /// 0 to below n; 0 where choices have run out.
    pub fn below(&mut self, n: usize) -> usize {
        self.choices.next().unwrap_or(0) as usize % n
    }

    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// One in n.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub fn maybe<T>(&mut self, draw: impl FnOnce(&mut Draw) -> T) -> Option<T> {
        self.one_in(2).then(|| draw(self))
    }

    pub fn note(&mut self, what: impl std::fmt::Debug) {
        self.log.push(format!("{what:?}"));
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        data::normal(self.below(1000) as u64, count)
    }

    pub fn words(&mut self, count: usize, below: u32) -> Vec<u32> {
        let seed = self.below(1000) as u32;
        (0..count as u32).map(|i| (i.wrapping_mul(2654435761).wrapping_add(seed * 40503) >> 7) % below).collect()
    }

    /// A layout over a buffer with holes: dimensions in any order, padded, from any offset.
    pub fn layout(&mut self, dtype: DType, shape: [usize; 4]) -> Layout {
        let strided = self.one_in(3);
        if !self.strided.unwrap_or(strided) {
            return Layout::new(dtype, shape).unwrap();
        }
        let order = self.pick(&[[3, 2, 1, 0], [3, 1, 2, 0], [2, 3, 1, 0], [0, 1, 2, 3]]);
        let (mut stride, mut strides) = (1, [0; 4]);
        for dim in order {
            strides[dim] = stride;
            let pad = self.pick(&[0, 1, 4]);
            stride = (stride * shape[dim].max(1) + pad).max(1);
        }
        let offset = self.pick(&[0, 1, 4, 64, 67]);
        let layout = Layout::strided(dtype, shape, strides, offset).unwrap();
        self.note(layout);
        layout
    }

    /// A tensor with these values, and NaN wherever it does not look.
    pub fn tensor(&mut self, dtype: DType, shape: [usize; 4], values: &[f32]) -> Tensor {
        let layout = self.layout(dtype, shape);
        let mut all = vec![f32::NAN; layout.end() + 1];
        let ([nb, nh, nl, nd], s) = (shape, layout.strides());
        let mut values = values.iter();
        for (b, h, l, d) in indices([nb, nh, nl, nd]) {
            all[layout.offset() + b * s[0] + h * s[1] + l * s[2] + d * s[3]] = *values.next().unwrap();
        }
        place(layout, &all)
    }

    /// A tensor to be written, of NaN.
    pub fn output(&mut self, dtype: DType, shape: [usize; 4]) -> Tensor {
        let layout = self.layout(dtype, shape);
        place(layout, &vec![f32::NAN; layout.end() + 1])
    }
}

pub fn indices([nb, nh, nl, nd]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..nb * nh * nl * nd).map(move |n| (n / nd / nl / nh, n / nd / nl % nh, n / nd % nl, n % nd))
}

fn place(layout: Layout, all: &[f32]) -> Tensor {
    let whole = [1, 1, 1, all.len()];
    let whole = match layout.dtype() {
        DType::F16 => Tensor::from_slice(ctx(), whole, &all.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()),
        _ => Tensor::from_slice(ctx(), whole, all),
    };
    Tensor::from_buffer(whole.unwrap().buffer(), layout).unwrap()
}

/// The values that a tensor of this type holds.
pub fn rounded(dtype: DType, values: Vec<f32>) -> Vec<f32> {
    match dtype {
        DType::F16 => values.into_iter().map(|x| f16::from_f32(x).to_f32()).collect(),
        _ => values,
    }
}

/// Whether a result is right. Cases are small, so that the plain formula is often right to the last place by luck: besides
/// what the tolerance rule allows, by which precision is judged elsewhere, some places of the largest number.
pub fn right(name: &str, got: &Tensor, exact: &[f64], plain: &[f64]) -> std::result::Result<(), String> {
    let values = download(ctx(), got).map_err(|e| format!("{name}: {e}"))?;
    near(name, got.layout().dtype(), &values, exact, plain)
}

/// Likewise, of values as a tensor of this type held them.
pub fn near(name: &str, dtype: DType, got: &[f64], exact: &[f64], plain: &[f64]) -> std::result::Result<(), String> {
    if got.len() != exact.len() {
        return Err(format!("{name}: {} values, but {} are exact", got.len(), exact.len()));
    }
    let largest = exact.iter().filter(|x| x.is_finite()).fold(1.0f64, |m, x| m.max(x.abs()));
    let place = if dtype == DType::F16 { 2f64.powi(-9) } else { 2f64.powi(-15) };
    let allowed = 4.0 * allowed(exact, plain, dtype) + place * largest;
    for (i, (got, exact)) in got.iter().zip(exact).enumerate() {
        let error = if got == exact { 0.0 } else { (got - exact).abs() };
        if error.is_nan() || error > allowed {
            return Err(format!("{name}: element {i} is {got}, but must be {exact} within {allowed:.3e}"));
        }
    }
    Ok(())
}

/// An error that names one of these arguments in its sentence, and is one.
pub fn told<T>(result: Result<T>, names: &[&str]) -> std::result::Result<(), String> {
    let Err(error) = result else { return Err(format!("accepted, but is wrong: {names:?}")) };
    let sentence = error.to_string();
    let named = names.iter().any(|name| sentence.starts_with(name));
    let ours = !matches!(error, Error::Device(_) | Error::Lost(_) | Error::Read(_));
    if named && ours && !sentence.contains('\n') && sentence.contains(' ') {
        return Ok(());
    }
    Err(format!("{error:?}, but should name one of {names:?}"))
}
