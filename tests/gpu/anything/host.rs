//! What the host computes beside attention: plans over devices, layouts, moved features, regression, rotary embedding, the search of
//! patterns.

use wgpu_attention::balance::{self, Widths};
use wgpu_attention::patterns::{HeadSearch, rotate_half};
use wgpu_attention::refrag::{self, Slot, Workload};
use wgpu_attention::regression::{gradient_step, optimal_head_weights};
use wgpu_attention::resample::reposition;

use super::draw::{Draw, told};

type Outcome = Result<(), String>;

pub fn case(draw: &mut Draw) -> Outcome {
    let wrong = draw.one_in(2);
    match (draw.below(7), wrong) {
        (0, false) => balanced(draw),
        (1, false) => laid_out(draw),
        (2, false) => saved(draw),
        (3, false) => moved(draw),
        (4, false) => regressed(draw),
        (5, false) => rotated(draw),
        (_, false) => searched(draw),
        (0, true) => wrong_balance(draw),
        (1 | 2, true) => wrong_refrag(draw),
        (_, true) => wrong_rest(draw),
    }
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

fn near(what: &str, got: f64, want: f64) -> Outcome {
    must((got - want).abs() <= 1e-9 * want.abs().max(1.0), || format!("{what}: is {got}, but must be {want}"))
}

const WIDTHS: Widths = Widths { hidden: 64, heads: 8, kv_heads: 2 };

/// Every query of every document is in one task, loads are those of the tasks, and nobody has more than the most loaded had.
fn balanced(draw: &mut Draw) -> Outcome {
    let docs: Vec<Vec<usize>> =
        (0..draw.between(1, 4)).map(|_| (0..draw.below(4)).map(|_| 2 * draw.below(400)).collect()).collect();
    let tolerance = draw.pick(&[0.0, 0.05, 10.0]);
    draw.note((&docs, tolerance));
    let plan = balance::plan(&docs, WIDTHS, tolerance).map_err(|e| e.to_string())?;
    let ranks: Vec<usize> = docs.iter().enumerate().flat_map(|(rank, lens)| vec![rank; lens.len()]).collect();
    let lens: Vec<usize> = docs.concat();
    let mut queries: Vec<Vec<bool>> = lens.iter().map(|&len| vec![false; len]).collect();
    let mut loads = vec![0.0; docs.len()];
    for placed in &plan.tasks {
        let task = placed.task;
        must(placed.src_rank == ranks[task.doc] && task.kv_len == task.q_start + task.q_len, || format!("{placed:?}"))?;
        for query in &mut queries[task.doc][task.q_start..task.kv_len] {
            must(!std::mem::replace(query, true), || format!("{placed:?}: has queries of another task"))?;
        }
        loads[placed.dst_rank] += task.cost() as f64;
    }
    must(queries.iter().flatten().all(|&done| done), || "a query is of no task".into())?;
    for (rank, load) in loads.iter().enumerate() {
        near("load_after", plan.load_after[rank], *load)?;
        let before: f64 = docs[rank].iter().map(|&len| (len * (len + 1) / 2) as f64).sum();
        near("load_before", plan.load_before[rank], before)?;
    }
    let most = |loads: &[f64]| loads.iter().copied().fold(0.0, f64::max);
    must(most(&plan.load_after) <= most(&plan.load_before), || format!("{plan:?}: is worse than before"))
}

fn laid_out(draw: &mut Draw) -> Outcome {
    let (context, chunk, query) = (draw.below(60), draw.between(1, 9), draw.below(5));
    let chunks = context.div_ceil(chunk);
    // Few values, so that there are equal ones.
    let logits: Vec<f32> = draw.words(chunks, 5).into_iter().map(|x| x as f32 - 2.0).collect();
    let fraction = draw.pick(&[0.0, 0.25, 0.5, 1.0]);
    draw.note((context, chunk, query, &logits, fraction));
    let input = refrag::layout(context, chunk, query, &logits, fraction).map_err(|e| e.to_string())?;
    // How many chunks come before one: larger logits, and equal ones before it.
    let before = |n: usize| (0..chunks).filter(|&m| logits[m] > logits[n] || (logits[m] == logits[n] && m < n)).count();
    let expanded: Vec<usize> = (0..chunks).filter(|&n| before(n) < (fraction * chunks as f64) as usize).collect();
    let mut slots = Vec::new();
    for token in 0..context {
        let n = token / chunk;
        if expanded.contains(&n) {
            slots.push(Slot::Token { chunk: n, token });
        } else if token % chunk == 0 {
            slots.push(Slot::Chunk(n));
        }
    }
    let rate = if slots.is_empty() { 1.0 } else { context as f64 / slots.len() as f64 };
    slots.extend((0..query).map(Slot::Query));
    must(input.expanded == expanded && input.slots == slots, || format!("{input:?}, but must be {slots:?}"))?;
    near("effective_rate", input.effective_rate, rate)
}

fn workload(draw: &mut Draw) -> Workload {
    Workload {
        hidden: draw.between(1, 8192),
        layers: draw.between(1, 100),
        params: draw.pick(&[1.0, 6.7e9, 1e300]),
        batch: draw.between(1, 64),
        context: draw.between(1, 1 << 20),
        output: draw.below(4096),
        rate: draw.between(1, 64),
        expand_fraction: draw.pick(&[0.0, 0.25, 1.0]),
    }
}

fn saved(draw: &mut Draw) -> Outcome {
    let w = workload(draw);
    draw.note(w);
    let saved = refrag::cost_model(&w).map_err(|e| e.to_string())?;
    let [hidden, layers, batch, output] = [w.hidden, w.layers, w.batch, w.output].map(|n| n as f64);
    let lens = [w.context as f64, w.context as f64 * ((1.0 - w.expand_fraction) / w.rate as f64 + w.expand_fraction)];
    let [long, short] = lens.map(|x| layers * (24.0 * hidden * hidden * x + 4.0 * hidden * x * x));
    near("ttft_ratio", saved.ttft_ratio, long / short)?;
    let [long, short] = lens.map(|x| 2.0 * hidden * layers * batch * (x + output));
    near("kv_ratio", saved.kv_ratio, long / short)?;
    near("ttit_ratio", saved.ttit_ratio, (long + w.params) / (short + w.params))
}

fn moved(draw: &mut Draw) -> Outcome {
    let ([height, width], channels) = ([draw.below(6), draw.below(6)], draw.between(1, 3));
    let tokens = height * width;
    let x = draw.floats(tokens * channels);
    let one_in = draw.pick(&[2, 9, 1000]);
    let mut mask = || draw.words(tokens, one_in).into_iter().map(|x| x == 0).collect::<Vec<bool>>();
    let (from, to) = (mask(), mask());
    draw.note((height, width, &from, &to));
    let (got, got_mask) = reposition(&x, [height, width], &from, &to).map_err(|e| e.to_string())?;
    let bounds = |mask: &[bool]| {
        let shown: Vec<[usize; 2]> = (0..tokens).filter(|&n| mask[n]).map(|n| [n / width, n % width]).collect();
        let ends = |axis: usize| Some((shown.iter().map(|p| p[axis]).min()?, shown.iter().map(|p| p[axis]).max()? + 1));
        Some([ends(0)?, ends(1)?])
    };
    let Some(to_box) = bounds(&to) else {
        return must(got == x && got_mask == from, || "moved, but there is no target".into());
    };
    for token in 0..tokens {
        let source = bounds(&from).and_then(|from_box| {
            let mut place = [token / width, token % width];
            for axis in 0..2 {
                let ((start, end), (first, last)) = (to_box[axis], from_box[axis]);
                if !(start..end).contains(&place[axis]) {
                    return None;
                }
                place[axis] = first + (place[axis] - start) * (last - first) / (end - start);
            }
            Some(place[0] * width + place[1]).filter(|&n| from[n])
        });
        let want = |c: usize| source.map_or(0.0, |n| x[n * channels + c]);
        let right = got_mask[token] == source.is_some() && (0..channels).all(|c| got[token * channels + c] == want(c));
        must(right, || format!("token {token} must come from {source:?}"))?;
    }
    Ok(())
}

fn regressed(draw: &mut Draw) -> Outcome {
    let wide = |x: Vec<f32>| x.into_iter().map(f64::from).collect::<Vec<f64>>();
    let (dim, examples, step, debias) =
        (draw.between(1, 5), draw.between(1, 12), draw.pick(&[0.5, -2.0]), draw.one_in(2));
    let (x, y, x_query) = (wide(draw.floats(dim * examples)), wide(draw.floats(examples)), wide(draw.floats(dim)));
    let got = gradient_step(&x, &y, &x_query, step, debias).map_err(|e| e.to_string())?;
    let along = |row: &[f64]| row.iter().zip(&x_query).map(|(a, b)| a * b).sum::<f64>();
    let each: Vec<f64> = x.chunks(dim).map(along).collect();
    let mean = if debias { each.iter().sum::<f64>() / examples as f64 } else { 0.0 };
    let sum: f64 = each.iter().zip(&y).map(|(along, y)| y * (along - mean)).sum();
    near("gradient_step", got, step / examples as f64 * sum)?;

    let heads = draw.between(1, 3);
    let omega = wide(draw.floats(heads));
    draw.note((&omega, dim, examples));
    let Some(weights) = optimal_head_weights(&omega, dim, examples, 0.1) else { return Ok(()) };
    let entry = |a: f64, b: f64| a * b + 1.1 / examples as f64 * (dim as f64 * a * b).exp();
    for &a in &omega {
        let terms: Vec<f64> = omega.iter().zip(&weights).map(|(&b, weight)| entry(a, b) * weight).collect();
        let (sum, size) = (terms.iter().sum::<f64>(), terms.iter().map(|x| x.abs()).sum::<f64>() + a.abs());
        must((sum - a).abs() <= 1e-9 * size, || format!("weights {weights:?} give {sum}, but must {a}"))?;
    }
    Ok(())
}

fn rotated(draw: &mut Draw) -> Outcome {
    let (dim, theta) = (draw.between(1, 9), draw.pick(&[10000.0, 1.0, 0.5]));
    let (len, repeats) = (draw.between(1, 5), draw.below(3));
    let positions = draw.words(len, 5000);
    let x = draw.floats(repeats * len * dim);
    draw.note((dim, theta, &positions, repeats));
    let mut got = x.clone();
    rotate_half(&mut got, dim, &positions, theta).map_err(|e| e.to_string())?;
    let half = dim / 2;
    for (n, &got) in got.iter().enumerate() {
        let (row, d) = (n / dim, n % dim);
        let value = |d: usize| f64::from(x[row * dim + d]);
        let pair = d % half.max(1);
        let angle = f64::from(positions[row % len]) * theta.powf(-2.0 * pair as f64 / dim as f64);
        let want = match d {
            _ if d >= 2 * half => value(d),
            _ if d < half => value(pair) * angle.cos() - value(pair + half) * angle.sin(),
            _ => value(pair + half) * angle.cos() + value(pair) * angle.sin(),
        };
        must((f64::from(got) - want).abs() < 1e-6 * want.abs().max(1.0), || format!("number {n}: {got}, not {want}"))?;
    }
    Ok(())
}

/// Of the candidates whose loss is at most eps one of the least, or the first.
fn searched(draw: &mut Draw) -> Outcome {
    let (candidates, heads) = (draw.between(1, 4), draw.below(5));
    let mse: Vec<Vec<f64>> =
        (0..candidates).map(|_| draw.words(heads, 9).into_iter().map(|x| f64::from(x) / 4.0).collect()).collect();
    let sparsity: Vec<f64> = draw.words(candidates, 5).into_iter().map(|x| f64::from(x) / 4.0).collect();
    let (lambda, eps) = (draw.pick(&[0.0, 0.5]), draw.pick(&[0.0, 1.0, 9.0]));
    draw.note((&mse, &sparsity, lambda, eps));
    let search = HeadSearch::assign(mse.clone(), sparsity.clone(), lambda, eps).map_err(|e| e.to_string())?;
    for (h, &mode) in search.mode.iter().enumerate() {
        let loss = |n: usize| mse[n][h] + lambda * (1.0 - sparsity[n]);
        let good: Vec<usize> = (1..candidates).filter(|&n| loss(n) <= eps).collect();
        let right = match mode {
            0 => good.is_empty(),
            n => good.contains(&n) && good.iter().all(|&other| loss(n) <= loss(other)),
        };
        must(right, || format!("head {h} has candidate {mode}"))?;
    }
    let order: Vec<usize> = search.fused_head_order.iter().map(|&h| search.mode[h]).collect();
    let mut heads_seen = search.fused_head_order.clone();
    heads_seen.sort_unstable();
    must(order.is_sorted() && heads_seen == (0..heads).collect::<Vec<_>>(), || format!("{search:?}"))
}

fn wrong_balance(draw: &mut Draw) -> Outcome {
    let docs = [vec![8], vec![2]];
    let plan = |docs: &[Vec<usize>], widths, tolerance| balance::plan(docs, widths, tolerance);
    match draw.below(6) {
        0 => told(plan(&[], WIDTHS, 0.1), &["docs_per_rank: has no rank"]),
        1 => told(plan(&[vec![2 * draw.below(9) + 1]], WIDTHS, 0.1), &["docs_per_rank: document 0"]),
        2 => told(plan(&[vec![draw.pick(&[1 << 25, usize::MAX - 1])]], WIDTHS, 0.1), &["docs_per_rank: document 0"]),
        3 => {
            let [hidden, heads, kv_heads] = draw.pick(&[[0, 8, 2], [64, 0, 2], [64, 8, 0], [63, 8, 2]]);
            told(plan(&docs, Widths { hidden, heads, kv_heads }, 0.1), &["hidden: ", "heads: ", "kv_heads: "])
        }
        _ => told(plan(&docs, WIDTHS, draw.pick(&[-0.1, f64::NAN, f64::INFINITY])), &["tolerance: "]),
    }
}

fn wrong_refrag(draw: &mut Draw) -> Outcome {
    let fraction = draw.pick(&[-0.1, 1.5, f64::NAN]);
    let mut w = workload(draw);
    match draw.below(7) {
        0 => told(refrag::layout(6, 0, 1, &[], 0.5), &["chunk: "]),
        1 => told(refrag::layout(6, 2, 1, &vec![0.0; draw.pick(&[0, 2, 4])], 0.5), &["chunk_logits: has"]),
        2 => told(refrag::layout(6, 2, 1, &[0.0, f32::NAN, 0.0], 0.5), &["chunk_logits: value 1"]),
        3 => told(refrag::layout(6, 2, 1, &[0.0; 3], fraction), &["expand_fraction: "]),
        4 => told(refrag::layout(draw.pick(&[1 << 31, usize::MAX]), 2, 1, &[], 0.5), &["context_tokens: "]),
        5 => {
            let name = draw.below(5);
            *[&mut w.hidden, &mut w.layers, &mut w.batch, &mut w.context, &mut w.rate][name] = 0;
            told(refrag::cost_model(&w), &[["hidden: ", "layers: ", "batch: ", "context: ", "rate: "][name]])
        }
        _ => {
            let params = draw.pick(&[0.0, -1.0, f64::NAN, f64::INFINITY]);
            told(refrag::cost_model(&Workload { params, ..w }), &["params: "])
        }
    }
}

fn wrong_rest(draw: &mut Draw) -> Outcome {
    let mask = vec![true; 6];
    match draw.below(8) {
        0 => told(reposition(&[0.0; 6], [2, 3], &mask[1..], &mask), &["ref_mask: "]),
        1 => told(reposition(&[0.0; 6], [2, 3], &mask, &mask[..3]), &["target_mask: "]),
        2 => told(reposition(&[0.0; 7], [2, 3], &mask, &mask), &["x: "]),
        3 => {
            let huge = draw.pick(&[[usize::MAX, 2], [3, usize::MAX]]);
            told(reposition(&[], huge, &[], &[]), &["ref_mask: "])
        }
        4 => told(gradient_step(&[], &[], &[1.0], 1.0, draw.one_in(2)), &["y: "]),
        5 => told(gradient_step(&vec![0.0; draw.pick(&[0, 3, 7])], &[1.0, 2.0], &[1.0, 1.0], 1.0, true), &["x: "]),
        6 => {
            let (dim, theta) = draw.pick(&[(0, 1e4), (5, 1e4), (4, 0.0), (4, -1.0), (4, f64::NAN), (4, f64::INFINITY)]);
            told(rotate_half(&mut [0.0; 8], dim, &[0, 1], theta), &["x: ", "theta: "])
        }
        _ => {
            let (mse, sparsity) =
                draw.pick(&[(vec![], vec![]), (vec![vec![0.0]], vec![]), (vec![vec![0.0], vec![]], vec![0.0; 2])]);
            told(HeadSearch::assign(mse, sparsity, 0.5, 1.0), &["mse: "])
        }
    }
}
