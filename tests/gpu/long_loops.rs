//! Drivers that end a thread's loops after so many turns, without a word: what would take more is cut into parts, or refused.

use wgpu_attention::{
    AssociativeMemory, Attention, DType, FeatureMap, KeyGateAttention, Layout, LinearAttention, Mask, MemoryRule,
    Merge, Result, S4d, S4dInit, S4dParams, Score, Tensor, Visit,
};

use crate::support::{Case, ctx, download};

/// Whether it is refused where the device ends loops, and accepted elsewhere.
#[track_caller]
fn only_gpus<T>(planned: Result<T>, argument: &str) {
    match planned {
        Ok(_) => assert!(!ctx().capabilities().cpu, "accepted"),
        Err(e) => {
            let told = e.to_string();
            assert!(ctx().capabilities().cpu, "{told}");
            assert!(told.starts_with(argument) && told.ends_with("but this device ends loops after 65535"), "{told}");
        }
    }
}

fn layout(shape: [usize; 4]) -> Layout {
    Layout::new(DType::F32, shape).unwrap()
}

/// Rules of the user's count, too: all keys are there, however many turns each pair takes.
#[test]
fn rules_that_loop() {
    let case = Case::new(40, 512).heads(1, 1, 1);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let sum = "var x = 0u; for (var i = 0u; i < 300u + kv_idx % 2u; i++) { x += i & 3u; }";
    let score = format!(
        "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32 {{ {sum} return score + 0.01 * f32(x) * f32(kv_idx % 3u); }}"
    );
    let mask =
        format!("fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool {{ {sum} return x + kv_idx >= 500u; }}");
    // The same without a loop: 3 + 2 + 1 for each four turns.
    let plain_score = "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32 { return score + 4.5 * f32(kv_idx % 3u); }";
    let plain_mask = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return 450u + kv_idx >= 500u; }";
    let run = |attention: Attention| download(ctx(), &attention.run(ctx()).unwrap()).unwrap();
    let want = run(Attention::new(&q, &k, &v).score(Score::wgsl(plain_score)).mask(Mask::wgsl(plain_mask)));
    for visit in [Visit::Every, Visit::Listed] {
        let looping = Attention::new(&q, &k, &v).score(Score::wgsl(&score)).mask(Mask::wgsl(&mask)).visit(visit);
        for (a, b) in run(looping).iter().zip(&want) {
            assert!((a - b).abs() < 1e-5, "{visit:?}: {a}, but should be {b}");
        }
    }
    // Loops within loops: the turns in which they end are no bodies, and drivers count them.
    let nested = "var x = 0u; for (var i = 0u; i < 120u; i++) { for (var j = 0u; j < 3u; j++) { x += j; } }";
    let nested = format!(
        "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool {{ {nested} return x + 90u + kv_idx >= 500u; }}"
    );
    let looping = Attention::new(&q, &k, &v).score(Score::wgsl(plain_score)).mask(Mask::wgsl(&nested));
    assert!(run(looping).iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5));
}

