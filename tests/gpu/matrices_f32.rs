//! f32 on matrix units, as two f16 a number: by the same rule as multiply-adds, whatever the operands are, on devices whose
//! blocks lie in registers.

use wgpu_attention::reference::check as check_rule;
use wgpu_attention::{Attention, Context, DType, Fragments, Mask, Matrices, Products, Score, Tensor, Tile};

use crate::matrices::scaled;
use crate::support::{Case, Change, as_gpu, ctx, download};
use crate::{masks, matrices, matrices_f32_wide};

/// The device's matrix units, where threads know what they hold of a block.
pub fn units() -> Option<Matrices> {
    ctx().capabilities().matrices.filter(|matrices| matches!(matrices.fragments, Fragments::Registers(_)))
}

/// Checks a case on a few tiles.
fn check(case: &Case) {
    let Some(matrices) = units() else { return };
    // Of blocks of 8 rows, a row's threads want more than 16 keys.
    let narrow = (matrices.size == 16).then(|| matrices.tile(4, 1, 16));
    for tile in matrices::small_tiles(matrices).into_iter().chain(narrow) {
        let mut case = case.clone();
        case.tile = Some(tile);
        case.check_on("f32 on matrix units", ctx());
    }
}

#[test]
fn lengths_and_widths() {
    let Some(matrices) = units() else { return };
    let size = matrices.size as usize;
    for (len_q, len_kv) in [(1, 1), (17, 70), (70, 101), (130, 33), (200, 300)] {
        check(&Case::new(len_q, len_kv).dims(size, size));
    }
    // In blocks: 1.5 by 2.5, parts of one, 0.75 by 1.25, 2 by 2.
    for (head_dim, v_dim) in [(size * 3 / 2, size * 5 / 2), (7, 3), (size * 3 / 4, size * 5 / 4), (2 * size, 2 * size)]
    {
        check(&Case::new(37, 45).dims(head_dim, v_dim));
    }
}

#[test]
fn no_keys_and_no_queries() {
    check(&Case::new(20, 0).dims(16, 16));
    check(&Case::new(0, 20).dims(16, 16));
}

#[test]
fn bands_heads_and_rules() {
    matrices::rules().iter().for_each(check);
}

#[test]
fn tile_lists() {
    let Some(matrices) = units() else { return };
    let mask = (Mask::causal() & !Mask::window(20, 0)) | Mask::keys(0..5);
    let host = mask.host([2, 2, 70, 130]).unwrap();
    let visits = masks::VISITS.map(|visit| (visit, Some(matrices.tile(2, 1, 32))));
    masks::check_by(&masks::small(70, 130), &mask, &|b, h, i, j| host.allows(b, h, i, j), ctx(), &visits);
}

/// 10 to a power that goes up and down with `n`, between -most and most.
fn power(n: usize, most: f32) -> f32 {
    10f32.powf(most * ((n * 7 % 13) as f32 / 6.0 - 1.0))
}

/// Scores of several hundred, either sign of scale; no scores at all.
#[test]
fn large_scores() {
    for scale in [20.0, -30.0, 1000.0, 0.0] {
        let mut case = Case::new(40, 130).dims(16, 16);
        case.scale = Some(scale);
        check(&case);
    }
}

