//! Strides, offsets and views: the same numbers wherever the elements lie.

use wgpu_attention::{Attention, DType, Layout, Tensor};

use crate::support::{Case, ctx, download, upload};

/// The contiguous result, and those of the same operands seen through other layouts.
fn contiguous(case: &Case) -> Vec<f64> {
    case.run(ctx()).unwrap().0
}

/// The same elements with the dimensions stored in another order.
fn stored(x: &Tensor, order: [usize; 4]) -> Tensor {
    let (shape, values) = (x.shape(), download(ctx(), x).unwrap());
    let stored_shape = order.map(|dim| shape[dim]);
    let strides = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1];
    let mut permuted = Vec::with_capacity(values.len());
    for a in 0..stored_shape[0] {
        for b in 0..stored_shape[1] {
            for c in 0..stored_shape[2] {
                for d in 0..stored_shape[3] {
                    let at: usize = order.iter().zip([a, b, c, d]).map(|(dim, i)| strides[*dim] * i).sum();
                    permuted.push(values[at] as f32);
                }
            }
        }
    }
    let tensor = upload(ctx(), x.layout().dtype(), stored_shape, &permuted).unwrap();
    // Where dimension 0 to 3 of the tensor lies among the stored ones.
    let place = |dim: usize| order.iter().position(|d| *d == dim).unwrap();
    let layout = tensor.layout().strides();
    let strides = [0, 1, 2, 3].map(|dim| layout[place(dim)]);
    let view = Layout::strided(x.layout().dtype(), shape, strides, 0).unwrap();
    Tensor::from_buffer(tensor.buffer(), view).unwrap()
}

#[test]
fn any_order_of_dimensions() {
    for (case, order) in [
        (Case::new(40, 50).heads(2, 3, 3), [0, 2, 1, 3]),
        (Case::new(40, 50).heads(2, 3, 3), [0, 1, 3, 2]),
        (Case::new(41, 50).heads(2, 3, 1), [3, 2, 1, 0]),
        (Case::new(40, 50).heads(2, 3, 3).f16(), [2, 0, 1, 3]),
    ] {
        if case.dtype == DType::F16 && !ctx().capabilities().f16 {
            continue;
        }
        let [q, k, v] = case.upload(ctx()).unwrap();
        let (q, k, v) = (stored(&q, order), stored(&k, order), stored(&v, order));
        let (out, lse) = Attention::new(&q, &k, &v).run_with_lse(ctx()).unwrap();
        case.compare(&format!("stored as {order:?}"), &download(ctx(), &out).unwrap(), &download(ctx(), &lse).unwrap());
    }
}

#[test]
fn outputs_through_strides() {
    let case = Case::new(40, 50).heads(2, 3, 3);
    let [q, k, v] = case.upload(ctx()).unwrap();
    for order in [[0, 2, 1, 3], [0, 1, 3, 2]] {
        let zeros = Tensor::zeros(ctx(), DType::F32, [2, 3, 40, 64]).unwrap();
        let out = stored(&zeros, order);
        Attention::new(&q, &k, &v).out(&out).run(ctx()).unwrap();
        let (_, lse) = case.run(ctx()).unwrap();
        case.compare(&format!("written as {order:?}"), &download(ctx(), &out).unwrap(), &lse);
    }
}

#[test]
fn slices_of_one_packed_buffer() {
    // [batch, len, 3 * heads, dim], as models store q, k and v together.
    let case = Case::new(40, 40).heads(2, 3, 3);
    let [q, k, v] = case.operands();
    let mut packed = vec![0.0f32; 2 * 40 * 9 * 64];
    for b in 0..2 {
        for i in 0..40 {
            for (part, values) in [&q, &k, &v].into_iter().enumerate() {
                for h in 0..3 {
                    let from = ((b * 3 + h) * 40 + i) * 64;
                    let to = ((b * 40 + i) * 9 + part * 3 + h) * 64;
                    packed[to..to + 64].copy_from_slice(&values[from..from + 64]);
                }
            }
        }
    }
    let packed = Tensor::from_slice(ctx(), [2, 40, 9, 64], &packed).unwrap().transpose(1, 2).unwrap();
    let [q, k, v] = [0, 3, 6].map(|first| packed.narrow(1, first, 3).unwrap());
    let out = Attention::new(&q, &k, &v).run(ctx()).unwrap();
    assert_eq!(download(ctx(), &out).unwrap(), contiguous(&case));
}

#[test]
fn odd_offsets_and_odd_half_buffers() {
    if !ctx().capabilities().f16 {
        return;
    }
    let case = Case::new(9, 11).dims(5, 7).f16();
    let [q, k, v] = case.operands();
    let shifted = |values: &[f32], shape: [usize; 4]| {
        // Three elements of something else before, so that nothing is aligned.
        let padded: Vec<f32> = [f32::NAN; 3].iter().chain(values).copied().collect();
        let buffer = upload(ctx(), DType::F16, [1, 1, 1, padded.len()], &padded).unwrap();
        let strides = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1];
        let layout = Layout::strided(DType::F16, shape, strides, 3).unwrap();
        Tensor::from_buffer(buffer.buffer(), layout).unwrap()
    };
    let (q, k, v) = (shifted(&q, [1, 2, 9, 5]), shifted(&k, [1, 2, 11, 5]), shifted(&v, [1, 2, 11, 7]));
    let (out, lse) = Attention::new(&q, &k, &v).run_with_lse(ctx()).unwrap();
    case.compare("shifted", &download(ctx(), &out).unwrap(), &download(ctx(), &lse).unwrap());
}

#[test]
fn a_batch_that_shares_its_keys() {
    let case = Case::new(20, 30).heads(1, 2, 2);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let wide = |x: &Tensor| x.expand(0, 3).unwrap();
    let out = Attention::new(&wide(&q), &wide(&k), &wide(&v)).run(ctx()).unwrap();
    let once = contiguous(&case);
    assert_eq!(download(ctx(), &out).unwrap(), [once.clone(), once.clone(), once].concat());
}

#[test]
fn channel_attention_is_the_transposed_view() {
    // A = softmax_rows(scale k^T v), out = (A q^T)^T: channels attend to channels.
    let case = Case::new(16, 16).dims(21, 21);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let t = |x: &Tensor| x.transpose(2, 3).unwrap();
    let out = Tensor::zeros(ctx(), DType::F32, [1, 2, 21, 16]).unwrap();
    // q, k, v are [1, 2, 16, 21]; seen as 21 tokens of width 16.
    Attention::new(&t(&k), &t(&v), &t(&q)).scale(0.25).run(ctx()).unwrap();
    let channels = Attention::new(&t(&k), &t(&v), &t(&q)).scale(0.25).run(ctx()).unwrap();
    let again = Attention::new(&t(&k), &t(&v), &t(&q)).scale(0.25).out(&out).run(ctx()).unwrap();
    assert_eq!(download(ctx(), &channels).unwrap(), download(ctx(), &again).unwrap());
    let transposed = Tensor::zeros(ctx(), DType::F32, [1, 2, 16, 21]).unwrap();
    Attention::new(&t(&k), &t(&v), &t(&q)).scale(0.25).out(&t(&transposed)).run(ctx()).unwrap();
    assert_eq!(download(ctx(), &t(&transposed)).unwrap(), download(ctx(), &channels).unwrap());
}
