//! Tokens in another order, as a stage of its own.

use wgpu_attention::{Attention, DType, Mask, Neighborhood, Order, Permute, Tensor, inverse_order};

use crate::support::{Case, ctx, download};

/// Permuted by hand, attended by place, permuted back: the same as through the order.
#[test]
fn permuting_equals_reading_through_the_order() {
    let grid = [9, 12];
    let neighborhood = Neighborhood::new([5, 4]).dilation([1, 2]);
    let case = Case::new(108, 108).dims(20, 20);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let mask = Mask::neighborhood(&grid, neighborhood.clone());
    let fused = download(ctx(), &Attention::new(&q, &k, &v).mask(mask.clone()).run(ctx()).unwrap()).unwrap();

    let [tokens, _] = Order::grid(&grid, &neighborhood).slots([108, 108], [16, 16]).unwrap();
    let permute = |x: &Tensor| Permute::new(x, &tokens).run(ctx()).unwrap();
    let host = mask.host([1, 1, 108, 108]).unwrap();
    let slot = |s: usize| (tokens[s] as usize, tokens[s] != u32::MAX);
    let bits = wgpu_attention::pack_bits(ctx(), tokens.len(), tokens.len(), |i, j| {
        let ((i, real_i), (j, real_j)) = (slot(i), slot(j));
        real_i && real_j && host.allows(0, 0, i, j)
    });
    let boxes =
        Attention::new(&permute(&q), &permute(&k), &permute(&v)).mask(Mask::bits(&bits.unwrap())).run(ctx()).unwrap();
    let back = Permute::new(&boxes, &inverse_order(&tokens, 108)).run(ctx()).unwrap();
    for (a, b) in fused.iter().zip(download(ctx(), &back).unwrap()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn any_type_and_strides() {
    let values: Vec<u32> = (0..2 * 3 * 5 * 4).collect();
    let x = Tensor::from_slice(ctx(), [2, 3, 5, 4], &values).unwrap();
    let order = [4, u32::MAX, 0, 2];
    for x in [x.clone(), x.transpose(1, 3).unwrap().narrow(1, 0, 3).unwrap()] {
        let got: Vec<u32> = pollster::block_on(Permute::new(&x, &order).run(ctx()).unwrap().read(ctx())).unwrap();
        let all: Vec<u32> = pollster::block_on(x.read(ctx())).unwrap();
        let [_, _, len, dim] = x.shape();
        let want: Vec<u32> = (0..6usize)
            .flat_map(|head| order.iter().map(move |&token| (head, token)))
            .flat_map(|(head, token)| (0..dim).map(move |d| (head, token, d)))
            .map(|(head, token, d)| if token == u32::MAX { 0 } else { all[(head * len + token as usize) * dim + d] })
            .collect();
        assert_eq!(got, want);
    }
    let told = Permute::new(&x, &[5]).plan(ctx()).unwrap_err().to_string();
    assert_eq!(told, "tokens: slot 0 holds token 5, but x has 5");
    if !ctx().capabilities().f16 {
        return;
    }
    let half = Tensor::zeros(ctx(), DType::F16, [1, 1, 4, 3]).unwrap();
    assert_eq!(Permute::new(&half, &[3, 0]).run(ctx()).unwrap().shape(), [1, 1, 2, 3]);
    assert_eq!(Permute::new(&half, &[]).run(ctx()).unwrap().shape(), [1, 1, 0, 3]);
}
