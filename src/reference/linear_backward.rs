//! Gradients of linear attention, token by token, from the last to the first.

use super::Real;
use super::linear::{LinearRules, LinearSizes, add, transposed, update};

/// What [`linear_attention_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearBackwardResult<T> {
    /// `[batch, heads_k, len, dim_k]`, summed over the value heads that share a key head.
    pub dq: Vec<T>,
    /// `[batch, heads_k, len * steps, dim_k]`, likewise.
    pub dk: Vec<T>,
    /// `[batch, heads, len * steps, dim_v]`.
    pub dv: Vec<T>,
    /// `[batch, heads, len, dim_k]`: of a decay a token, the sum of a row.
    pub d_log_decay: Vec<T>,
    /// `[batch, heads, len * steps]`, of the delta rule.
    pub d_beta: Vec<T>,
    /// `[batch, heads, dim_k, dim_v]`.
    pub d_initial_state: Vec<T>,
}

/// Gradients of `sum(out * d_out) + sum(state * d_state)` of [`linear_attention`](super::linear_attention) without a denominator. E is the
/// gradient of the state after what is being looked at; through a step, `du = E^T k`, `dk = E u` and, by the delta rule, `dv = beta du`,
/// `dbeta = du.(v - S~^T k)`, `dk -= S~ dv`, `E -= k dv^T`; through the decay, `dlog_decay = sum_e E S~`, `E = Diag(e^log_decay) E`.
pub fn linear_attention_backward<T: Real>(
    sizes: LinearSizes,
    [q, k, v]: [&[T]; 3],
    rules: LinearRules<'_, T>,
    d_out: &[T],
    d_state: Option<&[T]>,
) -> LinearBackwardResult<T> {
    let LinearSizes { batch, heads, heads_k, len, steps, dim_k, dim_v } = sizes;
    let zeros = |n: usize| vec![T::of(0.0); n];
    let rows = len * steps;
    let mut g = LinearBackwardResult {
        dq: zeros(q.len()),
        dk: zeros(k.len()),
        dv: zeros(v.len()),
        d_log_decay: zeros(batch * heads * len * dim_k),
        d_beta: zeros(rules.beta.map_or(0, <[T]>::len)),
        d_initial_state: Vec::new(),
    };
    for bh in 0..batch * heads {
        let (b, h) = (bh / heads, bh % heads);
        let key_head = b * heads_k + h / (heads / heads_k);
        let key = |row: usize| &k[(key_head * rows + row) * dim_k..][..dim_k];
        let value = |row: usize| &v[(bh * rows + row) * dim_v..][..dim_v];
        let beta = |row: usize| rules.beta.map(|beta| beta[bh * rows + row]);
        let decay = |t: usize, d: usize| (rules.log_decay)(b, h, t, d).exp();
        let of_head = |values: Option<&[T]>| match values {
            Some(values) => values[bh * dim_k * dim_v..][..dim_k * dim_v].to_vec(),
            None => zeros(dim_k * dim_v),
        };

        // Forward: the state that each step finds, already decayed.
        let mut state = of_head(rules.initial_state);
        let mut found = Vec::new();
        for row in 0..rows {
            if row % steps == 0 {
                scale_rows(&mut state, dim_v, |d| decay(row / steps, d));
            }
            found.push(state.clone());
            let u = update(&state, key(row), value(row), beta(row));
            add(&mut state, key(row), &u);
        }

        // Backward.
        let mut e = of_head(d_state);
        for t in (0..len).rev() {
            let scaled: Vec<T> = d_out[(bh * len + t) * dim_v..][..dim_v].iter().map(|&x| x * rules.scale).collect();
            let query = (key_head * len + t) * dim_k;
            // What the query read.
            let last = (t + 1) * steps - 1;
            let mut after = found[last].clone();
            add(&mut after, key(last), &update(&found[last], key(last), value(last), beta(last)));
            sum_into(&mut g.dq[query..][..dim_k], &times(&after, &scaled));
            add(&mut e, &q[query..][..dim_k], &scaled);
            for row in (t * steps..=last).rev() {
                let before = &found[row];
                let u = update(before, key(row), value(row), beta(row));
                let du = transposed(&e, key(row));
                let dk = &mut g.dk[(key_head * rows + row) * dim_k..][..dim_k];
                let dv = &mut g.dv[(bh * rows + row) * dim_v..][..dim_v];
                sum_into(dk, &times(&e, &u));
                sum_into(dv, &du);
                if let Some(beta) = beta(row) {
                    let held = transposed(before, key(row));
                    let off = value(row).iter().zip(held).map(|(&v, held)| v - held);
                    g.d_beta[bh * rows + row] = du.iter().zip(off).fold(T::of(0.0), |sum, (&du, off)| sum + du * off);
                    dv.iter_mut().for_each(|x| *x = beta * *x);
                    let negative: Vec<T> = dv.iter().map(|&x| T::of(0.0) - x).collect();
                    sum_into(dk, &times(before, &negative));
                    add(&mut e, key(row), &negative);
                }
            }
            for d in 0..dim_k {
                let (e, found) = (&e[d * dim_v..][..dim_v], &found[t * steps][d * dim_v..][..dim_v]);
                g.d_log_decay[(bh * len + t) * dim_k + d] =
                    e.iter().zip(found).fold(T::of(0.0), |sum, (&e, &s)| sum + e * s);
            }
            scale_rows(&mut e, dim_v, |d| decay(t, d));
        }
        g.d_initial_state.extend(e);
    }
    g
}

