//! Sequences end to end in one row, tasks, and weights without a denominator.

use wgpu_attention::reference::{Real, Rules, Sizes, check, softmax_attention};
use wgpu_attention::{Attention, AttentionIo, DType, HeadNorm, Mask, Merge, Score, Task, Tensor, Weights};

use crate::support::{Case, contexts, ctx, download, upload};

/// Each sequence by itself, in the oracle.
fn oracle<T: Real>(case: &Case, tasks: &[Task], causal: bool, left: usize) -> [Vec<f64>; 2] {
    let Sizes { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim } = case.sizes;
    let [q, k, v] = case.operands();
    let scale = |_| T::of((1.0 / (head_dim as f32).sqrt()).into());
    let mut out = vec![0.0; batch * heads * len_q * v_dim];
    let mut lse = vec![f64::NEG_INFINITY; batch * heads * len_q];
    for b in 0..batch {
        for h in 0..heads {
            for Task { q: rows, kv } in tasks {
                let cut = |x: &[f32], head: usize, len: usize, dim: usize, rows: &std::ops::Range<usize>| -> Vec<T> {
                    let first = head * len * dim;
                    x[first + rows.start * dim..first + rows.end * dim].iter().map(|&x| T::of(x.into())).collect()
                };
                let kv_head = b * heads_kv + h / (heads / heads_kv);
                let sizes =
                    Sizes { batch: 1, heads: 1, heads_kv: 1, len_q: rows.len(), len_kv: kv.len(), head_dim, v_dim };
                let visible = |_: usize, _: usize, i: usize, j: usize| {
                    let at = i + kv.len();
                    (!causal || j + rows.len() <= at) && j + rows.len() + left >= at
                };
                let rules = Rules { mask: &visible, ..Rules::dense(&scale) };
                let q = cut(&q, b * heads + h, len_q, head_dim, rows);
                let (k, v) = (cut(&k, kv_head, len_kv, head_dim, kv), cut(&v, kv_head, len_kv, v_dim, kv));
                let (o, l) = softmax_attention(sizes, &q, &k, &v, rules);
                let first = (b * heads + h) * len_q + rows.start;
                for (n, x) in o.into_iter().enumerate() {
                    out[first * v_dim + n] = x.to_f64();
                }
                for (n, x) in l.into_iter().enumerate() {
                    lse[first + n] = x.to_f64();
                }
            }
        }
    }
    [out, lse]
}

fn tasks(cu_q: &[usize], cu_kv: &[usize]) -> Vec<Task> {
    let ranges = |cu: &[usize]| cu.windows(2).map(|pair| pair[0]..pair[1]).collect::<Vec<_>>();
    ranges(cu_q).into_iter().zip(ranges(cu_kv)).map(|(q, kv)| Task { q, kv }).collect()
}

#[test]
fn sequences_end_to_end() {
    let case = Case::new(200, 230).dims(20, 12).heads(2, 4, 2);
    // Lengths on purpose: 1, 0, more keys than queries, fewer.
    let (cu_q, cu_kv) = ([0, 1, 1, 70, 100, 200], [0, 1, 20, 140, 150, 230]);
    let tasks = tasks(&cu_q, &cu_kv);
    for (name, ctx) in contexts() {
        let [q, k, v] = case.upload(&ctx).unwrap();
        for (causal, left) in [(false, 999), (true, 999), (true, 9)] {
            let mut description = Attention::new(&q, &k, &v).packed(&cu_q, &cu_kv);
            if causal {
                description = description.mask(Mask::causal());
            }
            if left < 999 {
                description = description.mask(Mask::window(left, None));
            }
            let plan = description.clone().plan(&ctx).unwrap().to_string();
            assert!(plan.contains("1 dispatch of"), "{plan}");
            let (out, lse) = description.run_with_lse(&ctx).unwrap();
            let (exact, plain) =
                (oracle::<f64>(&case, &tasks, causal, left), oracle::<f32>(&case, &tasks, causal, left));
            for (got, n) in [(&out, 0), (&lse, 1)] {
                check(&download(&ctx, got).unwrap(), &exact[n], &plain[n], DType::F32)
                    .unwrap_or_else(|e| panic!("{name}, causal {causal}, left {left}, output {n}: {e}"));
            }
        }
    }
}

/// Masks and scores see indices within a sequence: the same as each sequence run alone.
#[test]
fn rules_count_within_a_sequence() {
    let case = Case::new(100, 100).dims(16, 16);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let cu = [0, 37, 100];
    let head = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool";
    let mask = Mask::block_diagonal(10) | Mask::wgsl(&format!("{head} {{ return kv_idx % 4u == 1u; }}"));
    let with = |description: Attention| description.mask(mask.clone()).score(Score::alibi(&[0.5, 0.1]));
    let whole = download(ctx(), &with(Attention::new(&q, &k, &v).packed(&cu, &cu)).run(ctx()).unwrap()).unwrap();
    for pair in cu.windows(2) {
        let part = |x: &Tensor| x.narrow(2, pair[0], pair[1] - pair[0]).unwrap();
        let alone = with(Attention::new(&part(&q), &part(&k), &part(&v))).run(ctx()).unwrap();
        let alone = download(ctx(), &alone).unwrap();
        let rows = (pair[1] - pair[0]) * 16;
        for h in 0..2 {
            let cut = &whole[(h * 100 + pair[0]) * 16..][..rows];
            for (a, b) in cut.iter().zip(&alone[h * rows..][..rows]) {
                assert!((a - b).abs() < 1e-5, "{pair:?}, head {h}: {a}, {b}");
            }
        }
    }
}

