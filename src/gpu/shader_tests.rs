//! Shaders without a GPU: the whole grid of specialisations links, validates and translates.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

use super::flat_spec::{CombineSpec, PermuteSpec};
use super::layout::DType;
use super::link::{FRAGMENTS, reflect_bindings, reflect_workgroup_bytes};
use super::mask_spec::{ListsSpec, ListsStep, MaskSpec, UserSpec};
use super::matrices::{FragmentLayout, Fragments, Matrices};
use super::spec::{AttentionSpec, ScoreMod, Spec, Storage, Visitor};
use super::tiles::ALL_TILES;
use super::tuning::{Products, Tile};
use crate::attention::Weights;

/// Both values of a switch.
const BOTH: [bool; 2] = [false, true];

fn spec(tile: Tile, dims: [u32; 2], dtype: DType, storage: Storage, subgroups: bool) -> AttentionSpec {
    AttentionSpec {
        visitor: Visitor::Dense,
        dtype,
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
        tasks: false,
        scale_per_head: false,
        sinks: false,
        scores: Vec::new(),
        bias_dtype: DType::F32,
        relative_dtype: DType::F32,
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
fn masks() -> Vec<Spec> {
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
fn tiles_and_dims() -> Vec<Spec> {
    let mut specs = Vec::new();
    for tile in ALL_TILES {
        for dims in [[1, 1], [7, 3], [64, 64], [80, 40], [128, 128], [256, 256]] {
            // Storage type and reduction are fragments of their own; `options` crosses the rest.
            for (dtype, subgroups) in [(DType::F32, false), (DType::F16, true)] {
                let subgroups = subgroups && tile.lanes > 1;
                specs.push(Spec::Attention(spec(tile, dims, dtype, Storage::Scalar, subgroups)));
                if dims.iter().all(|d| d % 4 == 0) {
                    let wide = matches!(tile.products, Products::Broadcast(_));
                    let storage = if wide { Storage::Wide } else { Storage::Vec4 };
                    specs.push(Spec::Attention(spec(tile, dims, dtype, storage, subgroups)));
                }
            }
        }
    }
    specs
}

/// Every combination of options, on small tiles.
fn options() -> Vec<Spec> {
    use ScoreMod::{Alibi, Bias, Softcap};
    let scores: [&[ScoreMod]; 5] = [&[], &[Softcap], &[Alibi], &[Bias, Softcap], &[Softcap, Alibi, Bias]];
    let mut specs = Vec::new();
    for bits in 0..64u32 {
        let on = |bit: u32| bits >> bit & 1 == 1;
        let tile = ALL_TILES[if bits % 7 < 5 { 8 } else { 9 }];
        for scores in scores {
            let mut spec = spec(tile, [16, 16], if on(0) { DType::F16 } else { DType::F32 }, Storage::Vec4, true);
            spec.visitor = if on(1) { Visitor::Window } else { Visitor::Dense };
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
    for (parts_dtype, out_dtype) in [(DType::F32, DType::F32), (DType::F16, DType::F16), (DType::F16, DType::F32)] {
        for lse in BOTH {
            specs.extend(BOTH.map(|mass| Spec::Combine(CombineSpec { parts_dtype, out_dtype, lse, mass })));
        }
    }
    specs
}

fn validate(module: &naga::Module) -> Result<ModuleInfo, String> {
    let capabilities = Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SUBGROUP
        | Capabilities::SHADER_INT64;
    Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(module)
        .map_err(|e| format!("{:?}", e.into_inner()))
}

fn translate(module: &naga::Module, info: &ModuleInfo) -> Result<(), String> {
    let stage = naga::ShaderStage::Compute;
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: "main".into() };
    let options = spv::Options { lang_version: (1, 3), ..Default::default() };
    spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| format!("SPIR-V: {e}"))?;

    let slot = |binding: naga::ResourceBinding| {
        let target = msl::BindTarget { buffer: Some(binding.binding as u8), mutable: true, ..Default::default() };
        (binding, target)
    };
    let resources = msl::EntryPointResources {
        resources: module.global_variables.iter().filter_map(|(_, v)| v.binding.map(slot)).collect(),
        immediates_buffer: Some(29),
        sizes_buffer: Some(30),
    };
    let options = msl::Options {
        lang_version: (3, 1),
        per_entry_point_map: [("main".into(), resources)].into_iter().collect(),
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions { entry_point: Some((stage, "main".into())), ..Default::default() };
    let (_, translation) = msl::write_string(module, info, &options, &pipeline).map_err(|e| format!("MSL: {e}"))?;
    translation.entry_point_names[0].as_ref().map_err(|e| format!("MSL: {e}"))?;

    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((stage, "main".into())) };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| format!("HLSL: {e}"))?;
    Ok(())
}

/// Validates and translates every spec; the names of those that fail, and why.
fn failures(specs: &[Spec]) -> Vec<String> {
    let check = |spec: &Spec| {
        let linked = spec.link().map_err(|e| e.to_string())?;
        let info = validate(&linked.module)?;
        translate(&linked.module, &info)?;
        let storage = |b: &&super::link::Binding| b.ty != wgpu::BufferBindingType::Uniform;
        match reflect_bindings(&linked.module).iter().filter(storage).count() {
            0..=8 => Ok(()),
            n => Err(format!("binds {n} storage buffers, but 8 are all that every device has")),
        }
    };
    specs.iter().filter_map(|spec| check(spec).err().map(|e: String| format!("{spec}: {e}"))).collect()
}

#[test]
fn every_tile_and_dim_translates() {
    assert_eq!(failures(&tiles_and_dims()), Vec::<String>::new());
}

#[test]
fn every_mask_translates() {
    assert_eq!(failures(&masks()), Vec::<String>::new());
}

#[test]
fn every_option_translates() {
    assert_eq!(failures(&options()), Vec::<String>::new());
}

/// Both ways of reaching into blocks, every size and subgroup, dims that fill a block and that do not.
fn on_matrix_units() -> Vec<Spec> {
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
                if dims[0] == 80 {
                    spec.visitor = Visitor::Window;
                    spec.scores = vec![ScoreMod::Softcap, ScoreMod::Bias];
                    spec.mask = mask(&["bits"]);
                    spec.sinks = true;
                } else if dims[0] == 7 {
                    spec.weights = Weights::Relu;
                }
                specs.push(Spec::Attention(spec));
            }
        }
    }
    specs
}

