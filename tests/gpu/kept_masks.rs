//! Lists that an earlier plan made serve those that follow.

use wgpu_attention::{Attention, Context, Mask, Neighborhood, Order, Relative, Score, Tensor, Visit};

use crate::data;
use crate::masks::{SMALL, small};
use crate::support::{ctx, download};

/// Whatever was planned before, in whichever order: the numbers are those of a context that has planned nothing.
#[test]
fn plans_do_not_depend_on_earlier_ones() {
    let case = small(64, 64);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let relative = Tensor::from_slice(ctx(), [1, 2, 1, 225], &data::normal(8, 450)).unwrap();
    let cells: Vec<u32> = (0..64).collect();
    let mirrored: Vec<u32> = cells.iter().rev().copied().collect();
    let grid = |window| Mask::neighborhood(&[8, 8], Neighborhood::new(window));
    let plain = |mask| Attention::new(&q, &k, &v).mask(mask).visit(Visit::Listed).tile(SMALL);
    // The same mask with scores whose tables differ in content alone, and not at all.
    let biased = |keys| plain(grid([5, 3])).score(Score::relative(&relative, Relative::cells(&[8, 8], &cells, keys)));
    let all = [
        plain(grid([5, 3])),
        biased(&cells),
        biased(&mirrored),
        plain(grid([3, 5])),
        plain(grid([5, 3])).order(Order::sequence()),
        plain(grid([5, 3]) & Mask::causal()),
        plain(grid([5, 3])).visit(Visit::ListedPartial),
        plain(grid([5, 3])).visit(Visit::Every),
    ];
    let run = |attention: &Attention, ctx: &Context| download(ctx, &attention.run(ctx).unwrap()).unwrap();
    let alone: Vec<Vec<f64>> =
        all.iter().map(|attention| run(attention, &Context::new(ctx().device(), ctx().queue()))).collect();
    let differ = alone.iter().enumerate().filter(|(n, x)| !alone[..*n].contains(x)).count();
    assert!(differ >= 5, "five of them compute something else");
    let order = [0, 0, 1, 2, 1, 1, 0, 3, 4, 0, 5, 6, 7, 2, 3, 7, 6, 5, 4, 2];
    for n in order {
        assert_eq!(run(&all[n], ctx()), alone[n], "description {n}");
    }
}

/// Lists that were made once are those of plans that follow, which say so.
#[test]
fn lists_outlive_their_plan() {
    let case = small(96, 96);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let plan = || {
        let mask = Mask::window(9, 3) | Mask::block_diagonal(24);
        Attention::new(&q, &k, &v).mask(mask).visit(Visit::Listed).tile(SMALL).plan(ctx()).unwrap()
    };
    let lists = |plan: &wgpu_attention::Plan| pollster::block_on(plan.tile_lists()).unwrap();
    // All but the bytes: the first has the numbers that kernels of lists are told.
    let told = |plan: &wgpu_attention::Plan| plan.to_string().split("  workspace").next().map(String::from).unwrap();
    let first = plan();
    assert!(told(&first).contains("once, when first planned: classify"), "{first}");
    let before = (told(&first), lists(&first));
    drop(first);
    let again = plan();
    assert_eq!((told(&again), lists(&again)), before);
}
