//! Score rules, sinks and bit masks, alone and together.

use wgpu_attention::{Attention, DType, Score};

use crate::support::{Case, ctx, download, upload};

#[test]
fn softcap() {
    let mut case = Case::new(40, 50);
    case.softcap = Some(2.0);
    case.scale = Some(3.0);
    case.check();
}

/// Few rows, whose plain formula is lucky: a tanh that errs near 0 as it does near 1 shows.
#[test]
fn softcap_of_small_scores() {
    let mut case = Case::new(9, 34).dims(20, 20).heads(1, 1, 1);
    case.softcap = Some(4.0);
    for (len_q, seed) in [(9, 307), (4, 307), (5, 1), (5, 2), (5, 3)] {
        case.sizes.len_q = len_q;
        case.bits = Some([1, 1, len_q]);
        case.seed = seed;
        case.check_on("as found", ctx());
    }
    // Scores far beyond the cap.
    case.scale = Some(500.0);
    case.check_on("as found", ctx());
}

#[test]
fn alibi() {
    let mut case = Case::new(40, 50).causal();
    case.slopes = Some(vec![0.5, 0.03]);
    case.check();
}

#[test]
fn bias_broadcasts() {
    for dims in [[1, 1, 1], [2, 1, 40], [1, 4, 40], [2, 4, 1], [2, 4, 40]] {
        let mut case = Case::new(40, 50).heads(2, 4, 2);
        case.bias = Some(dims);
        case.check_on("as found", ctx());
    }
}

#[test]
fn a_bias_of_minus_infinity_masks() {
    let case = Case::new(3, 40).heads(1, 1, 1);
    let [q, k, v] = case.upload(ctx()).unwrap();
    // The second row sees nothing at all.
    let values: Vec<f32> = (0..120).map(|n| if n / 40 == 1 { f32::NEG_INFINITY } else { 0.0 }).collect();
    let bias = upload(ctx(), DType::F32, [1, 1, 3, 40], &values).unwrap();
    let (out, lse) = Attention::new(&q, &k, &v).score(Score::bias(&bias)).run_with_lse(ctx()).unwrap();
    let (out, lse) = (download(ctx(), &out).unwrap(), download(ctx(), &lse).unwrap());
    assert!(out[64..128].iter().all(|x| *x == 0.0) && lse[1] == f64::NEG_INFINITY);
    assert!(out.iter().all(|x| x.is_finite()) && lse[0].is_finite());
}

#[test]
fn scale_and_sinks_per_head() {
    let mut case = Case::new(40, 50).heads(2, 4, 2);
    case.scale_per_head = Some(vec![0.1, -0.2, 0.0, 1.5]);
    case.check_on("as found", ctx());
    case.scale_per_head = None;
    case.sinks = true;
    case.check();
    case.sizes.len_q = 90;
    case.causal().check_on("as found, with rows that see only the sink", ctx());
}

#[test]
fn bits_broadcast() {
    for dims in [[1, 1, 1], [2, 1, 45], [1, 4, 45], [2, 4, 45]] {
        let mut case = Case::new(45, 70).heads(2, 4, 4);
        case.bits = Some(dims);
        case.check_on("as found", ctx());
    }
    let mut case = Case::new(45, 64);
    case.bits = Some([1, 2, 45]);
    case.check();
}

#[test]
fn everything_at_once() {
    let mut case = Case::new(70, 90).heads(2, 4, 2).causal();
    case.left = Some(50);
    case.scale_per_head = Some(vec![0.1, -0.2, 0.3, 1.5]);
    case.softcap = Some(3.0);
    case.slopes = Some(vec![0.5, 0.25, 0.125, 0.0]);
    case.bias = Some([1, 4, 70]);
    case.bits = Some([2, 1, 70]);
    case.sinks = true;
    case.check();
    case.f16().check();
}
