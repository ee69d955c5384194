//! What naga makes of a shader for Metal and DX12, as wgpu asks it to.

use naga::back::{hlsl, msl};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

/// Validates with what the kernels may ask of a device, matrix units apart.
pub fn validate(module: &naga::Module) -> Result<ModuleInfo, String> {
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

pub fn msl(module: &naga::Module, info: &ModuleInfo, checks: wgpu::ShaderRuntimeChecks) -> Result<String, String> {
    let slot = |binding: naga::ResourceBinding| {
        let target = msl::BindTarget { buffer: Some(binding.binding as u8), mutable: true, ..Default::default() };
        (binding, target)
    };
    let resources = msl::EntryPointResources {
        resources: module.global_variables.iter().filter_map(|(_, v)| v.binding.map(slot)).collect(),
        immediates_buffer: Some(29),
        sizes_buffer: Some(30),
    };
    let policy = if checks.bounds_checks { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let options = msl::Options {
        lang_version: (3, 1),
        per_entry_point_map: [("main".into(), resources)].into_iter().collect(),
        fake_missing_bindings: false,
        bounds_check_policies: BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            image_load: policy,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: checks.force_loop_bounding,
        emit_int_div_checks: checks.int_div_checks,
        ..Default::default()
    };
    let stage = naga::ShaderStage::Compute;
    let pipeline = msl::PipelineOptions { entry_point: Some((stage, "main".into())), ..Default::default() };
    let (text, translation) = msl::write_string(module, info, &options, &pipeline).map_err(|e| format!("MSL: {e}"))?;
    translation.entry_point_names[0].as_ref().map_err(|e| format!("MSL: {e}"))?;
    Ok(text)
}

pub fn hlsl(module: &naga::Module, info: &ModuleInfo, checks: wgpu::ShaderRuntimeChecks) -> Result<String, String> {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        zero_initialize_workgroup_memory: false,
        restrict_indexing: checks.bounds_checks,
        force_loop_bounding: checks.force_loop_bounding,
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((naga::ShaderStage::Compute, "main".into())) };
    let mut text = String::new();
    let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    written.map_err(|e| format!("HLSL: {e}"))?;
    Ok(text)
}

/// Whether a text for Metal multiplies blocks. naga would write 16 x 16 ones, operators on them and loads through pointers to
/// vectors, none of which Metal has; so kernels of matrix units are not given to Metal, and no other may hold a block.
pub fn multiplies_blocks(msl: &str) -> bool {
    ["simdgroup_half", "simdgroup_float", "simdgroup_load", "simdgroup_multiply"].iter().any(|word| msl.contains(word))
}
