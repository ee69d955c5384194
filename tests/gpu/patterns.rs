//! Patterns that run on the device.

use wgpu_attention::patterns::zero_keys;
use wgpu_attention::{Attention, DType, Layout, Mask, Tensor};

use crate::support::{Case, ctx, download, read};

/// Keys of zeros, counted or there: the same.
#[test]
fn zero_keys_are_keys_of_zeros() {
    let case = Case::new(7, 9).heads(2, 3, 3);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let counts = [0, 1, 2, 3, 0, 5, 4];
    // Query 4 sees no key at all.
    let mask = Mask::queries(0..4) | Mask::queries(5..7);
    let (out, lse) = Attention::new(&q, &k, &v).mask(mask.clone()).run_with_lse(ctx()).unwrap();
    let (out, lse) = zero_keys(ctx(), &out, &lse, &counts).unwrap();

    // Five keys of zeros behind the nine, of which each query sees as many as its count says.
    let padded = |x: &Tensor| {
        let dim = x.shape()[3];
        let values: Vec<f32> = read(ctx(), x).unwrap();
        let rows: Vec<f32> = values.chunks(9 * dim).flat_map(|head| [head, &vec![0.0; 5 * dim]].concat()).collect();
        Tensor::from_slice(ctx(), [2, 3, 14, dim], &rows).unwrap()
    };
    let keys: Vec<u32> = [vec![0; 9], vec![1, 2, 3, 4, 5]].concat();
    let from: Vec<u32> = counts.iter().map(|_| 1).collect();
    let seen = mask & Mask::keys(0..9) | Mask::ranges(&keys, &from, &counts);
    let (want, want_lse) = Attention::new(&q, &padded(&k), &padded(&v)).mask(seen).run_with_lse(ctx()).unwrap();
    for (got, want) in [(&out, &want), (&lse, &want_lse)] {
        for (a, b) in download(ctx(), got).unwrap().iter().zip(download(ctx(), want).unwrap()) {
            assert!(*a == b || (a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn zero_keys_refuses_what_it_cannot_copy() {
    let zeros = |dtype, shape| Tensor::zeros(ctx(), dtype, shape).unwrap();
    let (out, lse) = (zeros(DType::F32, [1, 1, 4, 3]), zeros(DType::F32, [1, 1, 4, 1]));
    let told = |out: &Tensor, lse: &Tensor, counts: &[u32]| zero_keys(ctx(), out, lse, counts).unwrap_err().to_string();
    assert_eq!(told(&out, &lse, &[1; 3]), "counts: has 3 values, but must have one a token (4)");
    assert_eq!(
        told(&out, &zeros(DType::F32, [1, 2, 2, 1]), &[1; 4]),
        "lse: shape is [1, 2, 2, 1], but must be [1, 1, 4, 1], one a row of out"
    );
    assert_eq!(told(&out, &zeros(DType::U32, [1, 1, 4, 1]), &[1; 4]), "lse: is u32, but must be f32");
    assert_eq!(told(&zeros(DType::U32, [1, 1, 4, 3]), &lse, &[1; 4]), "out: is u32, but must be f32 or f16");
    let view = zeros(DType::F32, [1, 1, 8, 3]).narrow(2, 4, 4).unwrap();
    assert!(told(&view, &lse, &[1; 4]).contains("must be contiguous from the buffer's start"));
    let buffer = ctx().device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 48,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let bare = Tensor::from_buffer(&buffer, Layout::new(DType::F32, [1, 1, 4, 3]).unwrap()).unwrap();
    assert!(told(&bare, &lse, &[1; 4]).contains("must include COPY_SRC"));
    // Nothing to do is fine.
    let (out, _) =
        zero_keys(ctx(), &zeros(DType::F32, [0, 1, 4, 3]), &zeros(DType::F32, [0, 1, 4, 1]), &[1; 4]).unwrap();
    assert_eq!(out.shape(), [0, 1, 4, 3]);
}
