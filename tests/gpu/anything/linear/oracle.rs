//! What a case must give.

use wgpu_attention::FeatureMap;
use wgpu_attention::reference::{
    FeatureRules, LinearRules, LinearSizes, Real, features, linear_attention, linear_attention_backward, linear_read,
};

use super::{Case, Gate, Results};

impl Case {
    /// q and k once mapped, their features as they are `kept`, and v, `[batch, heads, rows, dim]`.
    fn mapped<T: Real>(&self, kept: impl Fn(T) -> T) -> [Vec<T>; 3] {
        let wide = |x: &[f32]| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
        let [q, k, v] = [0, 1, 2].map(|n| wide(&self.operands[n]));
        let omega = wide(&self.omega);
        let rules = |of_keys| FeatureRules {
            omega: &omega,
            longest: self.len.max(self.rows),
            scale: T::of(self.scale.into()),
            of_keys,
        };
        let map = |x: &[T], len: usize, of_keys| {
            if x.is_empty() {
                return Vec::new();
            }
            features(&self.map, x, len, self.dims[0], rules(of_keys)).into_iter().map(&kept).collect()
        };
        [map(&q, self.len, false), map(&k, self.rows, true), v]
    }

    /// Rows of a sequence of every head.
    fn cut<T: Copy>(x: &[T], len: usize, dim: usize, rows: std::ops::Range<usize>) -> Vec<T> {
        x.chunks((len * dim).max(1)).flat_map(|head| head[rows.start * dim..rows.end * dim].iter().copied()).collect()
    }

    fn log_decay(&self, b: usize, h: usize, t: usize, d: usize) -> f64 {
        let row = (b * self.heads + h) * self.len + t;
        let x = match &self.gate {
            Gate::None => 0.0,
            Gate::Head(values) => return values[h].into(),
            Gate::Token(values) => values[row],
            Gate::Channel(values) => values[row * self.dims[0] + d],
        };
        f64::from(x.clamp(-80.0, 0.0))
    }

    fn sizes(&self, len: usize) -> LinearSizes {
        let Case { batch, heads, heads_k, steps, .. } = *self;
        LinearSizes { batch, heads, heads_k, len, steps, dim_k: self.features(), dim_v: self.dims[1] }
    }

    fn scale<T: Real>(&self) -> T {
        T::of(if self.map == FeatureMap::Taylor { 1.0 } else { self.scale.into() })
    }

    pub(super) fn oracle<T: Real>(&self, kept: impl Fn(T) -> T) -> Results {
        let [q, k, v] = self.mapped::<T>(kept);
        let f = self.features();
        let wide = |x: &[f32]| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
        let (beta, initial, initial_z) =
            (self.beta.as_deref().map(wide), self.initial.as_deref().map(wide), self.initial_z.as_deref().map(wide));
        let mut results: Results =
            [vec![0.0; self.batch * self.heads * self.len * self.dims[1]], Vec::new(), Vec::new()];
        for (n, tokens) in self.sequences.iter().enumerate() {
            // Attention that is not causal has as many rows of keys as it likes.
            let of_keys = if self.causal { self.steps * tokens.start..self.steps * tokens.end } else { 0..self.rows };
            let [k, v] = [(&k, f), (&v, self.dims[1])].map(|(x, dim)| Self::cut(x, self.rows, dim, of_keys.clone()));
            let queries = Self::cut(&q, self.len, f, tokens.clone());
            let of_sequence = |x: &Option<Vec<T>>, each: usize| {
                x.as_ref().map(|x| {
                    let each = self.heads * each;
                    if self.packed { x[n * each..][..each].to_vec() } else { x.clone() }
                })
            };
            let (state, z) = (of_sequence(&initial, f * self.dims[1]), of_sequence(&initial_z, f));
            let beta = beta.as_ref().map(|beta| Self::cut(beta, self.rows, 1, of_keys.clone()));
            let log_decay = |b: usize, h: usize, t: usize, d: usize| T::of(self.log_decay(b, h, tokens.start + t, d));
            let rules = LinearRules {
                scale: self.scale(),
                log_decay: &log_decay,
                beta: beta.as_deref(),
                normalizer: self.normalizer,
                initial_state: state.as_deref(),
                initial_z: z.as_deref(),
            };
            let zeros = vec![T::of(0.0); self.batch * self.heads_k * self.rows * f];
            let (sizes, q) =
                if self.causal { (self.sizes(tokens.len()), &queries) } else { (self.sizes(self.rows), &zeros) };
            let mut found = linear_attention(sizes, q, &k, &v, rules);
            if !self.causal {
                found.out = self.read(&queries, &found.state, &found.z);
            }
            for (row, values) in found.out.chunks(self.dims[1]).enumerate() {
                let to = (row / tokens.len() * self.len + tokens.start + row % tokens.len()) * self.dims[1];
                (0..self.dims[1]).for_each(|d| results[0][to + d] = values[d].to_f64());
            }
            results[1].extend(found.state.into_iter().map(T::to_f64));
            results[2].extend(found.z.into_iter().map(T::to_f64));
        }
        results
    }

