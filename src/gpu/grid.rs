//! The grid of specialisations: what tests link, validate and translate, and what `examples/dump_shaders` writes for other
//! compilers. Kernels of linear attention follow from descriptions instead: planning them is the way to their specs.

use super::attention_spec::{AttentionSpec, ScoreMod, Storage, Visitor};
use super::flat_spec::{CombineSpec, HalvesSpec, PermuteSpec};
use super::layout::DType;
use super::mask_spec::{ListsSpec, ListsStep, MaskSpec, UserSpec};
use super::matrices::{FragmentLayout, Fragments, Matrices};
use super::probe::ProbeSpec;
use super::spec::Spec;
use super::tiles::ALL_TILES;
use super::tuning::{Products, Tile};
use crate::attention::Weights;

/// All of it.
pub(crate) fn all() -> Vec<Spec> {
    [tiles_and_dims(), masks(), options(), on_matrix_units()].concat()
}

/// Both values of a switch.
const BOTH: [bool; 2] = [false, true];

fn spec(tile: Tile, dims: [u32; 2], dtype: DType, storage: Storage, subgroups: bool) -> AttentionSpec {
    AttentionSpec {
        visitor: Visitor::Dense,
        dtype,
        pairs: false,
        storage,
        head_dim: dims[0],
        v_dim: dims[1],
        tile,
        pack: 1,
        subgroups,
        lse: true,
        split: false,
        weights: Weights::Softmax,
        mask: MaskSpec::default(),
        user: UserSpec::default(),
        test_all: false,
        whole_tiles: false,
        staged_list: false,
        scale_last: false,
        tasks: false,
        scale_per_head: false,
        sinks: false,
        scores: Vec::new(),
        bias_dtype: DType::F32,
        relative_dtype: DType::F32,
        abreast: false,
        tours: false,
        redo: false,
    }
}

