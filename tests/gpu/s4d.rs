//! Diagonal state spaces against f64, far beyond where f32 angles end.

use half::f16;
use wgpu_attention::{DType, Discretization, Layout, S4d, S4dInit, S4dParams, Tensor};

use crate::data;
use crate::errors::refused;
use crate::support::{contexts, ctx};

fn params(channels: usize, init: S4dInit, d_state: usize, discretization: Discretization) -> S4dParams {
    let poles = init.poles(d_state).unwrap();
    let count = channels * poles.len();
    let pairs = |seed| data::normal(seed, 2 * count).chunks(2).map(|x| [x[0], x[1]]).collect::<Vec<_>>();
    S4dParams {
        log_dt: data::normal(1, channels).iter().map(|x| -4.5 + x).collect(),
        a: poles.repeat(channels),
        b: pairs(2),
        c: pairs(3),
        d: data::normal(4, channels),
        discretization,
    }
}

type Complex = [f64; 2];

fn product(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

fn inverse(a: Complex) -> Complex {
    let by = a[0] * a[0] + a[1] * a[1];
    [a[0] / by, -a[1] / by]
}

/// Each mode's transition and input weight in discrete time.
fn discrete(p: &S4dParams) -> Vec<(Complex, Complex)> {
    let states = p.a.len() / p.log_dt.len();
    let wide = |x: [f32; 2]| x.map(f64::from);
    (0..p.a.len())
        .map(|n| {
            let dt = f64::from(p.log_dt[n / states]).exp();
            let [re, im] = wide(p.a[n]);
            let (step, input) = match p.discretization {
                Discretization::ZeroOrderHold => {
                    let r = (dt * re).exp();
                    let step = [r * (dt * im).cos(), r * (dt * im).sin()];
                    (step, product([step[0] - 1.0, step[1]], inverse([re, im])))
                }
                _ => {
                    let below = inverse([1.0 - 0.5 * dt * re, -0.5 * dt * im]);
                    (product([1.0 + 0.5 * dt * re, 0.5 * dt * im], below), product([dt, 0.0], below))
                }
            };
            (step, product(input, wide(p.b[n])))
        })
        .collect()
}

/// The recurrence, step by step: outputs of `[batch, channels, len]` and the state after.
pub fn recurrence(p: &S4dParams, u: &[f64], batch: usize, len: usize) -> (Vec<f64>, Vec<f64>) {
    let (channels, modes) = (p.log_dt.len(), discrete(p));
    let states = p.a.len() / channels;
    let (mut y, mut ended) = (vec![0.0; u.len()], Vec::new());
    for bh in 0..batch * channels {
        let h = bh % channels;
        let mut x = vec![[0.0; 2]; states];
        for i in 0..len {
            let input = u[bh * len + i];
            let mut sum = p.d.get(h).copied().map_or(0.0, f64::from) * input;
            for (n, x) in x.iter_mut().enumerate() {
                let (step, weight) = modes[h * states + n];
                let moved = product(step, *x);
                *x = [moved[0] + weight[0] * input, moved[1] + weight[1] * input];
                sum += 2.0 * product(p.c[h * states + n].map(f64::from), *x)[0];
            }
            y[bh * len + i] = sum;
        }
        ended.extend(x.into_iter().flatten());
    }
    (y, ended)
}

fn read(tensor: &Tensor) -> Vec<f32> {
    pollster::block_on(tensor.read(ctx())).unwrap()
}

fn apart(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(1e-30, |most: f64, x| most.max(x.abs()));
    got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max) / most
}

/// A kernel of 200 000 steps, whose last angles are 10^5 and more: poles on the imaginary axis forget nothing.
#[test]
fn kernels_that_end_far_away() {
    let mut p = params(2, S4dInit::Lin, 16, Discretization::ZeroOrderHold);
    for pole in &mut p.a {
        // The oracle divides by them.
        *pole = [0.0, pole[1].min(-1e-6)];
    }
    let len = 200_000;
    let got = read(&p.kernel(ctx(), len).unwrap());
    let modes = discrete(&p);
    for l in (0..1000).chain(len - 1000..len) {
        for h in 0..2 {
            let want: f64 = (h * 8..(h + 1) * 8)
                .map(|n| {
                    let (_, weight) = modes[n];
                    let angle = f64::from(p.log_dt[h]).exp() * f64::from(p.a[n][1]) * l as f64;
                    2.0 * product(product(p.c[n].map(f64::from), weight), [angle.cos(), angle.sin()])[0]
                })
                .sum();
            let got = f64::from(got[h * len + l]);
            assert!((got - want).abs() < 2e-6, "l {l}: {got} is not {want}");
        }
    }
}

