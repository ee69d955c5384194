//! Shaders without a GPU: what they cost, and the rules for their files. That every one translates is tested where the
//! translation is (`tests/shaders.rs`).

use super::grid::{masks, on_matrix_units, tiles_and_dims};
use super::layout::DType;
use super::link::{FRAGMENTS, reflect_bindings, reflect_workgroup_bytes};
use super::spec::Spec;
use super::spirv;
use super::tiles::ALL_TILES;
use super::tuning::Products;

#[test]
fn workgroup_memory_is_what_the_tile_says() {
    for spec in tiles_and_dims().into_iter().chain(on_matrix_units()) {
        let Spec::Attention(a) = &spec else { continue };
        let reflected = reflect_workgroup_bytes(&spec.link().unwrap().module);
        assert_eq!(a.workgroup_bytes(), reflected, "{spec}");
    }
}

#[test]
fn bindings_are_read_off_the_text() {
    for spec in masks().into_iter().step_by(3) {
        let text = spec.assemble();
        let read = text.bindings();
        assert_eq!(read, reflect_bindings(&text.parse().unwrap()), "{spec}");
        assert!(read.len() > 1, "{spec}");
    }
}

#[test]
fn the_last_tile_of_each_table_fits_every_device() {
    for tile in [ALL_TILES[5], ALL_TILES[8]] {
        assert_eq!(tile.products, Products::Staged);
        assert!(tile.threads <= 256 && tile.workgroup_bytes([256, 256], DType::F32, false) <= 16384, "{tile:?}");
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
        (mixes_operators(&code), "mixes shifts with &, | or ^ without parentheses, which naga alone lets pass"),
    ];
    rules.into_iter().filter(|(broken, _)| *broken).map(|(_, rule)| rule).collect()
}

/// Whether a group, the innermost parentheses first, holds a shift beside another operator on bits.
fn mixes_operators(code: &str) -> bool {
    let has = |part: &str, operators: &[&str]| operators.iter().any(|op| part.contains(op));
    let mixed =
        |group: &str| group.split(',').any(|part| has(part, &[" >> ", " << "]) && has(part, &[" & ", " | ", " ^ "]));
    let mut rest = code.to_string();
    while let Some(end) = rest.find(')') {
        let Some(start) = rest[..end].rfind('(') else { break };
        if mixed(&rest[start..end]) {
            return true;
        }
        rest.replace_range(start..=end, "x");
    }
    rest.split([';', '{', '}']).any(mixed)
}

#[test]
fn shader_files_keep_the_rules() {
    for (path, text) in FRAGMENTS {
        assert_eq!(breaches(text), Vec::<&str>::new(), "shaders/{path}");
    }
    assert_eq!(breaches("fn f() { subgroupBarrier(); }").len(), 3);
    assert!(mixes_operators("let a = b >> c & 1u;") && mixes_operators("return (b >> (c % 32u) & 1u) == 1u;"));
    assert!(!mixes_operators("return ((b >> (c % 32u)) & 1u) == 1u; let d = e << 2u; f(a >> 1u, (b << 2u) | c);"));
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
    let refusal = super::link::assemble("const A: u32 = 1u;\n", &[], &[source]).parse().unwrap_err();
    assert_eq!(refusal.to_string(), "score_mod:2: no definition in scope for identifier: `slope`");
}

/// Where loads are to stay is said by leaving out that nobody writes.
#[test]
fn pinned_operands_are_not_read_only() {
    const DECORATE: u32 = 71;
    const NON_WRITABLE: u32 = 24;
    let staged = |spec: &Spec| matches!(spec, Spec::Attention(attention) if attention.staged_list);
    let spec = on_matrix_units().into_iter().find(staged).expect("a list is staged in the grid");
    let module = spec.link().unwrap().module;
    let (bindings, checks) = (reflect_bindings(&module), wgpu::ShaderRuntimeChecks::unchecked());
    let read_only = |pins: &dyn Fn(&str) -> bool| {
        let words = spirv::write(&module, &bindings, spec.elements(), pins, spec.inlines(), checks).unwrap();
        let (mut at, mut count) = (5, 0);
        while at < words.len() {
            let (length, opcode) = ((words[at] >> 16) as usize, words[at] & 0xffff);
            count += u32::from(opcode == DECORATE && words[at + 2] == NON_WRITABLE);
            at += length;
        }
        count
    };
    assert_eq!(read_only(&|name| spec.pins(name)) + 1, read_only(&|_| false));
}
