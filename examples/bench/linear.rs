//! Linear attention: its check and its time.

use rand::SeedableRng;
use rand::rngs::StdRng;
use wgpu_attention::reference::{FeatureRules, LinearRules, LinearSizes, Real, check, features, linear_attention};
use wgpu_attention::{Context, DType, Decay, FeatureMap, LinearAttention, LinearIo, Normalizer, Plan, Tensor};

use crate::cases::Case;
use crate::data::{Data, Rows, upload};
use crate::family::Family;
use crate::verify::read_head;
use crate::ways::Way;
use crate::{Args, Measured};

/// Columns of v that are checked: they do not know of one another. Of more than LONG tokens, 2.
const CHECKED: usize = 8;
const LONG: usize = 8192;

const EPS: f32 = 1e-6;

/// What a family takes besides q, k and v.
struct Gates {
    log_decay: Option<(Tensor, Rows)>,
    beta: Option<(Tensor, Rows)>,
    /// Of cases of one token.
    state: Option<(Tensor, Rows)>,
}

impl Gates {
    fn new(ctx: &Context, case: &Case, family: Family) -> Result<Gates, wgpu_attention::Error> {
        let mut rng = StdRng::seed_from_u64(11);
        let Case { batch, heads, len_q, head_dim, v_dim, dtype, .. } = *case;
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let channels = family.channels(case);
        // As layers make them: the logarithm of a sigmoid, softened (Yang et al. 2024, GLA, section 4.4).
        let soften = |row: &mut [f32]| row.iter_mut().for_each(|x| *x = sigmoid(*x).ln() / 16.0);
        let log_decay = (channels > 0)
            .then(|| upload(ctx, dtype, [batch, heads, len_q, channels], &mut rng, soften))
            .transpose()?;
        let share = |row: &mut [f32]| row.iter_mut().for_each(|x| *x = sigmoid(*x));
        let beta =
            family.is_delta().then(|| upload(ctx, dtype, [batch, heads, len_q, 1], &mut rng, share)).transpose()?;
        let state = (len_q == 1)
            .then(|| upload(ctx, DType::F32, [batch, heads, head_dim, v_dim], &mut rng, |_| {}))
            .transpose()?;
        Ok(Gates { log_decay, beta, state })
    }

    fn io<'a>(&'a self, data: &'a Data) -> LinearIo<'a> {
        let mut io = LinearIo::new(&data.q, &data.k, &data.v, &data.out);
        if let Some((log_decay, _)) = &self.log_decay {
            io = io.log_decay(log_decay);
        }
        if let Some((beta, _)) = &self.beta {
            io = io.beta(beta);
        }
        if let Some((state, _)) = &self.state {
            io = io.state(state);
        }
        io
    }
}

/// Of Lightning Attention: slopes of ALiBi.
fn log_decay_of_head(case: &Case, h: usize) -> f32 {
    -(-8.0 * (h + 1) as f32 / case.heads as f32).exp2()
}

fn scale(case: &Case, family: Family) -> f32 {
    if family == Family::Lightning || family.is_elu1() { 1.0 } else { 1.0 / (case.head_dim as f32).sqrt() }
}

fn describe(case: &Case, family: Family, data: &Data, gates: &Gates) -> LinearAttention {
    let mut linear = LinearAttention::new(&data.q, &data.k, &data.v).scale(scale(case, family));
    if family == Family::Lightning {
        linear = linear.decay(Decay::PerHead((0..case.heads).map(|h| log_decay_of_head(case, h)).collect()));
    }
    if family == Family::Elu1Full {
        linear = linear.not_causal();
    }
    if family.is_elu1() {
        linear = linear.map(FeatureMap::Elu1).normalizer(Normalizer::Add(EPS));
    }
    if let Some((log_decay, _)) = &gates.log_decay {
        let per_channel = family.channels(case) > 1;
        linear = linear.decay(if per_channel {
            Decay::PerChannel(log_decay.into())
        } else {
            Decay::PerToken(log_decay.into())
        });
    }
    if let Some((beta, _)) = &gates.beta {
        linear = linear.delta(beta);
    }
    if let Some((state, _)) = &gates.state {
        linear = linear.state(state);
    }
    linear
}

pub fn measure(
    ctx: &Context,
    case: &Case,
    family: Family,
    data: &Data,
    way: &Way,
    args: &Args,
) -> Result<Measured, String> {
    let gates = Gates::new(ctx, case, family).map_err(|e| e.to_string())?;
    let mut description = describe(case, family, data, &gates);
    if let Some(chunk) = way.chunk {
        description = description.chunk(chunk);
    }
    let plan = description.plan(ctx).map_err(|e| e.to_string())?;
    if args.plan {
        eprintln!("{plan}");
    }
    let rel_err = verify(ctx, case, family, data, &gates, &plan)?;
    let io = gates.io(data);
    let seconds = args.seconds_of_call(ctx, |pass| {
        plan.encode_in(pass, &io).expect("the plan was made for these tensors");
    });
    let path = plan.stages().join(" + ");
    Ok(Measured { seconds, tile_density: None, of_dense: None, rel_err, splits: 1, path })
}