/// One chunk, several, the last one short; both discretizations, all poles; with a state and without, on every context.
#[test]
fn layers_are_the_recurrence() {
    for (n, (init, discretization, len)) in [
        (S4dInit::Lin, Discretization::ZeroOrderHold, 1),
        (S4dInit::Inv, Discretization::Bilinear, 256),
        (S4dInit::Legs, Discretization::ZeroOrderHold, 257),
        (S4dInit::Real, Discretization::Bilinear, 1000),
        (S4dInit::Quad, Discretization::ZeroOrderHold, 577),
    ]
    .into_iter()
    .enumerate()
    {
        let (batch, channels, d_state) = (2, 3, [2, 10, 64, 14, 32][n]);
        let p = params(channels, init, d_state, discretization);
        let u = data::normal(10 + n as u64, batch * channels * len);
        let wide: Vec<f64> = u.iter().map(|&x| f64::from(x)).collect();
        let (y, ended) = recurrence(&p, &wide, batch, len);
        let u = Tensor::from_slice(ctx(), [batch, channels, len, 1], &u).unwrap();
        let out = apart(&read(&S4d::new(&u, p.clone()).run(ctx()).unwrap()), &y);
        assert!(out < 5e-6, "{init:?}, {len}: off by {out}");
        let state = Tensor::zeros(ctx(), DType::F32, [batch, channels, d_state / 2, 2]).unwrap();
        let out = apart(&read(&S4d::new(&u, p.clone()).state(&state).run(ctx()).unwrap()), &y);
        assert!(out < 5e-6, "{init:?}, {len} with a state: off by {out}");
        let state = apart(&read(&state), &ended);
        assert!(state < 5e-6, "{init:?}, {len}: the state is off by {state}");
    }
}

/// `[batch, len, channels]`, f16, token by token after a first piece.
#[test]
fn streams_of_strided_halves() {
    let (channels, len) = (5, 100);
    let p = params(channels, S4dInit::Lin, 8, Discretization::ZeroOrderHold);
    let host: Vec<f16> = data::normal(20, channels * len).into_iter().map(f16::from_f32).collect();
    let wide: Vec<f64> = (0..channels * len).map(|n| host[n % len * channels + n / len].to_f64()).collect();
    let (y, _) = recurrence(&p, &wide, 1, len);
    for (name, ctx) in contexts() {
        if !ctx.capabilities().f16 {
            continue;
        }
        let u = Tensor::from_slice(&ctx, [1, 1, len, channels], &host).unwrap();
        let u = u.transpose(1, 3).unwrap();
        let state = Tensor::zeros(&ctx, DType::F32, [1, channels, 4, 2]).unwrap();
        let mut start = 0;
        for n in [70, 1, 1, 28] {
            let out = S4d::new(&u.narrow(2, start, n).unwrap(), p.clone()).state(&state).run(&ctx).unwrap();
            let out: Vec<f16> = pollster::block_on(out.read(&ctx)).unwrap();
            let out: Vec<f32> = out.into_iter().map(f16::to_f32).collect();
            let want: Vec<f64> = (0..channels * n).map(|m| y[m / n * len + start + m % n]).collect();
            let apart = apart(&out, &want);
            assert!(apart < 1e-3, "{name}, from {start}: off by {apart}");
            start += n;
        }
    }
}

#[test]
fn bad_input_gets_a_sentence() {
    let p = params(3, S4dInit::Lin, 8, Discretization::ZeroOrderHold);
    let layout = |shape: [usize; 4]| Layout::new(DType::F32, shape).unwrap();
    let u = layout([2, 3, 10, 1]);
    refused(
        S4d::new(layout([2, 4, 10, 1]), p.clone()).plan(ctx()),
        "u: shape is [2, 4, 10, 1], but must be [batch, channels, len, 1] (channels 3)",
    );
    refused(
        S4d::new(Layout::new(DType::U32, [2, 3, 10, 1]).unwrap(), p.clone()).plan(ctx()),
        "u: is u32, but must be f32 or f16",
    );
    refused(
        S4d::new(u, p.clone()).state(layout([2, 3, 8, 2])).plan(ctx()),
        "state: shape is [2, 3, 8, 2], but must be [batch, channels, states, 2] ([2, 3, 4, 2])",
    );
    let half = Layout::new(DType::F16, [2, 3, 4, 2]).unwrap();
    refused(S4d::new(u, p.clone()).state(half).plan(ctx()), "state: is f16, but states are f32");
    let changed = |change: fn(&mut S4dParams)| {
        let mut p = p.clone();
        change(&mut p);
        S4d::new(u, p).plan(ctx())
    };
    refused(changed(|p| p.a.truncate(11)), "a: has 11 poles, but must have as many for each channel (channels 3)");
    refused(changed(|p| p.c.truncate(11)), "c: has 11 numbers, but must have one a pole (12)");
    refused(changed(|p| p.d = vec![1.0]), "d: has 1 numbers, but must have none, or one a channel (channels 3)");
    refused(changed(|p| p.log_dt[1] = f32::NAN), "log_dt: has a number that is not finite");
    refused(changed(|p| p.a[5][0] = 0.5), "a: pole 5 has the real part 0.5, but must not grow (at most 0)");
    refused(changed(|p| p.a.clear()), "a: has 0 poles, but must have as many for each channel (channels 3)");
    refused(
        S4dParams { a: vec![[-1.0, 0.0]; 300], log_dt: vec![0.0], ..S4dParams::default() }.kernel(ctx(), 4),
        "a: has 300 poles a channel, but at most 256 are taken",
    );
    // Nothing to compute leaves the state as it was.
    let u = Tensor::zeros(ctx(), DType::F32, [1, 3, 0, 1]).unwrap();
    let state = Tensor::from_slice(ctx(), [1, 3, 4, 2], &[2.0f32; 24]).unwrap();
    assert!(read(&S4d::new(&u, p).state(&state).run(ctx()).unwrap()).is_empty());
    assert_eq!(read(&state), [2.0; 24]);
}
