//! What is refused, and by which words.

use wgpu_attention::reference::Sizes;
use wgpu_attention::{
    Attention, AttentionIo, DType, Layout, Mask, Order, Relative, Score, Task, Tensor, Visit, Weights,
};

use super::{Case, TINY, describe};
use crate::anything::draw::{Draw, told};
use crate::support::ctx;

/// A sound description with one thing wrong.
pub(super) fn wrong(draw: &mut Draw) -> Result<(), String> {
    let mut case = describe(draw);
    case.tasks.clear();
    let Sizes { batch, heads, len_q, len_kv, head_dim, v_dim, .. } = case.sizes;
    let layout = |dtype, shape| Layout::new(dtype, shape).unwrap();
    let of = |n: usize| *case.tensors[n].layout();
    let [q, k, v] = [of(0), of(1), of(2)];
    // Tasks and Relu have refusals of their own, which would come first.
    let plain = Attention::new(&case.tensors[0], &case.tensors[1], &case.tensors[2]);
    let reshaped = |x: &Layout, dim: usize, n: usize| {
        let mut shape = x.shape();
        shape[dim] = n;
        layout(x.dtype(), shape)
    };
    let other = if case.dtype == DType::F32 { DType::U32 } else { DType::F32 };
    let bad = draw.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    let which = draw.below(34);
    draw.note(("wrong", which));
    let plan = |attention: Attention, names: &[&str]| told(attention.plan(ctx()), names);
    match which {
        0 => plan(Attention::new(q, reshaped(&k, 0, batch + 1), v), &["k: batch"]),
        1 => plan(Attention::new(q, k, reshaped(&v, 0, batch + 1)), &["v: batch"]),
        2 => plan(Attention::new(q, reshaped(&k, 1, heads + 1), reshaped(&v, 1, heads + 1)), &["k: heads"]),
        3 => plan(Attention::new(q, reshaped(&k, 3, head_dim + 1), v), &["k: head_dim"]),
        4 => plan(Attention::new(q, k, reshaped(&v, 2, len_kv + 1)), &["v: len"]),
        5 => plan(Attention::new(q, layout(other, k.shape()), v), &["k: is"]),
        6 => plan(Attention::new(layout(DType::U32, q.shape()), k, v), &["q: is u32"]),
        7 => {
            let dim = draw.pick(&[0, 257, 1000]);
            plan(Attention::new(reshaped(&q, 3, dim), reshaped(&k, 3, dim), v), &["q: head_dim"])
        }
        8 => plan(Attention::new(q, k, reshaped(&v, 3, 300)), &["v: v_dim"]),
        9 => plan(plain.scale(bad), &["scale: "]),
        10 => plan(plain.scale_per_head(&vec![1.0; heads + 1]), &["scale: "]),
        11 => plan(plain.scale_per_head(&vec![bad; heads]), &["scale of head 0"]),
        12 => plan(plain.score(Score::softcap(draw.pick(&[0.0, -1.0, f32::NAN]))), &["softcap"]),
        13 => plan(plain.score(Score::alibi(&vec![0.5; heads - 1])), &["alibi slope"]),
        14 => {
            let (dim, n) = draw.pick(&[(0, batch + 1), (1, heads + 1), (2, len_q + 2), (3, len_kv + 1)]);
            let bias = reshaped(&layout(DType::F32, [batch, heads, len_q, len_kv]), dim, n);
            plan(plain.score(Score::bias(bias)), &["bias: "])
        }
        15 => plan(plain.sinks(layout(DType::F32, [1, heads + 1, 1, 1])), &["sinks: "]),
        16 => plan(
            plain.out(reshaped(&layout(case.dtype, [batch, heads, len_q, v_dim]), draw.pick(&[0, 1, 2, 3]), 50)),
            &["out: "],
        ),
        17 => plan(plain.lse_out(layout(DType::F32, [batch, heads, len_q, 2])), &["lse: "]),
        18 => plan(plain.splits(0), &["splits: is 0"]),
        19 => plan(plain.score(Score::softcap(2.0)).score(Score::softcap(2.0)), &["score: softcap"]),
        20 => plan(plain.weights(Weights::Relu).lse(), &["lse: "]),
        21 => {
            let mut tile = TINY;
            let field = draw.below(4);
            *[&mut tile.block_q, &mut tile.block_kv, &mut tile.threads, &mut tile.lanes][field] =
                draw.pick(&[0, 3, 4096]);
            plan(plain.tile(tile), &["tile: ", "workgroup"])
        }
        22 => {
            plan(plain.score(Score::relative(layout(DType::F32, [1, 1, 1, 4]), Relative::sequence(2))), &["relative: "])
        }
        23 => plan(plain.score(Score::wgsl("fn score_mod(")), &["score_mod"]),
        24 => wrong_mask(draw, plain, case.sizes),
        25 => wrong_packing(draw, plain, len_q, len_kv),
        26 => plan(plain.tile(TINY).visit(Visit::Listed).order(Order::tokens(&vec![0; len_q + 2])), &["order: "]),
        27 => told(Attention::new(q, k, v).run(ctx()), &["q: was described"]),
        28 => told(case.tensors[0].narrow(2, len_q, 1), &["narrow"]),
        29 => told(case.tensors[0].transpose(draw.between(4, 9), 0), &["transpose"]),
        30 => told(
            Tensor::from_slice(ctx(), [batch, heads, len_q, 1], &vec![0f32; batch * heads * len_q + 1]),
            &["data: "],
        ),
        31 => told(Layout::new(DType::F32, vec![1; draw.pick(&[0, 1, 3, 5])]), &["shape: "]),
        32 => told(Tensor::from_buffer(case.tensors[0].buffer(), reshaped(&q, 2, 4096)), &["buffer: "]),
        _ => wrong_call(draw, &case),
    }
}