/// Runs once and compares some columns of the first and the last head with the recurrence in f64.
fn verify(ctx: &Context, case: &Case, family: Family, data: &Data, gates: &Gates, plan: &Plan) -> Result<f64, String> {
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, &gates.io(data)).map_err(|e| e.to_string())?;
    ctx.queue().submit([encoder.finish()]);
    let step = case.v_dim.div_ceil(if case.len_q > LONG { 2 } else { CHECKED });
    let columns: Vec<usize> = (0..case.v_dim).step_by(step).chain([case.v_dim - 1]).collect();
    let heads = [[0, 0], [case.batch - 1, case.heads - 1]];
    // Side by side: a long recurrence takes seconds.
    let exact_and_plain = std::thread::scope(|scope| {
        let columns = &columns[..];
        let started = heads.map(|at| {
            let exact = scope.spawn(move || oracle::<f64>(case, family, data, gates, at, columns));
            (exact, scope.spawn(move || oracle::<f32>(case, family, data, gates, at, columns)))
        });
        started.map(|(exact, plain)| [exact, plain].map(|thread| thread.join().expect("the oracle does not panic")))
    });
    let mut worst: f64 = 0.0;
    for ([b, h], [exact, plain]) in heads.into_iter().zip(exact_and_plain) {
        let states = gates.state.iter().map(|(state, _)| state);
        for (n, tensor) in [&data.out].into_iter().chain(states).enumerate() {
            let head = read_head(ctx, tensor, b, h)?;
            let rows = head.chunks(case.v_dim);
            let got: Vec<f64> = rows.flat_map(|row| columns.iter().map(|&e| f64::from(row[e]))).collect();
            let error = check(&got, &exact[n], &plain[n], tensor.layout().dtype()).map_err(|e| {
                let what = ["out", "the state"][n];
                format!("{what} of head {h} of batch {b} is wrong ({e}): not timed")
            })?;
            worst = worst.max(error / exact[n].iter().fold(f64::MIN_POSITIVE, |m, x| m.max(x.abs())));
        }
    }
    Ok(worst)
}

/// These columns of a head's out and of its state after the last token, by the recurrence.
fn oracle<T: Real>(
    case: &Case,
    family: Family,
    data: &Data,
    gates: &Gates,
    [b, h]: [usize; 2],
    columns: &[usize],
) -> [Vec<f64>; 2] {
    let (len, bh, channels) = (case.len_q, b * case.heads + h, family.channels(case));
    let read = |rows: &Rows, first: usize, count: usize| -> Vec<T> {
        rows.read(first, count).into_iter().map(|x| T::of(x.into())).collect()
    };
    let of_columns =
        |rows: Vec<T>| -> Vec<T> { rows.chunks(case.v_dim).flat_map(|row| columns.iter().map(|&e| row[e])).collect() };
    let [mut q, mut k, v] = [0, 1, 2].map(|n| read(&data.host[n], bh * len, len));
    if family.is_elu1() {
        let none = FeatureRules { omega: &[], longest: len, scale: T::of(1.0), of_keys: false };
        [q, k] = [q, k].map(|x| features(&FeatureMap::Elu1, &x, len, case.head_dim, none));
    }
    let of_gate = |gate: &Option<(Tensor, Rows)>| gate.as_ref().map(|(_, rows)| read(rows, bh * len, len));
    let decays = of_gate(&gates.log_decay);
    let of_head = if family == Family::Lightning { log_decay_of_head(case, h) } else { 0.0 };
    let log_decay = |_: usize, _: usize, t: usize, d: usize| match &decays {
        Some(decays) => decays[t * channels + d % channels],
        None => T::of(of_head.into()),
    };
    let beta = of_gate(&gates.beta);
    let states = gates.state.as_ref();
    let initial = states.map(|(_, rows)| of_columns(read(rows, bh * case.head_dim, case.head_dim)));
    let sizes =
        LinearSizes { batch: 1, heads: 1, heads_k: 1, len, steps: 1, dim_k: case.head_dim, dim_v: columns.len() };
    let rules = LinearRules {
        log_decay: &log_decay,
        beta: beta.as_deref(),
        normalizer: if family.is_elu1() { Normalizer::Add(EPS) } else { Normalizer::None },
        initial_state: initial.as_deref(),
        ..LinearRules::additive(T::of(scale(case, family).into()))
    };
    let v = of_columns(v);
    let mut result = linear_attention(sizes, &q, &k, &v, rules);
    if family == Family::Elu1Full {
        // What is not causal reads the last state: keys of 0 leave it as it is.
        let rules = LinearRules { initial_state: Some(&result.state), initial_z: Some(&result.z), ..rules };
        result = linear_attention(sizes, &q, &vec![T::of(0.0); k.len()], &v, rules);
    }
    [result.out, result.state].map(|values| values.into_iter().map(T::to_f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use crate::family::tokens;

    #[test]
    fn work_by_hand() {
        let cases = cases::read(None).unwrap();
        let work = |name: &str| {
            let case = cases.iter().find(|case| case.name == name).unwrap();
            [case.flops(), case.bytes()].map(|x| x / tokens(case))
        };
        // 128 x 128 of state, chunks of 64, f16.
        assert_eq!(work("lightning_f16_b4_h32_n4096_d128"), [65536.0 + 32768.0, 1024.0]);
        assert_eq!(work("gla_f16_b4_h32_n2048_d128"), [98304.0, 1280.0]);
        let [flops, bytes] = work("kda_f16_b4_h32_n2048_d128");
        assert!((flops - (98304.0 + 81920.0 + 4096.0 / 3.0)).abs() < 1e-6 && bytes == 1282.0);
        assert_eq!(work("decode_gated_delta_f16_b64_h32_d128"), [7.0 * 16384.0, 8.0 * 16384.0 + 1028.0]);
    }

    #[test]
    fn every_family_has_a_case() {
        let cases = cases::read(None).unwrap();
        for family in
            ["lightning", "simple_gla", "gla", "delta", "gated_delta", "kda", "elu1", "elu1_full"].map(Family::of)
        {
            assert!(family.is_some() && cases.iter().any(|case| case.linear == family), "{family:?}");
        }
    }
}