/// What breaks two f16 if rows do not have powers of their own, or sums run on in matrix units, or small numbers vanish.
#[test]
fn magnitudes_of_all_kinds() {
    let changes: [(&str, Change); 14] = [
        // Not above 1: of a few rows with scores of hundreds one decides what the plain formula errs, and one what the kernel does.
        ("rows of q", |s, x| scaled(&mut x[0], s.head_dim, |row, _| power(row, 4.0).min(1.0))),
        ("rows of k", |s, x| scaled(&mut x[1], s.head_dim, |row, _| power(row, 30.0).min(1.0))),
        ("rows of v", |s, x| scaled(&mut x[2], s.v_dim, |row, _| power(row, 30.0))),
        ("columns of v", |s, x| scaled(&mut x[2], s.v_dim, |_, col| power(col, 30.0))),
        ("small v", |s, x| scaled(&mut x[2], s.v_dim, |_, _| 1e-30)),
        ("large v", |s, x| scaled(&mut x[2], s.v_dim, |_, _| 1e30)),
        ("small q, large k", |s, x| {
            scaled(&mut x[0], s.head_dim, |_, _| 1e-30);
            scaled(&mut x[1], s.head_dim, |_, _| 1e30);
        }),
        ("columns of q and k that balance", |s, x| {
            scaled(&mut x[0], s.head_dim, |_, col| power(col, 6.0));
            scaled(&mut x[1], s.head_dim, |_, col| 1.0 / power(col, 6.0));
        }),
        ("columns of q and k that do not meet", |s, x| {
            scaled(&mut x[0], s.head_dim, |_, col| if col == 0 { 1e30 } else { 1.0 });
            scaled(&mut x[1], s.head_dim, |_, col| if col == 0 { 0.0 } else { 1.0 });
        }),
        ("rows and columns that are zero", |s, x| {
            scaled(&mut x[0], s.head_dim, |row, col| if row % 5 == 0 || col == 2 { 0.0 } else { 1.0 });
            scaled(&mut x[2], s.v_dim, |row, col| if row % 2 == 0 || col == 3 { 0.0 } else { 1.0 });
        }),
        ("positive", |_, x| x.iter_mut().flatten().for_each(|x| *x = x.abs())),
        ("growing maxima", matrices::growing),
        ("one key dominates", matrices::dominated),
        // Weight e^-50, value 1e20.
        ("a light key of great value", |s, x| {
            x[0].fill(1.0);
            scaled(&mut x[1], s.head_dim, |_, _| 0.01);
            x[1][9 * s.head_dim..10 * s.head_dim].fill(-50.0 / (s.head_dim as f32).sqrt());
            scaled(&mut x[2], s.v_dim, |row, _| if row == 9 { 1e20 } else { 1.0 });
        }),
    ];
    let Some(matrices) = units() else { return };
    let size = matrices.size as usize;
    for (name, change) in changes {
        println!("{name}");
        for (head_dim, v_dim) in [(16, 16), (2 * size, size * 3 / 2)] {
            let mut case = Case::new(50, 140).dims(head_dim, v_dim).heads(1, 1, 1);
            case.change = Some(change);
            check(&case);
        }
    }
}

/// The tolerance rule knows no columns; values do, and none may be lost beside large ones.
#[test]
fn small_columns_of_values_keep_their_bits() {
    let Some(matrices) = units() else { return };
    let changes: [Change; 3] = [
        |s, x| scaled(&mut x[2], s.v_dim, |_, col| power(col, 30.0)),
        |s, x| scaled(&mut x[2], s.v_dim, |_, col| if col == 3 { 1e-9 } else { 1.0 }),
        |s, x| scaled(&mut x[2], s.v_dim, |row, col| if row == 9 && col == 3 { 1e9 } else { 1.0 }),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut case = Case::new(50, 140).dims(16, 16).heads(1, 1, 1);
        (case.change, case.tile) = (Some(change), Some(matrices.tile(2, 1, 32)));
        let results = [case.run(ctx()).unwrap().0, case.oracle::<f64>().0, case.oracle::<f32>().0];
        for col in 0..16 {
            let [got, exact, plain] =
                results.each_ref().map(|x| x.iter().skip(col).step_by(16).copied().collect::<Vec<_>>());
            check_rule(&got, &exact, &plain, DType::F32).unwrap_or_else(|e| panic!("change {n}, column {col}: {e}"));
        }
    }
}

/// What a masked key holds does not matter, however large it is, or whether it is a number; what a visible one holds shows in the
/// rows that see it, and in no other.
#[test]
fn strange_numbers_show_where_they_are_seen() {
    let Some(matrices) = units() else { return };
    // The second is computed in parts of the columns: what is met in one of them, whichever, all must know.
    let (dims, tile) = matrices_f32_wide::wide(matrices);
    strange_numbers([16, 16], matrices.tile(2, 1, 32), 3);
    strange_numbers(dims, tile, dims[1] - 3);
}