    /// What every query reads from the sums over all keys.
    fn read<T: Real>(&self, q: &[T], state: &[T], z: &[T]) -> Vec<T> {
        let f = self.features();
        let mut out = Vec::new();
        for row in 0..self.batch * self.heads * self.len {
            let (bh, t) = (row / self.len, row % self.len);
            let key_head = bh / self.heads * self.heads_k + bh % self.heads / (self.heads / self.heads_k);
            let query = &q[(key_head * self.len + t) * f..][..f];
            let each = f * self.dims[1];
            out.extend(linear_read(
                query,
                &state[bh * each..][..each],
                &z[bh * f..][..f],
                self.scale(),
                self.normalizer,
            ));
        }
        out
    }
    pub(super) fn gradients<T: Real>(&self, d_out: &[f32], d_state: &Option<Vec<f32>>) -> [Vec<f64>; 6] {
        let wide = |x: &[f32]| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
        let [q, k, v] = self.mapped::<T>(|x| x);
        let d_out = wide(d_out);
        let [dim_k, dim_v] = self.dims;
        let mut results: [Vec<f64>; 6] = [
            q.len(),
            k.len(),
            v.len(),
            self.batch * self.heads * self.len * dim_k,
            self.batch * self.heads * self.rows,
            0,
        ]
        .map(|n| vec![0.0; n]);
        for (n, tokens) in self.sequences.iter().enumerate() {
            let rows = self.steps * tokens.start..self.steps * tokens.end;
            let [q, d_out] = [(&q, dim_k), (&d_out, dim_v)].map(|(x, dim)| Self::cut(x, self.len, dim, tokens.clone()));
            let [k, v] = [(&k, dim_k), (&v, dim_v)].map(|(x, dim)| Self::cut(x, self.rows, dim, rows.clone()));
            let each = self.heads * dim_k * dim_v;
            let of_sequence =
                |x: &Option<Vec<f32>>| x.as_ref().map(|x| wide(if self.packed { &x[n * each..][..each] } else { x }));
            let (state, d_state) = (of_sequence(&self.initial), of_sequence(d_state));
            let beta = self.beta.as_ref().map(|beta| Self::cut(&wide(beta), self.rows, 1, rows.clone()));
            let log_decay = |b: usize, h: usize, t: usize, d: usize| T::of(self.log_decay(b, h, tokens.start + t, d));
            let rules = LinearRules {
                log_decay: &log_decay,
                beta: beta.as_deref(),
                initial_state: state.as_deref(),
                ..LinearRules::additive(self.scale())
            };
            let g =
                linear_attention_backward(self.sizes(tokens.len()), [&q, &k, &v], rules, &d_out, d_state.as_deref());
            let parts = [
                (g.dq, self.len, dim_k, tokens.clone()),
                (g.dk, self.rows, dim_k, rows.clone()),
                (g.dv, self.rows, dim_v, rows.clone()),
                (g.d_log_decay, self.len, dim_k, tokens.clone()),
                (g.d_beta, self.rows, 1, rows.clone()),
            ];
            for (result, (values, len, dim, within)) in results.iter_mut().zip(parts) {
                for (i, x) in values.into_iter().enumerate() {
                    let (row, d) = (i / dim, i % dim);
                    result[(row / within.len() * len + within.start + row % within.len()) * dim + d] = x.to_f64();
                }
            }
            results[5].extend(g.d_initial_state.into_iter().map(T::to_f64));
        }
        if let Gate::Token(values) = &self.gate {
            // A clamped decay has no gradient.
            let sums =
                results[3].chunks(dim_k).zip(values).map(|(row, &g)| if g < -80.0 { 0.0 } else { row.iter().sum() });
            results[3] = sums.collect();
        } else if let Gate::Channel(values) = &self.gate {
            results[3].iter_mut().zip(values).filter(|(_, g)| **g < -80.0).for_each(|(x, _)| *x = 0.0);
        }
        results
    }
}
