//! One case on burn's wgpu backend: the first result, its error, the time of later ones.

use std::time::{Duration, Instant};

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, DeviceKind, Distribution, FloatDType, Tensor};

use crate::case::{Case, DType};

/// Clocks of a resting card take this long to rise.
const WARM_UP: Duration = Duration::from_millis(350);
/// Calls go behind one another until they fill this, so that submitting and waiting weigh little.
const FILLED: f64 = 0.02;
const MOST_CALLS: usize = 200;

pub struct Measured {
    /// From the first call to its result: compilation and autotuning.
    pub first: f64,
    pub rel_err: f64,
    /// Of one call: the median over repetitions.
    pub seconds: f64,
}

pub fn measure(case: &Case, repeats: usize) -> Result<Measured, String> {
    #[cfg(feature = "spirv")]
    let device = Device::vulkan(DeviceKind::DefaultDevice);
    #[cfg(not(feature = "spirv"))]
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let random = |len: usize, dim: usize| {
        let x = Tensor::<4>::random([case.batch, case.heads, len, dim], Distribution::Normal(0.0, 1.0), &device);
        if case.dtype == DType::F16 { x.cast(FloatDType::F16) } else { x }
    };
    let q = random(case.len_q, case.head_dim);
    let k = random(case.len_kv(), case.head_dim);
    let v = random(case.len_kv(), case.v_dim());
    let sync = || device.sync().map_err(|e| format!("{e:?}"));
    let options = AttentionModuleOptions { is_causal: case.is_causal(), ..Default::default() };
    let call = || attention(q.clone(), k.clone(), v.clone(), None, None, options);
    sync()?;

    let started = Instant::now();
    let out = call();
    sync()?;
    let first = started.elapsed().as_secs_f64();

    let rel_err = rel_err(case, [&q, &k, &v, &out])?;
    let bound = if case.dtype == DType::F16 { 1e-2 } else { 1e-3 };
    if rel_err.is_nan() || rel_err > bound {
        return Err(format!("is wrong by {rel_err:.1e} of the largest value: not timed"));
    }
    drop(out);

    let filled = |calls: usize| -> Result<f64, String> {
        let started = Instant::now();
        for _ in 0..calls {
            drop(call());
        }
        sync()?;
        Ok(started.elapsed().as_secs_f64())
    };
    let started = Instant::now();
    let mut once = filled(1)?;
    while started.elapsed() < WARM_UP {
        once = filled(1)?;
    }
    let calls = ((FILLED / once).ceil() as usize).clamp(1, MOST_CALLS);
    let mut seconds =
        (0..repeats.max(1)).map(|_| Ok(filled(calls)? / calls as f64)).collect::<Result<Vec<f64>, String>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(Measured { first, rel_err, seconds: seconds[seconds.len() / 2] })
}

/// Some rows of the first and the last head against the formula in f64, over the largest value.
fn rel_err(case: &Case, [q, k, v, out]: [&Tensor<4>; 4]) -> Result<f64, String> {
    let (head_dim, v_dim) = (case.head_dim, case.v_dim());
    let step = (case.len_q / 24).max(1);
    let mut worst: f64 = 0.0;
    for (b, h) in [(0, 0), (case.batch - 1, case.heads - 1)] {
        let [q, k, v, out] = [read(q, b, h)?, read(k, b, h)?, read(v, b, h)?, read(out, b, h)?];
        let (mut error, mut largest): (f64, f64) = (0.0, f64::MIN_POSITIVE);
        for i in (0..case.len_q).step_by(step).chain([case.len_q - 1]) {
            let scores: Vec<f64> = (0..case.seen(i))
                .map(|j| {
                    let products = q[i * head_dim..][..head_dim].iter().zip(&k[j * head_dim..]).map(|(a, b)| a * b);
                    products.sum::<f64>() / (head_dim as f64).sqrt()
                })
                .collect();
            let most = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..v_dim {
                let exact = weights.iter().enumerate().map(|(j, w)| w * v[j * v_dim + d]).sum::<f64>() / total;
                let difference = (out[i * v_dim + d] - exact).abs();
                // max() would lose a NaN.
                error = if difference.is_nan() { f64::NAN } else { error.max(difference) };
                if error.is_nan() {
                    return Ok(error);
                }
                largest = largest.max(exact.abs());
            }
        }
        worst = worst.max(error / largest);
    }
    Ok(worst)
}

/// One head, on the host.
fn read(x: &Tensor<4>, b: usize, h: usize) -> Result<Vec<f64>, String> {
    let head = x.clone().slice([b..b + 1, h..h + 1]).cast(FloatDType::F32);
    let values = head.into_data().try_to_vec::<f32>().map_err(|e| format!("{e:?}"))?;
    Ok(values.into_iter().map(f64::from).collect())
}
