//! Time against length: softmax attention goes by its square, linear attention by itself. Where they cross.

use std::path::Path;

use plotters::style::RGBColor;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::reference::{
    LinearRules, LinearSizes, Real, Rules, Sizes, check, linear_attention, softmax_attention,
};
use wgpu_attention::{Attention, AttentionIo, Context, DType, Decay, LinearAttention, LinearIo, Mask, Tensor};

use crate::canvas::{Align, Canvas};
use crate::plot::{Axis, Plot, SMALL, TITLE, legend};
use crate::timing;

const DIM: usize = 64;
const SOFTMAX: RGBColor = RGBColor(0x24, 0x45, 0x7c);
const LINEAR: RGBColor = RGBColor(0xc2, 0x4d, 0x2c);

/// Milliseconds of both at each length.
struct Measured {
    lengths: Vec<usize>,
    softmax: Vec<f64>,
    linear: Vec<f64>,
}

/// Measures and draws; returns a sentence.
pub fn draw(ctx: &Context, path: &Path) -> Result<String, String> {
    let cpu = ctx.capabilities().cpu;
    // What a CPU does in seconds, and what keeps a GPU busy.
    let (heads, first, last) = if cpu { (2, 128, 4096) } else { (16, 256, 32768) };
    let mut measured = Measured { lengths: Vec::new(), softmax: Vec::new(), linear: Vec::new() };
    let mut len = first;
    while len <= last {
        let [softmax, linear] = both(ctx, heads, len).map_err(|e| format!("{len} tokens: {e}"))?;
        measured.lengths.push(len);
        measured.softmax.push(1e3 * softmax);
        measured.linear.push(1e3 * linear);
        len *= 2;
    }
    let sentence = match measured.crossing() {
        Some(len) => format!("linear attention is faster from {len:.0} tokens on"),
        None => "the curves do not cross within these lengths".into(),
    };
    paint(&measured, heads, &ctx.device().adapter_info().name, &sentence, path)?;
    Ok(sentence)
}

impl Measured {
    /// Where softmax attention becomes the slower one for good, between two lengths as straight lines of logarithms go.
    fn crossing(&self) -> Option<f64> {
        let gap: Vec<f64> = self.softmax.iter().zip(&self.linear).map(|(s, l)| (s / l).ln()).collect();
        let n = gap.iter().rposition(|&gap| gap <= 0.0)?;
        let after = gap.get(n + 1)?;
        let share = -gap[n] / (after - gap[n]);
        let [a, b] = [self.lengths[n], self.lengths[n + 1]].map(|len| (len as f64).ln());
        Some((a + share * (b - a)).exp())
    }
}

/// Seconds of both, each checked first.
fn both(ctx: &Context, heads: usize, len: usize) -> Result<[f64; 2], String> {
    let text = |e: wgpu_attention::Error| e.to_string();
    let shape = [1, heads, len, DIM];
    let mut rng = rand::rngs::StdRng::seed_from_u64(17);
    let host: [Vec<f32>; 3] =
        std::array::from_fn(|_| StandardNormal.sample_iter(&mut rng).take(shape.iter().product()).collect());
    let upload = |x: &Vec<f32>| Tensor::from_slice(ctx, shape, x).map_err(text);
    let [q, k, v] = [upload(&host[0])?, upload(&host[1])?, upload(&host[2])?];
    let out = Tensor::zeros(ctx, DType::F32, shape).map_err(text)?;
    let repeats = if ctx.capabilities().cpu { 3 } else { 11 };
    let softmax = Attention::new(&q, &k, &v).mask(Mask::causal()).plan(ctx).map_err(text)?;
    let linear = LinearAttention::new(&q, &k, &v).decay(Decay::PerHead(vec![DECAY; heads])).plan(ctx).map_err(text)?;
    let timed = |exact: Vec<f64>, plain: Vec<f64>, record: &mut dyn FnMut(&mut wgpu::CommandEncoder)| {
        let mut encoder = ctx.device().create_command_encoder(&Default::default());
        record(&mut encoder);
        ctx.queue().submit([encoder.finish()]);
        let head = out.narrow(1, heads - 1, 1).map_err(text)?;
        let all: Vec<f32> = pollster::block_on(head.read(ctx)).map_err(text)?;
        let rows = rows(len).into_iter().flat_map(|i| &all[i * DIM..][..DIM]);
        let got: Vec<f64> = rows.map(|&x| x.into()).collect();
        check(&got, &exact, &plain, DType::F32).map_err(|e| format!("is wrong, not drawn: {e}"))?;
        Ok::<f64, String>(timing::median_seconds(ctx, repeats, record))
    };
    let last = host.each_ref().map(|x| &x[(heads - 1) * len * DIM..]);
    let by_softmax = timed(softmax_rows::<f64>(last, len), softmax_rows::<f32>(last, len), &mut |encoder| {
        softmax.encode(encoder, &AttentionIo::new(&q, &k, &v, &out)).expect("the plan was made for these tensors");
    })?;
    let by_linear = timed(linear_rows::<f64>(last, len), linear_rows::<f32>(last, len), &mut |encoder| {
        linear.encode(encoder, &LinearIo::new(&q, &k, &v, &out)).expect("the plan was made for these tensors");
    })?;
    Ok([by_softmax, by_linear])
}

