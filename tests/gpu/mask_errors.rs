//! Bad masks, scores, orders and packed sequences get a sentence, and nothing else happens.

use wgpu_attention::{
    Attention, BlockMask, DType, Error, HeadNorm, Input, Layout, Mask, Neighborhood, Order, Relative, Score, Task,
    Tensor, TileClass, Visit, Weights,
};

use crate::errors::refused;
use crate::masks::SMALL;
use crate::support::ctx;

/// q, k, v [2, 4, 12, 16].
fn described() -> Attention {
    let x = Layout::new(DType::F32, [2, 4, 12, 16]).unwrap();
    Attention::new(x, x, x)
}

#[track_caller]
fn mask_refused(mask: Mask, sentence: &str) {
    refused(described().mask(mask).plan(ctx()), sentence);
}

#[test]
fn tables_of_the_wrong_length() {
    let ids = [0u32; 13];
    mask_refused(
        Mask::segments(&ids, &ids[..12]),
        "segments of q: has 13 values, but must have len_q (12) or batch * len_q (24)",
    );
    mask_refused(
        Mask::segments(&ids[..12], &ids),
        "segments of kv: has 13 values, but must have len_kv (12) or batch * len_kv (24)",
    );
    mask_refused(
        Mask::positions(&ids[..12], &[1]),
        "key: has 1 values, but must have len_kv (12) or batch * len_kv (24)",
    );
    mask_refused(Mask::ranges(&ids[..12], &ids[..12], &ids), "from: has 12 values, but must have as many as last (13)");
    mask_refused(
        Mask::groups(&ids[..12], &ids[..3]),
        "groups of kv: has 3 values, but must have len_kv (12) or batch * len_kv (24)",
    );
    let large = [1u32 << 31; 12];
    mask_refused(
        Mask::segments(&large, &large),
        "segments of q: value 0 is 2147483648, but must be below 2^31 (2147483648)",
    );
    mask_refused(Mask::block_diagonal(0), "block_diagonal: size is 0, but must be positive");
    mask_refused(Mask::frame_distance(0, 0, &[1]), "frame_distance: spots is 0, but must be 1 to 65535");
    mask_refused(Mask::frame_distance(0, 4, &[]), "frame_distance: frames is 0, but must be 1 to 65535");
    mask_refused(
        Mask::per_head([Mask::all(), Mask::causal()]),
        "per_head: has 2 masks, but must have one a head of q (4)",
    );
}

#[test]
fn grids_that_do_not_fit() {
    mask_refused(
        Mask::neighborhood(&[3, 5], Neighborhood::new([3, 3])),
        "neighborhood: the grid [3, 5] has 15 tokens, but must have len_q of them (12)",
    );
    mask_refused(
        Mask::neighborhood(&[3, 4], Neighborhood::new([3, 0])),
        "neighborhood: window is [3, 0], but each must be positive",
    );
    mask_refused(
        Mask::neighborhood(&[3, 4], Neighborhood::new([3])),
        "neighborhood: window has 1 values, but must have one a dimension of the grid (2)",
    );
    // Wider than the grid is clamped.
    assert!(described().mask(Mask::neighborhood(&[3, 4], Neighborhood::new([9, 9]))).plan(ctx()).is_ok());
    assert!(described().mask(Mask::window(1000, 1000)).plan(ctx()).is_ok());
}

#[test]
fn lists_of_another_problem() {
    let list = |lens, heads| BlockMask::new(lens, [12, 12], heads, &[0; 3][..heads + 1], &[], &[]).unwrap();
    mask_refused(
        Mask::blocks(&list([12, 10], 1)),
        "block mask: was made for lengths [12, 10], but len_q and len_kv are [12, 12]",
    );
    mask_refused(
        Mask::blocks(&list([12, 12], 2)),
        "block mask: has lists for 2 heads, but must have 1 or one a head of q (4)",
    );
    let classes = [TileClass::Empty];
    refused(
        BlockMask::new([12, 12], [12, 12], 1, &[0, 1], &[0], &classes),
        "class: a listed block is Empty, but must be Partial or Full",
    );
    refused(
        BlockMask::new([12, 12], [0, 12], 1, &[0], &[], &[]),
        "block mask: tile is [0, 12] and heads 1, but all must be positive",
    );
}

