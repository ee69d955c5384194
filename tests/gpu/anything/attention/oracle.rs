//! What a case must give.

use wgpu_attention::Task;
use wgpu_attention::reference::{Real, Rules, Sizes, softmax_attention};

use super::{Case, RELU};

impl Case {
    /// out and lse, NaN where no task has a row.
    pub(super) fn oracle<T: Real>(&self) -> (Vec<f64>, Vec<f64>) {
        let all = [Task { q: 0..self.sizes.len_q, kv: 0..self.sizes.len_kv }];
        let tasks = if self.tasks.is_empty() { &all[..] } else { &self.tasks };
        let Sizes { batch, heads, len_q, v_dim, .. } = self.sizes;
        let (mut out, mut lse) = (vec![f64::NAN; batch * heads * len_q * v_dim], vec![f64::NAN; batch * heads * len_q]);
        for task in tasks {
            let (o, l) = self.of_task::<T>(task);
            let rows = task.q.len();
            for n in 0..batch * heads * rows {
                let to = n / rows.max(1) * len_q + task.q.start + n % rows;
                lse[to] = l[n];
                out[to * v_dim..][..v_dim].copy_from_slice(&o[n * v_dim..][..v_dim]);
            }
        }
        (out, lse)
    }

    /// The rows of a task, as a problem of its own.
    fn of_task<T: Real>(&self, task: &Task) -> (Vec<f64>, Vec<f64>) {
        let cut = |x: &[f32], len: usize, dim: usize, rows: &std::ops::Range<usize>| -> Vec<T> {
            let rows = x.chunks((len * dim).max(1)).flat_map(|head| head[rows.start * dim..rows.end * dim].iter());
            rows.map(|&x| T::of(x.into())).collect()
        };
        let s = self.sizes;
        let q = cut(&self.operands[0], s.len_q, s.head_dim, &task.q);
        let k = cut(&self.operands[1], s.len_kv, s.head_dim, &task.kv);
        let v = cut(&self.operands[2], s.len_kv, s.v_dim, &task.kv);
        let sizes = Sizes { len_q: task.q.len(), len_kv: task.kv.len(), ..s };
        let lens = [sizes.len_q, sizes.len_kv];
        let of = |x: f32| T::of(x.into());
        let score = |mut x: T, b: usize, h: usize, i: usize, j: usize| {
            if let Some(cap) = self.softcap {
                x = of(cap) * (x / of(cap)).tanh();
            }
            let distance = (j + lens[0]) as i64 - (i + lens[1]) as i64;
            if let Some(slopes) = &self.slopes {
                x = x - of(slopes[h]) * T::of(distance.abs() as f64);
            }
            if let Some((dims, values)) = &self.bias {
                let row = (b % dims[0] * dims[1] + h % dims[1]) * dims[2] + i % dims[2];
                x = x + of(values[row * lens[1] + j]);
            }
            if let Some((max, values)) = &self.relative {
                let max = *max as i64;
                x = x + of(values[(distance.clamp(-max, max) + max) as usize]);
            }
            if self.steps { x + T::of(((i + 3 * j + h + b) % 5) as f64) } else { x }
        };
        let mask = |b: usize, h: usize, i: usize, j: usize| (self.pairs)(lens, b, h, i, j);
        let sink = |h: usize| self.sinks.as_ref().map(|sinks| of(sinks[h]));
        let scale = |h: usize| of(self.scales[h]);
        let wide = |x: Vec<T>| x.into_iter().map(T::to_f64).collect::<Vec<f64>>();
        if self.options & RELU != 0 {
            return (wide(relu(sizes, [&q, &k, &v], &scale, &mask)), vec![0.0; s.batch * s.heads * lens[0]]);
        }
        let rules = Rules { scale: &scale, score: &score, mask: &mask, sink: &sink };
        let (out, lse) = softmax_attention(sizes, &q, &k, &v, rules);
        (wide(out), wide(lse))
    }
}

/// `sum_j max(scale <q, k_j>, 0) v_j`.
fn relu<T: Real>(
    s: Sizes,
    [q, k, v]: [&[T]; 3],
    scale: &dyn Fn(usize) -> T,
    mask: &dyn Fn(usize, usize, usize, usize) -> bool,
) -> Vec<T> {
    let mut out = Vec::new();
    for row in 0..s.batch * s.heads * s.len_q {
        let (b, h, i) = (row / s.len_q / s.heads, row / s.len_q % s.heads, row % s.len_q);
        let first = (b * s.heads_kv + h / (s.heads / s.heads_kv)) * s.len_kv;
        let mut sums = vec![T::of(0.0); s.v_dim];
        for j in (0..s.len_kv).filter(|&j| mask(b, h, i, j)) {
            let dot = (0..s.head_dim)
                .fold(T::of(0.0), |sum, d| sum + q[row * s.head_dim + d] * k[(first + j) * s.head_dim + d]);
            let x = dot * scale(h);
            if x > T::of(0.0) {
                (0..s.v_dim).for_each(|d| sums[d] = sums[d] + x * v[(first + j) * s.v_dim + d]);
            }
        }
        out.extend(sums);
    }
    out
}