/// Of masks of heads one is called for a pair: four that loop are not four times the turns.
#[test]
fn rules_of_heads_that_loop() {
    let case = Case::new(40, 64).heads(1, 4, 4);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let looping = |h: usize| {
        Mask::wgsl(&format!(
            "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool {{ var x = 0u; \
             for (var i = 0u; i < 50u; i++) {{ x += 1u; }} return kv_idx >= x - 50u + {h}u; }}"
        ))
    };
    let run = |mask: Mask| download(ctx(), &Attention::new(&q, &k, &v).mask(mask).run(ctx()).unwrap()).unwrap();
    let (got, want) =
        (run(Mask::per_head((0..4).map(looping))), run(Mask::per_head((0..4).map(|h| Mask::keys(h..64)))));
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn long_sequences() {
    let x = layout([1, 1, 16384, 64]);
    only_gpus(
        AssociativeMemory::new(x, x, x).rule(MemoryRule::Delta).plan(ctx()),
        "k: a sequence of 16384 rows, 331 a chunk of the delta rule: takes 84738 turns of a thread's loops, ",
    );
    let half = layout([1, 1, 8192, 64]);
    AssociativeMemory::new(half, half, half).rule(MemoryRule::Delta).plan(ctx()).unwrap();
    let long = layout([1, 1, 70000 * 64, 1]);
    only_gpus(
        KeyGateAttention::new(long, long, long).plan(ctx()),
        "q: its chunks in order: takes 70002 turns of a thread's loops, ",
    );
    let ones = vec![[1.0, 0.0]; 1];
    let params = S4dParams {
        log_dt: vec![-4.0],
        a: S4dInit::Lin.poles(2).unwrap(),
        b: ones.clone(),
        c: ones,
        ..S4dParams::default()
    };
    only_gpus(S4d::new(long, params).plan(ctx()), "u: its chunks in order: takes 70001 turns of a thread's loops, ");
    let efficient = layout([1, 1, 40000 * 16, 4]);
    let described = LinearAttention::new(efficient, efficient, efficient).map(FeatureMap::Efficient).not_causal();
    only_gpus(
        described.chunk(16).plan(ctx()),
        "k: a sequence of 640000 rows, 2 a chunk: takes 80002 turns of a thread's loops, ",
    );
    let parts = 40_000;
    let (out, lse) = (layout([parts, 1, 1, 4]), layout([parts, 1, 1, 1]));
    only_gpus(Merge::new(parts, out, lse).plan(ctx()), "parts: their merge");
    only_gpus(
        Merge::new(parts * 3 / 5, out.narrow(0, 0, parts * 3 / 5).unwrap(), lse.narrow(0, 0, parts * 3 / 5).unwrap())
            .mass()
            .plan(ctx()),
        "parts: their merge",
    );
}

/// Tensors of rules that no head's mask has left are not asked for.
#[test]
fn rules_that_nobody_has_left() {
    let shape = [1, 2, 4, 4];
    let x = Tensor::from_slice(ctx(), shape, &[1.0f32; 32]).unwrap();
    let some = Tensor::from_slice(ctx(), [1, 1, 1, 4], &[1u32; 4]).unwrap();
    let bits = Tensor::from_slice(ctx(), [1, 1, 4, 1], &[1u32; 4]).unwrap();
    let text = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return some[kv_idx] > 0u; }";
    let rule = || Mask::wgsl_with(text, [("some", (&some).into())]) & Mask::bits(&bits);
    let run = |mask: Mask| download(ctx(), &Attention::new(&x, &x, &x).mask(mask).run(ctx()).unwrap()).unwrap();
    assert_eq!(run(Mask::per_head([Mask::none(), Mask::none()]) & rule()), vec![0.0; 32]);
    assert_eq!(run(Mask::per_head([Mask::all(), Mask::all()]) | rule()), vec![1.0; 32]);
}

/// What a bias masks no rule after it brings back.
#[test]
fn a_bias_masks_before_a_softcap() {
    let values: Vec<f32> = (0..40).map(|i| (i as f32).sin()).collect();
    let x = Tensor::from_slice(ctx(), [1, 1, 5, 8], &values).unwrap();
    let hidden: Vec<f32> = (0..25).map(|n| if n % 5 > n / 5 { f32::NEG_INFINITY } else { 0.0 }).collect();
    let bias = Tensor::from_slice(ctx(), [1, 1, 5, 5], &hidden).unwrap();
    let run = |attention: Attention| download(ctx(), &attention.run(ctx()).unwrap()).unwrap();
    let capped = || Attention::new(&x, &x, &x);
    let biased = run(capped().score(Score::bias(&bias)).score(Score::softcap(3.0)));
    let causal = run(capped().score(Score::softcap(3.0)).mask(Mask::causal()));
    assert!(biased.iter().zip(&causal).all(|(a, b)| (a - b).abs() < 1e-6), "{biased:?} {causal:?}");
}
