//! SPIR-V of the library's own: what WGSL cannot say about cooperative matrices.
//!
//! `lib/coop_lanes.wgsl` declares four functions without a meaning in WGSL. naga writes the module; here their bodies
//! are replaced by instructions of SPV_KHR_cooperative_matrix that reach a thread's own numbers of a block:
//!
//! - `lanes_of(block)`: every number of a block of sums, as an array;
//! - `factors_of(block)`: likewise of a block of f16 factors;
//! - `sums_block_of(array)`: a block of sums that holds these;
//! - `weights_block_of(array)`: a block of f16 factors that holds these;
//!
//! and, where operands are loaded in words of 16 bytes, `halves_of(words)`: the same bits as f16, which naga cannot write.

use std::collections::{HashMap, HashSet};

use wgpu::naga::back::spv;
use wgpu::naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use wgpu::naga::{self, valid};

use super::inline;
use super::link::Binding;
use super::spirv_module::{FUNCTION_CLASS, Function, Instruction, Module, Signature, op};
use crate::{Error, Result};

/// Storage classes that threads share: Workgroup and StorageBuffer.
const SHARED_CLASSES: [u32; 2] = [4, 12];

/// Decoration NonWritable.
const NON_WRITABLE: u32 = 24;

/// Memory operand NonPrivatePointer.
const NON_PRIVATE: u32 = 0x20;

/// Memory semantics MakeAvailable and MakeVisible.
const MAKE_AVAILABLE_AND_VISIBLE: u32 = 0x6000;

/// The module as SPIR-V for a passthrough pipeline. `elements`: numbers a thread holds of a block, where there are blocks; then the four
/// functions are given their bodies.
pub(crate) fn write(
    module: &naga::Module,
    bindings: &[Binding],
    elements: Option<u32>,
    pins: impl Fn(&str) -> bool,
    inlines: bool,
    checks: wgpu::ShaderRuntimeChecks,
) -> Result<Vec<u32>> {
    let words = write_plain(module, bindings, checks)?;
    let made = || -> std::result::Result<Vec<u32>, &'static str> {
        let mut module = Module::read(&words)?;
        if let Some(elements) = elements {
            give_bodies(&mut module, elements)?;
            share_memory(&mut module, pins)?;
        }
        if inlines {
            inline::small_functions(&mut module);
        }
        Ok(module.write())
    };
    made().map_err(failed)
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::Shader(format!("SPIR-V: {what}"))
}

/// The module as naga writes it, with the bindings numbered in their order, as wgpu numbers those of passthrough modules.
pub(crate) fn write_plain(
    module: &naga::Module,
    bindings: &[Binding],
    checks: wgpu::ShaderRuntimeChecks,
) -> Result<Vec<u32>> {
    let info = valid::Validator::new(valid::ValidationFlags::all(), valid::Capabilities::all())
        .subgroup_stages(valid::ShaderStages::COMPUTE)
        .subgroup_operations(valid::SubgroupOperationSet::all())
        .validate(module)
        .map_err(|e| failed(e.into_inner()))?;
    let policy = if checks.bounds_checks { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let numbers = bindings.iter().enumerate().map(|(n, b)| {
        let from = naga::ResourceBinding { group: 0, binding: b.binding };
        (from, spv::BindingInfo { descriptor_set: 0, binding: n as u32, binding_array_size: None })
    });
    let options = spv::Options {
        lang_version: (1, 6),
        // Names, to find the functions by.
        flags: spv::WriterFlags::DEBUG,
        binding_map: numbers.collect(),
        bounds_check_policies: BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            image_load: policy,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checks.force_loop_bounding,
        emit_int_div_checks: checks.int_div_checks,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into() };
    spv::write_vec(module, &info, &options, Some(&pipeline)).map_err(failed)
}

/// Replaces the bodies of the four functions.
fn give_bodies(module: &mut Module, elements: u32) -> std::result::Result<(), &'static str> {
    let scalar = module.float(32).ok_or("no type f32")?;
    let half = module.float(16).ok_or("no type f16")?;
    let indices = module.indices(elements);
    for (name, element, reads) in [
        ("lanes_of", scalar, true),
        ("factors_of", half, true),
        ("sums_block_of", scalar, false),
        ("weights_block_of", half, false),
    ] {
        let at = module.function(name).ok_or("a function of lib/coop_lanes.wgsl is missing")?;
        let Signature { result_type, parameter_type, parameter } = module.functions[at].signature();
        let variable_type = module.pointer_to(if reads { parameter_type } else { result_type });
        let element_type = module.pointer_to(element);
        let variable = module.id();
        let mut body = vec![Instruction::new(op::VARIABLE, [variable_type, variable, FUNCTION_CLASS])];
        if reads {
            body.push(Instruction::new(op::STORE, [variable, parameter]));
        }
        let mut loaded = Vec::new();
        for (n, index) in indices.iter().enumerate() {
            let (place, value) = (module.id(), module.id());
            let access = Instruction::new(op::ACCESS_CHAIN, [element_type, place, variable, *index]);
            if reads {
                body.extend([access, Instruction::new(op::LOAD, [element, value, place])]);
                loaded.push(value);
                continue;
            }
            body.push(Instruction::new(op::COMPOSITE_EXTRACT, [element, value, parameter, n as u32]));
            body.extend([access, Instruction::new(op::STORE, [place, value])]);
        }
        let result = module.id();
        if reads {
            let operands = [result_type, result].into_iter().chain(loaded);
            body.push(Instruction::new(op::COMPOSITE_CONSTRUCT, operands));
        } else {
            body.push(Instruction::new(op::LOAD, [result_type, result, variable]));
        }
        body.push(Instruction::new(op::RETURN_VALUE, [result]));
        module.functions[at].replace_body(body);
    }
    if let Some(at) = module.function("halves_of") {
        let Signature { result_type, parameter, .. } = module.functions[at].signature();
        let result = module.id();
        module.functions[at].replace_body(vec![
            Instruction::new(op::BITCAST, [result_type, result, parameter]),
            Instruction::new(op::RETURN_VALUE, [result]),
        ]);
    }
    Ok(())
}