/// A mask of these rules, all of which must hold.
fn mask(rules: &[&'static str]) -> MaskSpec {
    const FILES: [(&str, &str); 8] = [
        ("bits", "mods/mask_bits.wgsl"),
        ("blocks", "mods/mask_blocks.wgsl"),
        ("distance", "mods/mask_distance.wgsl"),
        ("groups", "mods/mask_groups.wgsl"),
        ("ranges", "mods/mask_ranges.wgsl"),
        ("tiles", "mods/mask_tiles.wgsl"),
        ("tokens", "mods/mask_tokens.wgsl"),
        ("window", "mods/mask_window.wgsl"),
    ];
    let call = |(n, rule): (usize, &&str)| format!("mask_by_{rule}({n}u, at, q_idx, kv_idx)");
    let calls: Vec<String> = rules.iter().enumerate().map(call).collect();
    let text = calls.join(" && ");
    let file = |rule: &&str| FILES.iter().find(|(name, _)| name == rule).expect("a rule").1;
    MaskSpec {
        text: format!("fn mask_mod(at: QTile, q_idx: u32, kv_idx: u32) -> bool {{ return {text}; }}\n"),
        files: rules.iter().map(file).collect(),
        ..MaskSpec::default()
    }
}

/// Every mask rule in every way of visiting, orders, heads that differ, packed sequences, and the lists they need.
pub(super) fn masks() -> Vec<Spec> {
    let all = ["bits", "blocks", "distance", "groups", "ranges", "tiles", "tokens", "window"];
    let mut specs = Vec::new();
    for tile in [ALL_TILES[1], ALL_TILES[8], ALL_TILES[9]] {
        for bits in 0..8u32 {
            let on = |bit: u32| bits >> bit & 1 == 1;
            for rules in all.map(|rule| vec![rule]).into_iter().chain([all.to_vec()]) {
                let mut spec = spec(tile, [32, 32], DType::F32, Storage::Vec4, false);
                spec.mask = MaskSpec { order: on(0), heads_differ: on(1), ..mask(&rules) };
                spec.visitor = if on(0) || on(2) { Visitor::List } else { Visitor::Window };
                spec.tasks = !on(0) && !on(2);
                spec.test_all = spec.tasks;
                spec.pack = if on(0) || on(1) { 1 } else { 4 };
                spec.weights = if on(1) && on(2) { Weights::Relu } else { Weights::Softmax };
                spec.scores = if on(2) { vec![ScoreMod::Relative(3), ScoreMod::Softcap] } else { vec![] };
                spec.relative_dtype = if on(1) { DType::F16 } else { DType::F32 };
                for step in [ListsStep::Classify, ListsStep::Compact] {
                    specs.push(Spec::Lists(ListsSpec {
                        step,
                        block_q: tile.block_q,
                        block_kv: tile.block_kv,
                        pack: spec.pack,
                        mask: spec.mask.clone(),
                        user: UserSpec::default(),
                    }));
                }
                specs.push(Spec::Attention(spec));
            }
        }
    }
    for dtype in [DType::F32, DType::F16, DType::U32] {
        specs.extend(BOTH.map(|vec4| Spec::Permute(PermuteSpec { dtype, vec4 })));
    }
    specs
}

/// Every tile of the tables at dims on purpose, in every storage and reduction.
pub(super) fn tiles_and_dims() -> Vec<Spec> {
    let mut specs = Vec::new();
    for tile in ALL_TILES {
        for dims in [[1, 1], [7, 3], [64, 64], [80, 40], [128, 128], [256, 256]] {
            // Storage type and reduction are fragments of their own; `options` crosses the rest.
            for (dtype, subgroups) in [(DType::F32, false), (DType::F16, true)] {
                let subgroups = subgroups && tile.lanes > 1;
                specs.push(Spec::Attention(spec(tile, dims, dtype, Storage::Scalar, subgroups)));
                if dims.iter().all(|d| d % 4 == 0) {
                    let storage = match tile.products {
                        Products::Broadcast(_) if dims[0] == 80 => Storage::Wide4,
                        Products::Broadcast(_) => Storage::Wide8,
                        _ => Storage::Vec4,
                    };
                    let spec = spec(tile, dims, dtype, storage, subgroups);
                    // f16 without 16-bit floats, stored by the loop or by a merge.
                    let packed = (dtype == DType::F16 && dims[0] < 256).then(|| {
                        let spec = AttentionSpec { pairs: true, split: dims[0] == 80, ..spec.clone() };
                        Spec::Attention(spec)
                    });
                    specs.push(Spec::Attention(spec));
                    specs.extend(packed);
                }
            }
        }
    }
    specs
}

/// Every combination of options, on small tiles.
pub(super) fn options() -> Vec<Spec> {
    use ScoreMod::{Alibi, Bias, Softcap};
    let scores: [&[ScoreMod]; 5] = [&[], &[Softcap], &[Alibi], &[Bias, Softcap], &[Softcap, Alibi, Bias]];
    let mut specs = Vec::new();
    for bits in 0..64u32 {
        let on = |bit: u32| bits >> bit & 1 == 1;
        let tile = ALL_TILES[if bits % 7 < 5 { 8 } else { 9 }];
        for scores in scores {
            let mut spec = spec(tile, [16, 16], if on(0) { DType::F16 } else { DType::F32 }, Storage::Vec4, true);
            spec.visitor = if on(1) { Visitor::Window } else { Visitor::Dense };
            spec.abreast = on(1) && on(3);
            spec.lse = on(2);
            spec.mask = if on(3) { mask(&["bits"]) } else { MaskSpec::default() };
            spec.test_all = on(3);
            spec.scale_per_head = on(4);
            spec.sinks = on(5);
            spec.split = bits % 5 < 2;
            spec.pack = [1, 4, 7][bits as usize % 3];
            spec.bias_dtype = if bits % 3 == 0 { DType::F16 } else { DType::F32 };
            spec.scores = scores.to_vec();
            specs.push(Spec::Attention(spec));
        }
    }
    let f32_to = |out_dtype, pairs| (DType::F32, out_dtype, pairs);
    let f16_to = |out_dtype| (DType::F16, out_dtype, false);
    for (parts_dtype, out_dtype, pairs) in
        [f32_to(DType::F32, false), f32_to(DType::F16, true), f16_to(DType::F16), f16_to(DType::F32)]
    {
        for lse in BOTH {
            specs.extend(BOTH.map(|mass| Spec::Combine(CombineSpec { parts_dtype, out_dtype, pairs, lse, mass })));
        }
    }
    specs
}

/// Query tile after query tile, by every visitor.
fn in_tours(spec: &AttentionSpec) -> [AttentionSpec; 4] {
    let dense = AttentionSpec { head_dim: 128, v_dim: 80, tours: true, ..spec.clone() };
    let window = AttentionSpec { visitor: Visitor::Window, scale_last: true, ..dense.clone() };
    let listed = AttentionSpec { visitor: Visitor::List, mask: mask(&["blocks"]), ..dense.clone() };
    let untested = listed.mask.untested();
    let staged = AttentionSpec { whole_tiles: true, staged_list: true, mask: untested, ..listed.clone() };
    [dense, window, staged, listed]
}

/// Both ways of reaching into blocks, every size and subgroup, dims that fill a block and that do not.
pub(super) fn on_matrix_units() -> Vec<Spec> {
    let [quads, columns] = FragmentLayout::KNOWN.map(Fragments::Registers);
    let units = [(16, 32, quads), (16, 32, Fragments::Workgroup), (16, 64, Fragments::Workgroup), (8, 8, columns)];
    let mut specs = Vec::new();
    for (size, subgroup, fragments) in units.into_iter().chain([(8, 8, Fragments::Workgroup)]) {
        for (strips, row_blocks, block_kv) in [(4, 1, 32), (2, 2, 32), (1, 1, 64)] {
            for dims in [[64, 64], [80, 40], [7, 3]] {
                let tile = Matrices { size, subgroup, fragments }.tile(strips, row_blocks, block_kv);
                let storage = [Storage::Scalar, Storage::Vec8, Storage::Vec4][match dims[0] {
                    7 => 0,
                    64 => 1,
                    _ => 2,
                }];
                let mut spec = spec(tile, dims, DType::F16, storage, true);
                // What matrix units cannot compute, of either type.
                let storage = if dims[0] == 7 { Storage::Scalar } else { Storage::Vec4 };
                let again =
                    |spec: &AttentionSpec| AttentionSpec { tile: tile.multiply_adds(256), redo: true, ..spec.clone() };
                specs.push(Spec::Attention(again(&AttentionSpec { storage, ..spec.clone() })));
                if fragments != Fragments::Workgroup {
                    // f32 as halves.
                    let halves = AttentionSpec { dtype: DType::F32, storage, ..spec.clone() };
                    specs.extend([again(&halves), halves.clone()].map(Spec::Attention));
                    let parts = Tile { v_parts: 2, ..tile };
                    specs.push(Spec::Attention(AttentionSpec { tile: parts, v_dim: 2 * size, ..halves }));
                    for (dim, vec4) in [(dims[0], storage == Storage::Vec4), (dims[1], false)] {
                        let padded = dim.next_multiple_of(size);
                        specs.push(Spec::Halves(HalvesSpec { dim, padded, subgroup, vec4 }));
                    }
                }
                if dims[0] == 80 {
                    spec.visitor = Visitor::Window;
                    spec.scores = vec![ScoreMod::Softcap, ScoreMod::Bias];
                    spec.mask = mask(&["bits"]);
                    spec.sinks = true;
                }
                if fragments == quads && [strips, block_kv] == [4, 32] && dims[0] == 64 {
                    specs.extend(in_tours(&spec).map(Spec::Attention));
                }
                if dims[0] == 64 {
                    // Keys that fill their tiles.
                    specs.push(Spec::Attention(AttentionSpec { whole_tiles: true, ..spec.clone() }));
                }
                specs.push(Spec::Attention(spec));
            }
        }
    }
    specs.extend([(16, 32), (8, 8)].map(|(size, subgroup)| Spec::Probe(ProbeSpec { size, subgroup })));
    specs
}
