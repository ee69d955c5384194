//! WGSL of the user's, and tables of relative biases.

use wgpu_attention::reference::{Real, Rules, Sizes, softmax_attention};
use wgpu_attention::{Attention, DType, Input, Mask, Relative, Score, Tensor, Visit};

use crate::data;
use crate::masks::{SMALL, check, small};
use crate::support::{ctx, download, upload};

const HEAD: &str = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool";

#[test]
fn rules_of_the_users() {
    let case = small(70, 90);
    let by_head =
        format!("fn far(a: u32) -> bool {{ return a % 7u > 2u; }}\n{HEAD} {{ return far(kv_idx + h * 3u + b); }}");
    check(&case, &Mask::wgsl(&by_head), &|b, h, _, j| (j + 3 * h + b) % 7 > 2);
    let looping =
        format!("{HEAD} {{ var n = 0u; for (var i = 0u; i < kv_idx; i++) {{ n += i; }} return n % 3u != 0u; }}");
    let sum = |j: usize| j * j.saturating_sub(1) / 2;
    check(&case, &(Mask::wgsl(&looping) & Mask::causal()), &|_, _, i, j| sum(j) % 3 != 0 && j <= i + 20);
    // Two texts, one of them with data.
    let ids: Vec<u32> = (0..90).map(|j| j % 4).collect();
    let tensor = Tensor::from_slice(ctx(), [1, 1, 1, 90], &ids).unwrap();
    let with_data =
        Mask::wgsl_with(&format!("{HEAD} {{ return ids[kv_idx] != 1u; }}"), [("ids", Input::from(&tensor))]);
    let other = Mask::wgsl(&format!("{HEAD} {{ return q_idx % 5u != 0u; }}"));
    check(&case, &(with_data & other), &|_, _, i, j| j % 4 != 1 && i % 5 != 0);
}

#[test]
fn data_may_be_f16() {
    if !ctx().capabilities().f16 {
        return;
    }
    let case = small(30, 40);
    let few: Vec<half::f16> = (0..40u8).map(|j| half::f16::from_f32((j % 4).into())).collect();
    let tensor = Tensor::from_slice(ctx(), [1, 1, 1, 40], &few).unwrap();
    let mask = Mask::wgsl_with(&format!("{HEAD} {{ return few[kv_idx] < 3.0h; }}"), [("few", Input::from(&tensor))]);
    check(&case, &mask, &|_, _, _, j| j % 4 < 3);
}

#[test]
fn an_index_out_of_bounds_is_harmless() {
    let case = small(30, 40);
    let tensor = Tensor::from_slice(ctx(), [1, 1, 1, 2], &[1u32, 0]).unwrap();
    let text = format!("{HEAD} {{ return few[kv_idx * 1000000u] != 7u; }}");
    check(&case, &Mask::wgsl_with(&text, [("few", Input::from(&tensor))]), &|_, _, _, _| true);
}

#[test]
fn scores_of_the_users_and_tables() {
    let case = small(49, 49);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let operands = case.operands();
    let table = data::normal(5, 2 * 169);
    let slopes = data::normal(6, 2);
    let cells: Vec<u32> = (0..49).collect();
    for swin in [false, true] {
        let index = Relative::cells(&[7, 7], &cells, &cells);
        let index = if swin { index.query_minus_key() } else { index };
        let relative = Tensor::from_slice(ctx(), [1, 2, 1, 169], &table).unwrap();
        let slope = Tensor::from_slice(ctx(), [1, 1, 1, 2], &slopes).unwrap();
        let text = "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32 {\n\
                    return score + slope[h] * f32(kv_idx % 3u); }";
        let description = Attention::new(&q, &k, &v)
            .score(Score::relative(&relative, index))
            .score(Score::wgsl_with(text, [("slope", Input::from(&slope))]))
            .score(Score::softcap(2.0));
        let (out, lse) = description.run_with_lse(ctx()).unwrap();
        fn expect<T: Real>(
            sizes: Sizes,
            x: &[Vec<f32>; 3],
            table: &[f32],
            slopes: &[f32],
            swin: bool,
        ) -> [Vec<f64>; 2] {
            let score = |x: T, _: usize, h: usize, i: usize, j: usize| {
                let (i2, j2) = if swin { (j, i) } else { (i, j) };
                let entry = (j2 / 7 + 6 - i2 / 7) * 13 + (j2 % 7 + 6 - i2 % 7);
                let x = x + T::of(table[h * 169 + entry].into()) + T::of(slopes[h].into()) * T::of((j % 3) as f64);
                T::of(2.0) * (x / T::of(2.0)).tanh()
            };
            let scale = |_| T::of((1.0 / 20f32.sqrt()).into());
            let [q, k, v] = x.clone().map(|x| x.into_iter().map(|x| T::of(x.into())).collect::<Vec<T>>());
            let (out, lse) = softmax_attention(sizes, &q, &k, &v, Rules { score: &score, ..Rules::dense(&scale) });
            [out, lse].map(|x| x.into_iter().map(T::to_f64).collect())
        }
        let exact = expect::<f64>(case.sizes, &operands, &table, &slopes, swin);
        let plain = expect::<f32>(case.sizes, &operands, &table, &slopes, swin);
        for (got, n) in [(&out, 0), (&lse, 1)] {
            wgpu_attention::reference::check(&download(ctx(), got).unwrap(), &exact[n], &plain[n], DType::F32).unwrap();
        }
    }
}

/// Tables of masks, orders, lists and scores share one buffer.
#[test]
fn scores_with_tables_and_lists_together() {
    let case = small(64, 64);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let relative = Tensor::from_slice(ctx(), [1, 2, 1, 225], &data::normal(8, 450)).unwrap();
    let cells: Vec<u32> = (0..64).collect();
    let mask = Mask::neighborhood(&[8, 8], wgpu_attention::Neighborhood::new([5, 3]));
    let run = |visit| {
        let index = Relative::cells(&[8, 8], &cells, &cells);
        let description = Attention::new(&q, &k, &v).mask(mask.clone()).score(Score::relative(&relative, index));
        download(ctx(), &description.visit(visit).tile(SMALL).run(ctx()).unwrap()).unwrap()
    };
    for (a, b) in run(Visit::Every).iter().zip(run(Visit::Listed)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn relative_along_the_sequence_is_clipped() {
    let case = small(20, 33);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let table = [9.0f32, 0.5, 0.0, -0.5, -9.0];
    let relative = Tensor::from_slice(ctx(), [1, 1, 1, 5], &table).unwrap();
    let out = Attention::new(&q, &k, &v).score(Score::relative(&relative, Relative::sequence(2))).run(ctx()).unwrap();
    let mut bias = Vec::new();
    for i in 0..20i64 {
        bias.extend((0..33i64).map(|j| table[((j - (i + 13)).clamp(-2, 2) + 2) as usize]));
    }
    let bias = upload(ctx(), DType::F32, [1, 1, 20, 33], &bias).unwrap();
    let same = Attention::new(&q, &k, &v).score(Score::bias(&bias)).run(ctx()).unwrap();
    assert_eq!(download(ctx(), &out).unwrap(), download(ctx(), &same).unwrap());
}
