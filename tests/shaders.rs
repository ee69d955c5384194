//! Shaders without a GPU: everything that the library can emit links, validates, and translates for every backend.

#[path = "../examples/dump_shaders/planned.rs"]
mod planned;
#[path = "../examples/dump_shaders/translate.rs"]
mod translate;

use wgpu_attention::shaders::{self, Shader};

/// Writes the shader for every backend that is given it.
fn check(shader: &Shader) -> Result<(), String> {
    shader.spirv().map_err(|e| e.to_string())?;
    if shader.on_matrix_units() {
        return Ok(());
    }
    let (module, checks) = (shader.module(), shader.checks());
    let info = translate::validate(module)?;
    translate::hlsl(module, &info, checks)?;
    if translate::multiplies_blocks(&translate::msl(module, &info, checks)?) {
        return Err("multiplies blocks, which Metal is not given".into());
    }
    Ok(())
}

/// Storage buffers that it binds.
fn buffers(shader: &Shader) -> usize {
    let storage = |space: naga::AddressSpace| matches!(space, naga::AddressSpace::Storage { .. });
    shader.module().global_variables.iter().filter(|(_, variable)| storage(variable.space)).count()
}

fn failures(shaders: impl Iterator<Item = Shader>) -> Vec<String> {
    shaders.filter_map(|shader| check(&shader).err().map(|e| format!("{shader}: {e}"))).collect()
}

/// Two threads of the test runner share the grid.
fn half_of_the_grid(half: usize) {
    let grid: Vec<Shader> = shaders::grid(half, 2).collect::<Result<_, _>>().unwrap();
    assert!(grid.len() > 500, "only {} are left of half the grid", grid.len());
    assert!(grid.iter().all(|shader| buffers(shader) <= 8), "8 storage buffers are all that every device has");
    assert_eq!(failures(grid.into_iter()), Vec::<String>::new());
}

#[test]
fn the_grid_translates() {
    half_of_the_grid(0);
}

#[test]
fn the_other_half_translates() {
    half_of_the_grid(1);
}

#[test]
fn what_is_planned_translates() {
    let planned = planned::all().unwrap();
    let count = |what: &str| planned.iter().filter(|shader| shader.to_string().starts_with(what)).count();
    let (linear, users) = (count("linear"), planned.iter().filter(|shader| shader.checks().bounds_checks).count());
    assert!(linear > 300 && users >= 6, "only {linear} of linear attention and {users} with a user's text");
    let on_units = planned.iter().filter(|shader| shader.on_matrix_units()).count();
    assert!(on_units >= 4, "only {on_units} on matrix units");
    assert_eq!(failures(planned.into_iter()), Vec::<String>::new());
}

#[test]
fn the_poorest_device_is_served() {
    let shaders = planned::poor().unwrap();
    assert!(shaders.len() > 150, "only {} were planned", shaders.len());
    assert!(shaders.iter().all(|shader| shader.threads() <= 256 && buffers(shader) <= 8));
    assert!(shaders.iter().all(|shader| shader.workgroup_bytes() <= 16384));
}

#[test]
fn the_check_can_fail() {
    let portable: Vec<Shader> = shaders::grid(0, 1).map(Result::unwrap).take(1).collect();
    assert_eq!(failures(portable.into_iter()), Vec::<String>::new());
    let broken = "@group(0) @binding(0) var<storage, read_write> a: array<f32>;\n@compute @workgroup_size(1) fn other() { a[0] = 1.0; }";
    let module = naga::front::wgsl::parse_str(broken).unwrap();
    let (info, checks) = (translate::validate(&module).unwrap(), wgpu::ShaderRuntimeChecks::unchecked());
    assert!(translate::msl(&module, &info, checks).is_err() && translate::hlsl(&module, &info, checks).is_err());
    let blocks =
        shaders::grid(0, 1).map(Result::unwrap).find(|shader| shader.on_matrix_units() && !shader.in_registers());
    let blocks = blocks.expect("the grid has kernels of matrix units");
    let all = naga::valid::Capabilities::all();
    let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), all).validate(blocks.module());
    let msl = translate::msl(blocks.module(), &info.unwrap(), checks).unwrap();
    assert!(translate::multiplies_blocks(&msl), "naga writes them, and they must be seen");
}