const DECAY: f32 = -0.01;

/// Those that are checked.
fn rows(len: usize) -> Vec<usize> {
    (0..len).step_by(len / 16).chain([len - 1]).collect()
}

fn cast<T: Real>(x: &[f32]) -> Vec<T> {
    x.iter().map(|&x| T::of(x.into())).collect()
}

fn softmax_rows<T: Real>([q, k, v]: [&[f32]; 3], len: usize) -> Vec<f64> {
    let rows = rows(len);
    let q: Vec<T> = rows.iter().flat_map(|&i| cast(&q[i * DIM..][..DIM])).collect();
    let causal = |_: usize, _: usize, i: usize, j: usize| j <= rows[i];
    let scale = |_| T::of((1.0 / (DIM as f32).sqrt()).into());
    let sizes = Sizes { batch: 1, heads: 1, heads_kv: 1, len_q: rows.len(), len_kv: len, head_dim: DIM, v_dim: DIM };
    let rules = Rules { mask: &causal, ..Rules::dense(&scale) };
    softmax_attention(sizes, &q, &cast::<T>(k), &cast::<T>(v), rules).0.into_iter().map(T::to_f64).collect()
}

fn linear_rows<T: Real>([q, k, v]: [&[f32]; 3], len: usize) -> Vec<f64> {
    let sizes = LinearSizes { batch: 1, heads: 1, heads_k: 1, len, steps: 1, dim_k: DIM, dim_v: DIM };
    let decay = |_: usize, _: usize, _: usize, _: usize| T::of(DECAY.into());
    let rules = LinearRules { log_decay: &decay, ..LinearRules::additive(T::of(1.0)) };
    let out = linear_attention(sizes, &cast::<T>(q), &cast::<T>(k), &cast::<T>(v), rules).out;
    rows(len).into_iter().flat_map(|i| out[i * DIM..][..DIM].to_vec()).map(T::to_f64).collect()
}

fn paint(measured: &Measured, heads: usize, device: &str, sentence: &str, path: &Path) -> Result<(), String> {
    let Measured { lengths, softmax, linear } = measured;
    let times = || softmax.iter().chain(linear).copied();
    let power = |x: f64| 10f64.powf(x);
    let (low, high) = (times().fold(f64::MAX, f64::min).log10().floor(), times().fold(0.0, f64::max).log10().ceil());
    let number = |x: f64| if x < 1.0 { format!("{x}") } else { format!("{x:.0}") };
    let marks_y = (low as i32..=high as i32).map(|n| (power(n.into()), number(power(n.into())))).collect();
    let marks_x = lengths.iter().map(|&len| (len as f64, len.to_string())).collect();
    let ends = [lengths[0] as f64, lengths[lengths.len() - 1] as f64];
    let plot = Plot {
        left: 78.0,
        top: 128.0,
        width: 690.0,
        height: 330.0,
        x: Axis { label: "tokens", from: ends[0], to: ends[1], marks: marks_x, logarithmic: true },
        y: Axis { label: "milliseconds", from: power(low), to: power(high), marks: marks_y, logarithmic: true },
    };
    let points = |times: &[f64]| -> Vec<(f64, f64)> {
        lengths.iter().zip(times).map(|(&len, &time)| (len as f64, time)).collect()
    };
    let mut canvas = Canvas::new(820.0, 520.0)?;
    canvas.paint(|brush| {
        brush.text("Time against length: where linear attention is worth it", TITLE, (38.0, 36.0), Align::Start)?;
        let names = [("softmax, causal", SOFTMAX), ("linear, a decay a head", LINEAR)];
        legend(brush, (38.0, 64.0), &names)?;
        let what = format!("{heads} heads of {DIM}, f32, {device}: {sentence}");
        brush.text(&what, SMALL, (38.0, 90.0), Align::Start)?;
        plot.frame(brush)?;
        if let Some(at) = measured.crossing() {
            let x = plot.at((at, power(low))).0;
            brush.line(&[(x, plot.top), (x, plot.top + plot.height)], 1.5, SMALL.color)?;
            brush.text(&format!("{at:.0}"), TITLE, (x + 6.0, plot.top + plot.height - 10.0), Align::Start)?;
        }
        plot.curve(brush, &points(softmax), SOFTMAX)?;
        plot.curve(brush, &points(linear), LINEAR)
    })?;
    canvas.save(path)
}