#[test]
fn orders_that_are_none() {
    let ordered = |tokens: &[u32]| described().mask(Mask::block_diagonal(3)).order(Order::tokens(tokens)).plan(ctx());
    let mut tokens: Vec<u32> = (0..12).collect();
    tokens[4] = 3;
    refused(ordered(&tokens), "order: slot 4 holds token 3, but must appear once");
    tokens[4] = 12;
    refused(ordered(&tokens), "order: slot 4 holds token 12, but len_q is 12");
    refused(ordered(&tokens[..4]), "order: token 4 is in no slot, but len_q is 12");
}

const HEAD: &str = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool";

#[test]
fn text_that_does_not_compile() {
    mask_refused(
        Mask::wgsl(&format!("{HEAD} {{\n    return kv_idx < slope;\n}}")),
        "mask_mod:2: no definition in scope for identifier: `slope`",
    );
    mask_refused(Mask::wgsl("fn nothing() {}"), &format!("mask_mod: the text must define `{HEAD}`"));
    let score = Score::wgsl("fn score_mod(score: f32) -> f32 { return score; }");
    let signature = "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32";
    refused(described().score(score).plan(ctx()), &format!("score_mod: the text must define `{signature}`"));
    // A name that the library has, and one that two texts have: told, not mixed up.
    let clash = |text: String| match described().mask(Mask::wgsl(&text)).plan(ctx()) {
        Err(Error::Shader(sentence)) => sentence,
        other => panic!("{other:?}"),
    };
    let told = clash(format!("{HEAD} {{ return true; }}\nfn score_tile() {{}}"));
    assert!(told.starts_with("mask_mod:2: ") && told.contains("score_tile"), "{told}");
    let helper = format!("fn twice(x: u32) -> u32 {{ return 2u * x; }}\n{HEAD} {{ return twice(kv_idx) > 3u; }}");
    let both = Mask::wgsl(&helper) & Mask::wgsl(&(helper.clone() + " "));
    let told = described().mask(both).plan(ctx()).unwrap_err().to_string();
    assert!(told.starts_with("mask_mod:1: ") && told.contains("twice"), "{told}");
}

#[test]
fn data_that_does_not_fit() {
    let text = format!("{HEAD} {{ return ids[kv_idx] > 0u; }}");
    let with = |name: &'static str, layout: Layout| Mask::wgsl_with(&text, [(name, Input::from(layout))]);
    let ids = Layout::new(DType::U32, [1, 1, 1, 12]).unwrap();
    assert!(described().mask(with("ids", ids)).plan(ctx()).is_ok());
    mask_refused(with("the ids", ids), "mask_mod: data is named \"the ids\", but must be named like a variable");
    let strided = Layout::strided(DType::U32, [1, 1, 1, 12], [24, 24, 24, 2], 0).unwrap();
    mask_refused(with("ids", strided), "ids: strides are [24, 24, 24, 2], but data of WGSL rules must be contiguous");
    let moved = Layout::strided(DType::U32, [1, 1, 1, 12], [12, 12, 12, 1], 3).unwrap();
    let told = described().mask(with("ids", moved)).plan(ctx()).unwrap_err().to_string();
    assert!(told.starts_with("ids: has 12 elements from offset 3 on"), "{told}");
    // Described by layout: run has nothing to bind.
    let x = Tensor::zeros(ctx(), DType::F32, [1, 1, 12, 16]).unwrap();
    refused(
        Attention::new(&x, &x, &x).mask(with("ids", ids)).run(ctx()),
        "ids: was described by its layout, but run needs a tensor",
    );
}