#[test]
fn matrix_units_translate() {
    for spec in on_matrix_units() {
        let linked = spec.link().unwrap_or_else(|e| panic!("{spec}: {e}"));
        let Spec::Attention(a) = &spec else { unreachable!("only attention runs on matrix units") };
        let bytes = a.tile.workgroup_bytes(a.head_dim, a.v_dim, true);
        assert_eq!(bytes, reflect_workgroup_bytes(&linked.module), "{spec}");
        let (bindings, checks) = (reflect_bindings(&linked.module), wgpu::ShaderRuntimeChecks::unchecked());
        let written = match spec.elements() {
            Some(elements) => super::spirv::write(&linked.module, &bindings, elements, checks),
            None => super::spirv::write_plain(&linked.module, &bindings, checks),
        };
        written.unwrap_or_else(|e| panic!("{spec}: {e}"));
    }
}

#[test]
fn the_translation_check_can_fail() {
    let linked = super::link::link("const THREADS: u32 = 2048u;\n", &[], &[]).unwrap();
    assert!(translate(&linked.module, &validate(&linked.module).unwrap()).is_err(), "there is no entry point");
    let Spec::Attention(mut broken) = options().remove(0) else { panic!("options begin with attention") };
    broken.head_dim = 1 << 20;
    broken.tile.slice_qk = 0;
    let result = std::panic::catch_unwind(|| failures(&[Spec::Attention(broken)]));
    assert!(result.is_err() || result.is_ok_and(|found| !found.is_empty()));
}

#[test]
fn workgroup_memory_is_what_the_tile_says() {
    for spec in tiles_and_dims() {
        let Spec::Attention(a) = &spec else { continue };
        let reflected = reflect_workgroup_bytes(&spec.link().unwrap().module);
        assert_eq!(a.tile.workgroup_bytes(a.head_dim, a.v_dim, a.subgroups), reflected, "{spec}");
    }
}

#[test]
fn the_last_tile_of_each_table_fits_every_device() {
    for tile in [ALL_TILES[5], ALL_TILES[8]] {
        assert_eq!(tile.products, Products::Staged);
        assert!(tile.threads <= 256 && tile.workgroup_bytes(256, 256, false) <= 16384, "{tile:?}");
    }
}

/// Names of function and private variables without an initialiser: some compilers do not reset those in loops.
fn uninitialised(text: &str) -> Vec<String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let joined: String = code.collect::<Vec<_>>().join(" ");
    let statements = joined.split([';', '{', '}']).map(str::trim);
    statements
        .filter(|s| s.starts_with("var ") || s.starts_with("var<private>") || s.starts_with("var<function>"))
        .filter(|s| !s.contains('='))
        .map(str::to_string)
        .collect()
}

#[test]
fn every_variable_has_an_initialiser() {
    for (path, text) in FRAGMENTS {
        assert_eq!(uninitialised(text), Vec::<String>::new(), "shaders/{path}");
    }
    let planted =
        "fn f() { var a: f32;\n for (var i = 0u; i < 2u; i++) { var b:\n vec4<f32>; } }\nvar<private> c: u32;";
    assert_eq!(uninitialised(planted), ["var a: f32", "var b:  vec4<f32>", "var<private> c: u32"]);
}

/// What the rules for shader files ask of a text, beyond compiling.
fn breaches(text: &str) -> Vec<&'static str> {
    let code: String = text.lines().filter_map(|line| line.split("//").next()).collect();
    let rules = [
        (!text.starts_with("// "), "does not open with what it computes"),
        (!text.contains("// provides  "), "does not say what it provides"),
        (code.contains("enable "), "enables an extension: the prelude decides"),
        (code.contains("override "), "uses override: specialise with const"),
        (code.contains("subgroupBarrier"), "uses subgroupBarrier, which does not order workgroup memory"),
        (code.contains("subgroup_size"), "asks for the subgroup size: the plan decides on it"),
    ];
    rules.into_iter().filter(|(broken, _)| *broken).map(|(_, rule)| rule).collect()
}

#[test]
fn shader_files_keep_the_rules() {
    for (path, text) in FRAGMENTS {
        assert_eq!(breaches(text), Vec::<&str>::new(), "shaders/{path}");
    }
    assert_eq!(breaches("fn f() { subgroupBarrier(); }").len(), 3);
}

#[test]
fn every_shader_file_is_listed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut found = Vec::new();
    for part in ["", "lib", "linear", "mods"] {
        for entry in std::fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                found.push(path.strip_prefix(&folder).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    let mut listed: Vec<String> = FRAGMENTS.iter().map(|(path, _)| path.to_string()).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

#[test]
fn an_error_names_the_fragment_and_its_line() {
    let text = "fn f() -> f32 {\n    return slope;\n}\n".to_string();
    let source = super::link::Source::generated("score_mod", text);
    let refusal = super::link::link("const A: u32 = 1u;\n", &[], &[source]).unwrap_err();
    assert_eq!(refusal.to_string(), "score_mod:2: no definition in scope for identifier: `slope`");
}