/// Shards of keys, as other devices would hold them: tasks, then a merge by lse.
#[test]
fn shards_of_keys_merge() {
    let case = Case::new(60, 90).dims(16, 16).heads(1, 2, 2);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let out = Tensor::zeros(ctx(), DType::F32, [2, 2, 60, 16]).unwrap();
    let lse = Tensor::zeros(ctx(), DType::F32, [2, 2, 60, 1]).unwrap();
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    for (part, kv) in [0..35, 35..90].into_iter().enumerate() {
        let (out, lse) = (out.narrow(0, part, 1).unwrap(), lse.narrow(0, part, 1).unwrap());
        let tasks = [Task { q: 0..20, kv: kv.clone() }, Task { q: 20..60, kv }];
        let plan = Attention::new(&q, &k, &v).tasks(&tasks).out(&out).lse_out(&lse).plan(ctx()).unwrap();
        plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out).lse(&lse)).unwrap();
    }
    ctx().queue().submit([encoder.finish()]);
    let (out, lse) = Merge::new(2, &out, &lse).run(ctx()).unwrap();
    case.compare("shards", &download(ctx(), &out).unwrap(), &download(ctx(), &lse).unwrap());
}

#[test]
fn relu_weights_and_the_norm_over_heads() {
    let case = Case::new(50, 50).dims(16, 12).heads(2, 3, 3);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let mask = Mask::block_diagonal(16) & Mask::causal();
    let summed = Attention::new(&q, &k, &v).mask(mask.clone()).weights(Weights::Relu).run(ctx()).unwrap();
    let normed = HeadNorm::new(&summed).run(ctx()).unwrap();
    let (got_sum, got_norm) = (download(ctx(), &summed).unwrap(), download(ctx(), &normed).unwrap());
    let [q, k, v] = case.operands();
    let host = mask.host([2, 3, 50, 50]).unwrap();
    let mut want = vec![0.0f64; 2 * 3 * 50 * 12];
    for (bh, i) in (0..6).flat_map(|bh| (0..50).map(move |i| (bh, i))) {
        for j in (0..50).filter(|&j| host.allows(bh / 3, bh % 3, i, j)) {
            let dot: f64 =
                (0..16).map(|d| f64::from(q[(bh * 50 + i) * 16 + d]) * f64::from(k[(bh * 50 + j) * 16 + d])).sum();
            for d in 0..12 {
                want[(bh * 50 + i) * 12 + d] += (dot / 4.0).max(0.0) * f64::from(v[(bh * 50 + j) * 12 + d]);
            }
        }
    }
    for (got, want) in got_sum.iter().zip(&want) {
        assert!((got - want).abs() < 1e-4 * (1.0 + want.abs()), "{got} {want}");
    }
    for (b, i) in (0..2).flat_map(|b| (0..50).map(move |i| (b, i))) {
        let at = |h: usize, d: usize| ((b * 3 + h) * 50 + i) * 12 + d;
        let all = || (0..3).flat_map(|h| (0..12).map(move |d| (h, d)));
        let norm = (all().map(|(h, d)| want[at(h, d)].powi(2)).sum::<f64>() / 36.0).sqrt() + 1e-8;
        for (h, d) in all() {
            let (got, want) = (got_norm[at(h, d)], want[at(h, d)] / norm);
            assert!((got - want).abs() < 1e-4 * (1.0 + want.abs()), "{got} {want}");
        }
    }
}

#[test]
fn half_precision_and_tables_of_other_types() {
    if !ctx().capabilities().f16 {
        return;
    }
    let case = Case::new(40, 40).dims(16, 16).f16();
    let [q, k, v] = case.upload(ctx()).unwrap();
    let mask = Mask::block_diagonal(8);
    let out = Attention::new(&q, &k, &v).mask(mask.clone()).run(ctx()).unwrap();
    let wide = |x: &Tensor| {
        upload(ctx(), DType::F32, x.shape(), &download(ctx(), x).unwrap().iter().map(|&x| x as f32).collect::<Vec<_>>())
            .unwrap()
    };
    let same = Attention::new(&wide(&q), &wide(&k), &wide(&v)).mask(mask).run(ctx()).unwrap();
    for (a, b) in download(ctx(), &out).unwrap().iter().zip(download(ctx(), &same).unwrap()) {
        assert!((a - b).abs() < 2e-3, "{a} {b}");
    }
}

#[test]
fn tasks_without_a_query_write_nothing() {
    let case = Case::new(14, 5);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let out = Tensor::from_slice(ctx(), [1, 2, 14, 64], &[7f32; 2 * 14 * 64]).unwrap();
    for tasks in [vec![], vec![Task { q: 5..5, kv: 0..5 }; 2]] {
        Attention::new(&q, &k, &v).tasks(&tasks).out(&out).run(ctx()).unwrap();
        assert!(download(ctx(), &out).unwrap().iter().all(|&x| x == 7.0));
    }
}