/// `S y`.
fn times<T: Real>(state: &[T], y: &[T]) -> Vec<T> {
    let row_by = |row: &[T]| row.iter().zip(y).fold(T::of(0.0), |sum, (&s, &y)| sum + s * y);
    state.chunks(y.len()).map(row_by).collect()
}

fn sum_into<T: Real>(to: &mut [T], x: &[T]) {
    to.iter_mut().zip(x).for_each(|(to, &x)| *to = *to + x);
}

fn scale_rows<T: Real>(state: &mut [T], dim_v: usize, by: impl Fn(usize) -> T) {
    for (d, row) in state.chunks_mut(dim_v).enumerate() {
        let by = by(d);
        row.iter_mut().for_each(|s| *s = by * *s);
    }
}

#[cfg(test)]
mod tests {
    use super::super::linear::linear_attention;
    use super::*;

    /// Numbers without a pattern, within -1..=1.
    fn numbers(n: usize, seed: f64) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * 12.9898 + seed * 78.233).sin() * 43758.5453 % 1.0).collect()
    }

    /// All that has a gradient, in one list of lists.
    struct Problem {
        sizes: LinearSizes,
        delta: bool,
        /// q, k, v, log-decays, beta, state.
        inputs: [Vec<f64>; 6],
        d_out: Vec<f64>,
        d_state: Vec<f64>,
    }

    impl Problem {
        fn new(delta: bool, steps: usize) -> Problem {
            let sizes = LinearSizes { batch: 2, heads: 4, heads_k: 2, len: 5, steps, dim_k: 3, dim_v: 2 };
            let LinearSizes { batch, heads, heads_k, len, dim_k, dim_v, .. } = sizes;
            let rows = len * steps;
            let inputs = [
                numbers(batch * heads_k * len * dim_k, 1.0),
                numbers(batch * heads_k * rows * dim_k, 2.0),
                numbers(batch * heads * rows * dim_v, 3.0),
                numbers(batch * heads * len * dim_k, 4.0).iter().map(|x| -x.abs()).collect(),
                numbers(batch * heads * rows, 5.0).iter().map(|x| 1.0 + x).collect(),
                numbers(batch * heads * dim_k * dim_v, 6.0),
            ];
            let d_out = numbers(batch * heads * len * dim_v, 7.0);
            let d_state = numbers(batch * heads * dim_k * dim_v, 8.0);
            Problem { sizes, delta, inputs, d_out, d_state }
        }

        fn with_rules<R>(&self, inputs: &[Vec<f64>; 6], f: impl FnOnce(LinearRules<'_, f64>) -> R) -> R {
            let LinearSizes { heads, len, dim_k, .. } = self.sizes;
            let log_decay = |b: usize, h: usize, t: usize, d: usize| inputs[3][((b * heads + h) * len + t) * dim_k + d];
            f(LinearRules {
                log_decay: &log_decay,
                beta: self.delta.then_some(&inputs[4][..]),
                initial_state: Some(&inputs[5]),
                ..LinearRules::additive(0.7)
            })
        }

        fn loss(&self, inputs: &[Vec<f64>; 6]) -> f64 {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            self.with_rules(inputs, |rules| {
                let result = linear_attention(self.sizes, &inputs[0], &inputs[1], &inputs[2], rules);
                dot(&result.out, &self.d_out) + dot(&result.state, &self.d_state)
            })
        }

        fn gradients(&self) -> [Vec<f64>; 6] {
            self.with_rules(&self.inputs, |rules| {
                let [q, k, v, ..] = &self.inputs;
                let g = linear_attention_backward(self.sizes, [q, k, v], rules, &self.d_out, Some(&self.d_state));
                [g.dq, g.dk, g.dv, g.d_log_decay, g.d_beta, g.d_initial_state]
            })
        }
    }

    #[test]
    fn against_finite_differences() {
        for (delta, steps) in [(false, 1), (true, 1), (true, 3)] {
            let problem = Problem::new(delta, steps);
            for (which, gradient) in problem.gradients().iter().enumerate() {
                if which == 4 && !delta {
                    assert!(gradient.is_empty());
                    continue;
                }
                assert_eq!(gradient.len(), problem.inputs[which].len());
                for (n, &got) in gradient.iter().enumerate() {
                    let at = |by: f64| {
                        let mut inputs = problem.inputs.clone();
                        inputs[which][n] += by;
                        problem.loss(&inputs)
                    };
                    let step = 1e-4;
                    // Central differences of two widths: the error falls with the fourth power.
                    let slope = |by: f64| (at(by) - at(-by)) / (2.0 * by);
                    let want = (4.0 * slope(step / 2.0) - slope(step)) / 3.0;
                    let near = (got - want).abs() <= 1e-8 * want.abs().max(1.0);
                    assert!(near, "delta {delta}, {steps} steps, input {which}, number {n}: {got}, but {want}");
                }
            }
        }
    }
}