fn wrong_mask(draw: &mut Draw, plain: Attention, sizes: Sizes) -> Result<(), String> {
    let Sizes { batch, heads, len_q, len_kv, .. } = sizes;
    let n = |len: usize| vec![0u32; 2 * batch * len + 1];
    let neighborhood = wgpu_attention::Neighborhood::new([3]);
    let big = vec![1 << 31; len_q.max(1)];
    let (mask, names): (Mask, &[&str]) = match draw.below(10) {
        0 => (Mask::segments(&n(len_q), &vec![0; len_kv]), &["segments of q"]),
        1 => (Mask::segments(&vec![0; len_q], &n(len_kv)), &["segments of kv"]),
        2 => (Mask::positions(&n(len_q), &n(len_kv)), &["last: ", "key: "]),
        3 => (Mask::block_diagonal(0), &["block_diagonal"]),
        4 => (Mask::neighborhood(&[len_q + 1], neighborhood), &["neighborhood", "order"]),
        5 => (Mask::frame_distance(0, 0, &[1]), &["frame_distance"]),
        6 => (Mask::per_head(vec![Mask::causal(); heads + 1]), &["per_head"]),
        7 => (Mask::bits(Layout::new(DType::U32, [batch, heads, len_q, len_kv / 32 + 2]).unwrap()), &["mask_bits"]),
        8 => (Mask::wgsl("fn mask_mod() -> u32 { return 1u; }"), &["mask_mod"]),
        _ => (Mask::ranges(&vec![0; len_kv], &big, &big[..big.len() - 1]), &["from: "]),
    };
    told(plain.mask(mask).plan(ctx()), names)
}

fn wrong_packing(draw: &mut Draw, plain: Attention, len_q: usize, len_kv: usize) -> Result<(), String> {
    let (whole_q, whole_kv) = (vec![0, len_q], vec![0, len_kv]);
    let (attention, names): (_, &[&str]) = match draw.below(6) {
        0 => (plain.packed(&[1, len_q + 1], &whole_kv), &["cu_seqlens_q"]),
        1 => (plain.packed(&whole_q, &[0, len_kv + 1]), &["cu_seqlens_kv"]),
        2 => (plain.packed(&[0, len_q + 1, len_q], &[0, 0, len_kv]), &["cu_seqlens_q"]),
        3 => (plain.packed(&whole_q, &[0, 0, len_kv]), &["cu_seqlens_kv"]),
        4 => (plain.tasks(&[Task { q: 0..len_q + 1, kv: 0..len_kv }]), &["task 0"]),
        _ => (plain.packed(&[], &[]), &["cu_seqlens_q"]),
    };
    told(attention.plan(ctx()), names)
}

/// A sound plan, called with what it was not made for.
fn wrong_call(draw: &mut Draw, case: &Case) -> Result<(), String> {
    let Sizes { batch, heads, len_q, v_dim, .. } = case.sizes;
    let [q, k, v] = &case.tensors;
    let plan = Attention::new(q, k, v).tile(TINY).plan(ctx()).map_err(|e| e.to_string())?;
    let zeros = |shape| Tensor::zeros(ctx(), case.dtype, shape).unwrap();
    let (out, more) = (zeros([batch, heads, len_q, v_dim]), zeros([batch, heads, len_q, v_dim + 1]));
    let lse = Tensor::zeros(ctx(), DType::F32, [batch, heads, len_q, 1]).unwrap();
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    let (io, name) = match draw.below(5) {
        0 => (AttentionIo::new(q, k, v, &more), "out: shape"),
        1 => (AttentionIo::new(q, k, v, &out).lse(&lse), "lse: "),
        2 => (AttentionIo::new(q, k, v, &out).data("ids", &lse), "ids: "),
        3 => (AttentionIo::new(&more, k, v, &out), "q: shape"),
        _ => (AttentionIo::new(q, k, v, &out).sinks(&lse), "sinks: "),
    };
    told(plan.encode(&mut encoder, &io), &[name])?;
    drop(encoder.finish());
    Ok(())
}