fn strange_numbers([dim, v_dim]: [usize; 2], tile: Tile, at: usize) {
    let (len, key) = (70, 44);
    let case = Case::new(len, len).dims(dim, v_dim).heads(1, 1, 1).causal();
    let tensor = |ctx: &Context, x: &[f32]| Tensor::from_slice(ctx, [1, 1, len, x.len() / len], x).unwrap();
    let run = |q: &[f32], k: &[f32], v: &[f32]| {
        let [q, k, v] = [q, k, v].map(|x| tensor(ctx(), x));
        let description = Attention::new(&q, &k, &v).mask(Mask::causal()).tile(tile);
        download(ctx(), &description.run(ctx()).unwrap()).unwrap()
    };
    let [q, k, v] = case.operands();
    let plain = run(&q, &k, &v);
    for strange in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30] {
        let mut v = v.clone();
        v[key * v_dim + at] = strange;
        for (n, (x, plain)) in run(&q, &k, &v).iter().zip(&plain).enumerate() {
            let (row, col) = (n / v_dim, n % v_dim);
            let right = match row >= key && col == at {
                true => *x == f64::from(strange) || (x.is_nan() && strange.is_nan()) || (strange == 1e30 && *x > 1e20),
                false => (x - plain).abs() <= 1e-6,
            };
            assert!(right, "{strange} in value {key}: row {row}, column {col} is {x}, was {plain}");
        }
        let mut k = k.clone();
        k[key * dim + 3] = strange;
        for (n, (x, plain)) in run(&q, &k, &case.operands()[2]).iter().zip(&plain).enumerate() {
            let row = n / v_dim;
            let right = if row >= key { !strange.is_nan() || x.is_nan() } else { (x - plain).abs() <= 1e-6 };
            assert!(right, "{strange} in key {key}: row {row} is {x}, was {plain}");
        }
    }
}

#[test]
fn the_plan_says_so() {
    let Some(matrices) = units() else { return };
    let mut case = Case::new(40, 50).dims(16, 16);
    case.tile = Some(matrices.tile(2, 1, 32));
    let [q, k, v] = case.upload(ctx()).unwrap();
    let plan = case.describe(ctx(), &q, &k, &v).unwrap().plan(ctx()).unwrap().to_string();
    for said in ["f32 as two f16", "on matrix units from two f16 a number", "of the rows that two f16 could not hold"] {
        assert!(plan.contains(said), "{plan}");
    }
}

/// What the library chooses by itself, and what it does without.
#[test]
fn large_problems_are_split() {
    let Some(matrices) = units().filter(|matrices| matrices.size == 16) else { return };
    let case = Case::new(1024, 1024).heads(1, 8, 8);
    let gpu = ctx().restricted(as_gpu(ctx().capabilities())).unwrap();
    let plan = |case: &Case, ctx: &Context| {
        let [q, k, v] = case.upload(ctx).unwrap();
        case.describe(ctx, &q, &k, &v).unwrap().plan(ctx).unwrap()
    };
    // One that compiles fast where a call takes less than half a millisecond.
    assert_eq!(plan(&case, &gpu).tile(), Some(matrices.tile(8, 1, 32)));
    assert_eq!(plan(&Case::new(4096, 8192).heads(1, 8, 8), &gpu).tile(), Some(matrices.tile(4, 2, 32)));
    case.check_on("large", &gpu);
    let without = gpu.restricted(gpu.capabilities().clone().without_matrices()).unwrap();
    for (case, ctx) in [(&case, &without), (&Case::new(128, 128), &gpu)] {
        assert_eq!(plan(case, ctx).tile().map(|tile| tile.products), Some(Products::Staged));
    }
}

#[test]
fn what_cannot_be_split_is_refused() {
    let Some(matrices) = units() else { return };
    let x = Tensor::zeros(ctx(), DType::F32, [1, 1, 40, 16]).unwrap();
    let text = "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32 { return score * 1000.0; }";
    let description = Attention::new(&x, &x, &x).score(Score::wgsl(text)).tile(matrices.tile(2, 1, 32));
    let refusal = description.plan(ctx()).unwrap_err().to_string();
    assert!(refusal.contains("may magnify what scores lose"), "{refusal}");
}