/// Says which memory threads share. Under the Vulkan memory model, which cooperative matrices bring along, an access is the
/// thread's own business unless it says otherwise, and a barrier makes nothing visible unless it says so; naga says
/// neither, and compilers do make use of it. And takes from variables that are pinned (`Spec::pins`) that nobody writes them.
fn share_memory(module: &mut Module, pins: impl Fn(&str) -> bool) -> std::result::Result<(), &'static str> {
    // Types of pointers into shared memory, then pointers of such types.
    let (mut types, mut pointers, mut constants) = (HashSet::new(), HashSet::new(), HashMap::new());
    for Instruction { opcode, operands } in module.instructions() {
        match *opcode {
            op::TYPE_POINTER if SHARED_CLASSES.contains(&operands[1]) => drop(types.insert(operands[0])),
            op::VARIABLE | op::ACCESS_CHAIN if types.contains(&operands[0]) => drop(pointers.insert(operands[1])),
            op::CONSTANT => drop(constants.insert(operands[1], (operands[0], operands[2]))),
            _ => {}
        }
    }
    let names = module.names();
    let pinned = |id| names.get(&id).is_some_and(|name| pins(name));
    let read_only = |i: &Instruction| i.opcode == op::DECORATE && i.operands[1] == NON_WRITABLE;
    module.globals.retain(|i| !(read_only(i) && pinned(i.operands[0])));
    let mut functions = std::mem::take(&mut module.functions);
    let mut barriers = HashMap::new();
    for i in functions.iter_mut().flat_map(Function::instructions_mut) {
        // Where the pointer stands, and how many operands there are; blocks with their stride, which naga always writes.
        let access = match i.opcode {
            op::LOAD => Some((2, 3)),
            op::MATRIX_LOAD => Some((2, 5)),
            op::STORE => Some((0, 2)),
            op::MATRIX_STORE => Some((0, 4)),
            _ => None,
        };
        if let Some((_, plain)) = access.filter(|(pointer, _)| pointers.contains(&i.operands[*pointer])) {
            if i.operands.len() != plain {
                return Err("an access to shared memory is not as expected");
            }
            i.operands.push(NON_PRIVATE);
        } else if i.opcode == op::CONTROL_BARRIER {
            let (ty, semantics) = *constants.get(&i.operands[2]).ok_or("a barrier is not as expected")?;
            i.operands[2] = *barriers.entry(i.operands[2]).or_insert_with(|| {
                let id = module.id();
                let value = semantics | MAKE_AVAILABLE_AND_VISIBLE;
                module.globals.push(Instruction::new(op::CONSTANT, [ty, id, value]));
                id
            });
        }
    }
    module.functions = functions;
    Ok(())
}