#[test]
fn relative_tables_that_do_not_fit() {
    let table = |entries| Layout::new(DType::F32, [1, 4, 1, entries]).unwrap();
    let relative = |entries, index| described().score(Score::relative(table(entries), index)).plan(ctx());
    assert!(relative(7, Relative::sequence(3)).is_ok());
    refused(
        relative(8, Relative::sequence(3)),
        "relative: shape is [1, 4, 1, 8], but must be [1, 1 or heads of q (4), 1, entries (7)]",
    );
    let cells: Vec<u32> = (0..12).collect();
    assert!(relative(35, Relative::cells(&[3, 4], &cells, &cells)).is_ok());
    refused(
        relative(35, Relative::cells(&[3, 4], &cells[..3], &cells)),
        "relative: has 3 cells, but must have len_q of them (12)",
    );
    refused(
        relative(9, Relative::cells(&[2, 2], &cells, &cells)),
        "relative: a cell is 4, but the extent [2, 2] has 4",
    );
}

#[test]
fn packed_sequences_that_do_not_add_up() {
    let packed = |q: &[usize], kv: &[usize]| described().packed(q, kv).plan(ctx());
    assert!(packed(&[0, 5, 5, 12], &[0, 3, 12, 12]).is_ok());
    refused(packed(&[1, 12], &[0, 12]), "cu_seqlens_q: begins with 1, but must begin with 0");
    refused(packed(&[0, 7, 5, 12], &[0, 3, 4, 12]), "cu_seqlens_q: 7 is followed by 5, but must not decrease");
    refused(packed(&[0, 12], &[0, 11]), "cu_seqlens_kv: ends with 11, but there are 12 rows");
    refused(packed(&[0, 3, 12], &[0, 12]), "cu_seqlens_kv: has 2 values, but must have as many as cu_seqlens_q (3)");
    let task = |q, kv| Task { q, kv };
    refused(
        described().tasks(&[task(0..5, 0..12), task(4..6, 0..12)]).plan(ctx()),
        "tasks: queries 0..5 and 4..6 overlap, but a row of out is written once; merge shards of keys with Merge",
    );
    refused(described().tasks(&[task(0..5, 0..13)]).plan(ctx()), "task 0: kv is rows 0..13, but kv has 12 rows");
    refused(
        described().packed(&[0, 12], &[0, 12]).mask(Mask::segments(&[0; 12], &[0; 12])).plan(ctx()),
        "mask: segments has tables or tensors of one sequence's length, but packed sequences and tasks have many; use \
         windows, keys, queries, block_diagonal or wgsl",
    );
    let bias = Layout::new(DType::F32, [1, 1, 12, 12]).unwrap();
    refused(
        described().packed(&[0, 12], &[0, 12]).score(Score::bias(bias)).plan(ctx()),
        "bias: has one sequence's length, but packed sequences and tasks have many",
    );
}

#[test]
fn weights_without_a_denominator() {
    refused(
        described().weights(Weights::Relu).lse().plan(ctx()),
        "lse: is asked for, but weights are Relu, which has no denominator",
    );
    let x = Layout::new(DType::U32, [1, 1, 4, 4]).unwrap();
    refused(HeadNorm::new(x).plan(ctx()), "x: is u32, but must be f32 or f16");
    let x = Layout::new(DType::F32, [1, 1, 4, 4]).unwrap();
    refused(HeadNorm::new(x).eps(-1.0).plan(ctx()), "eps: is -1, but must be finite and not negative");
}

#[test]
fn more_than_the_device_binds() {
    let mut capabilities = ctx().capabilities().clone();
    capabilities.storage_buffers = 4;
    let poor = ctx().restricted(capabilities).unwrap();
    assert!(described().plan(&poor).is_ok());
    refused(described().lse().plan(&poor), "storage buffers: needs 5 (q, k, v, out, lse), device allows 4");
    let mut capabilities = ctx().capabilities().clone();
    capabilities.binding_bytes = 1 << 16;
    let poor = ctx().restricted(capabilities).unwrap();
    let x = Layout::new(DType::F32, [1, 1, 4000, 4]).unwrap();
    let long = Attention::new(x, x, x).mask(Mask::block_diagonal(7)).tile(SMALL);
    let told = long.clone().visit(Visit::Listed).plan(&poor).unwrap_err().to_string();
    assert!(told.starts_with("visit: tile lists need "), "{told}");
    // Left to itself it does without lists, and says so.
    let plan = long.plan(&poor).unwrap().to_string();
    assert!(plan.contains("every tile is visited and tested, because tile lists need "), "{plan}");
}
