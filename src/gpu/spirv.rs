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
use crate::{Error, Result};

pub(super) mod op {
    pub const NAME: u32 = 5;
    pub const EXTENDED: u32 = 12;
    pub const ENTRY_POINT: u32 = 15;
    pub const TYPE_INT: u32 = 21;
    pub const TYPE_FLOAT: u32 = 22;
    pub const TYPE_POINTER: u32 = 32;
    pub const CONSTANT_TRUE: u32 = 41;
    pub const CONSTANT_FALSE: u32 = 42;
    pub const CONSTANT: u32 = 43;
    pub const FUNCTION: u32 = 54;
    pub const FUNCTION_PARAMETER: u32 = 55;
    pub const FUNCTION_END: u32 = 56;
    pub const FUNCTION_CALL: u32 = 57;
    pub const VARIABLE: u32 = 59;
    pub const LOAD: u32 = 61;
    pub const STORE: u32 = 62;
    pub const ACCESS_CHAIN: u32 = 65;
    pub const DECORATE: u32 = 71;
    pub const VECTOR_SHUFFLE: u32 = 79;
    pub const COMPOSITE_CONSTRUCT: u32 = 80;
    pub const COMPOSITE_EXTRACT: u32 = 81;
    pub const COMPOSITE_INSERT: u32 = 82;
    pub const COPY_OBJECT: u32 = 83;
    pub const BITCAST: u32 = 124;
    pub const CONTROL_BARRIER: u32 = 224;
    pub const MEMORY_BARRIER: u32 = 225;
    pub const ATOMIC_LOAD: u32 = 227;
    pub const ATOMIC_STORE: u32 = 228;
    pub const PHI: u32 = 245;
    pub const LOOP_MERGE: u32 = 246;
    pub const SELECTION_MERGE: u32 = 247;
    pub const LABEL: u32 = 248;
    pub const BRANCH: u32 = 249;
    pub const BRANCH_CONDITIONAL: u32 = 250;
    pub const SWITCH: u32 = 251;
    pub const RETURN: u32 = 253;
    pub const RETURN_VALUE: u32 = 254;
    pub const UNREACHABLE: u32 = 255;
    pub const MATRIX_LOAD: u32 = 4457;
    pub const MATRIX_STORE: u32 = 4458;
    pub const MATRIX_MULTIPLY_ADD: u32 = 4459;
}

/// Storage class of variables within a function.
const FUNCTION_CLASS: u32 = 7;

/// Storage classes that threads share: Workgroup and StorageBuffer.
const SHARED_CLASSES: [u32; 2] = [4, 12];

/// Decoration NonWritable.
const NON_WRITABLE: u32 = 24;

/// Memory operand NonPrivatePointer.
const NON_PRIVATE: u32 = 0x20;

/// Memory semantics MakeAvailable and MakeVisible.
const MAKE_AVAILABLE_AND_VISIBLE: u32 = 0x6000;

/// Words before the first instruction; the fourth is the bound of ids.
pub(super) const HEADER: usize = 5;

/// The module as SPIR-V for a passthrough pipeline, its four functions given their bodies. `elements`: numbers a thread
/// holds of a block.
pub(crate) fn write(
    module: &naga::Module,
    bindings: &[Binding],
    elements: u32,
    pins: impl Fn(&str) -> bool,
    inlines: bool,
    checks: wgpu::ShaderRuntimeChecks,
) -> Result<Vec<u32>> {
    let words = write_plain(module, bindings, checks)?;
    let words = give_bodies(words, elements).and_then(|words| share_memory(words, pins)).map_err(failed)?;
    Ok(if inlines { inline::small_functions(&words) } else { words })
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
fn give_bodies(words: Vec<u32>, elements: u32) -> std::result::Result<Vec<u32>, &'static str> {
    let mut editor = Editor::read(words)?;
    let scalar = editor.float(32).ok_or("no type f32")?;
    let half = editor.float(16).ok_or("no type f16")?;
    let indices = editor.indices(elements);
    for (name, element, reads) in [
        ("lanes_of", scalar, true),
        ("factors_of", half, true),
        ("sums_block_of", scalar, false),
        ("weights_block_of", half, false),
    ] {
        let function = editor.function(name).ok_or("a function of lib/coop_lanes.wgsl is missing")?;
        let block = if reads { function.parameter_type } else { function.result_type };
        let variable_type = editor.pointer_to(block);
        let element_type = editor.pointer_to(element);
        let variable = editor.id();
        let mut body = vec![instruction(op::VARIABLE, &[variable_type, variable, FUNCTION_CLASS])];
        if reads {
            body.push(instruction(op::STORE, &[variable, function.parameter]));
        }
        let mut loaded = Vec::new();
        for (n, index) in indices.iter().enumerate() {
            let (place, value) = (editor.id(), editor.id());
            let access = instruction(op::ACCESS_CHAIN, &[element_type, place, variable, *index]);
            if reads {
                body.extend([access, instruction(op::LOAD, &[element, value, place])]);
                loaded.push(value);
                continue;
            }
            body.push(instruction(op::COMPOSITE_EXTRACT, &[element, value, function.parameter, n as u32]));
            body.extend([access, instruction(op::STORE, &[place, value])]);
        }
        let result = editor.id();
        if reads {
            let operands: Vec<u32> = [function.result_type, result].into_iter().chain(loaded).collect();
            body.push(instruction(op::COMPOSITE_CONSTRUCT, &operands));
        } else {
            body.push(instruction(op::LOAD, &[function.result_type, result, variable]));
        }
        body.push(instruction(op::RETURN_VALUE, &[result]));
        editor.replace_body(&function, body.concat());
    }
    if let Some(function) = editor.function("halves_of") {
        let result = editor.id();
        let body = [
            instruction(op::BITCAST, &[function.result_type, result, function.parameter]),
            instruction(op::RETURN_VALUE, &[result]),
        ];
        editor.replace_body(&function, body.concat());
    }
    Ok(editor.finish())
}

/// Says which memory threads share. Under the Vulkan memory model, which cooperative matrices bring along, an access is the
/// thread's own business unless it says otherwise, and a barrier makes nothing visible unless it says so; naga says
/// neither, and compilers do make use of it. And takes from variables that are pinned (`Spec::pins`) that nobody writes them.
fn share_memory(words: Vec<u32>, pins: impl Fn(&str) -> bool) -> std::result::Result<Vec<u32>, &'static str> {
    let mut editor = Editor::read(words)?;
    // Types of pointers into shared memory, then pointers of such types.
    let (mut types, mut pointers, mut constants) = (HashSet::new(), HashSet::new(), HashMap::new());
    for (_, opcode, operands) in instructions(&editor.words) {
        match opcode {
            op::TYPE_POINTER if SHARED_CLASSES.contains(&operands[1]) => drop(types.insert(operands[0])),
            op::VARIABLE | op::ACCESS_CHAIN if types.contains(&operands[0]) => drop(pointers.insert(operands[1])),
            op::CONSTANT => drop(constants.insert(operands[1], (operands[0], operands[2]))),
            _ => {}
        }
    }
    let mut changed = Vec::with_capacity(editor.words.len() * 9 / 8);
    changed.extend(&editor.words[..HEADER]);
    let (first_function, mut barriers) = (editor.first_function, HashMap::new());
    for (at, opcode, operands) in instructions(&editor.words.clone()) {
        let length = operands.len() + 1;
        if at == first_function {
            editor.first_function = changed.len();
        }
        let pointer = match opcode {
            op::LOAD | op::MATRIX_LOAD => Some(operands[2]),
            op::STORE | op::MATRIX_STORE => Some(operands[0]),
            _ => None,
        };
        let pinned = |id| editor.names.get(&id).is_some_and(|name| pins(name));
        if opcode == op::DECORATE && operands[1] == NON_WRITABLE && pinned(operands[0]) {
            continue;
        }
        if pointer.is_some_and(|pointer| pointers.contains(&pointer)) {
            let plain = match opcode {
                op::LOAD => 3,
                op::STORE => 2,
                // With their stride, which naga always writes.
                op::MATRIX_LOAD => 5,
                _ => 4,
            };
            if operands.len() != plain {
                return Err("an access to shared memory is not as expected");
            }
            let shared: Vec<u32> = operands.iter().copied().chain([NON_PRIVATE]).collect();
            changed.extend(instruction(opcode, &shared));
        } else if opcode == op::CONTROL_BARRIER {
            let (ty, semantics) = *constants.get(&operands[2]).ok_or("a barrier is not as expected")?;
            let visible = *barriers.entry(operands[2]).or_insert_with(|| {
                let id = editor.id();
                let value = semantics | MAKE_AVAILABLE_AND_VISIBLE;
                editor.declarations.extend(instruction(op::CONSTANT, &[ty, id, value]));
                id
            });
            changed.extend(instruction(opcode, &[operands[0], operands[1], visible]));
        } else {
            changed.extend(&editor.words[at..at + length]);
        }
    }
    editor.words = changed;
    Ok(editor.finish())
}

pub(super) fn instruction(opcode: u32, operands: &[u32]) -> Vec<u32> {
    let mut words = vec![((operands.len() as u32 + 1) << 16) | opcode];
    words.extend(operands);
    words
}

/// A function of one parameter: where its body lies, in words, from behind its label to its end.
struct Function {
    result_type: u32,
    parameter_type: u32,
    parameter: u32,
    body: std::ops::Range<usize>,
}

/// A module that is being changed. Types and constants are added before the first function.
struct Editor {
    words: Vec<u32>,
    bound: u32,
    names: HashMap<u32, String>,
    first_function: usize,
    declarations: Vec<u32>,
    bodies: Vec<(std::ops::Range<usize>, Vec<u32>)>,
}

impl Editor {
    fn read(words: Vec<u32>) -> std::result::Result<Editor, &'static str> {
        let bound = *words.get(3).ok_or("no header")?;
        let mut names = HashMap::new();
        let mut first_function = words.len();
        for (at, opcode, operands) in instructions(&words) {
            if opcode == op::NAME {
                names.insert(operands[0], text(&operands[1..]));
            } else if opcode == op::FUNCTION {
                first_function = first_function.min(at);
            }
        }
        Ok(Editor { words, bound, names, first_function, declarations: Vec::new(), bodies: Vec::new() })
    }

    fn id(&mut self) -> u32 {
        self.bound += 1;
        self.bound - 1
    }

    /// The id of what was declared with these operands, counted from behind its result.
    fn declared(&self, opcode: u32, result_at: usize, wanted: &[u32]) -> Option<u32> {
        let declared = instructions(&self.words).chain(instructions_from(&self.declarations, 0));
        let mut found = declared.filter(|(_, code, operands)| {
            let others: Vec<u32> =
                operands.iter().enumerate().filter(|(n, _)| *n != result_at).map(|(_, w)| *w).collect();
            *code == opcode && others == wanted
        });
        found.next().map(|(_, _, operands)| operands[result_at])
    }

    fn float(&self, bits: u32) -> Option<u32> {
        self.declared(op::TYPE_FLOAT, 0, &[bits])
    }

    fn pointer_to(&mut self, target: u32) -> u32 {
        if let Some(found) = self.declared(op::TYPE_POINTER, 0, &[FUNCTION_CLASS, target]) {
            return found;
        }
        let id = self.id();
        self.declarations.extend(instruction(op::TYPE_POINTER, &[id, FUNCTION_CLASS, target]));
        id
    }

    /// Constants 0, 1, 2 and so on.
    fn indices(&mut self, count: u32) -> Vec<u32> {
        let unsigned = self.declared(op::TYPE_INT, 0, &[32, 0]).unwrap_or_else(|| {
            let id = self.id();
            self.declarations.extend(instruction(op::TYPE_INT, &[id, 32, 0]));
            id
        });
        let constant = |editor: &mut Editor, n: u32| {
            let found = editor.declared(op::CONSTANT, 1, &[unsigned, n]);
            found.unwrap_or_else(|| {
                let id = editor.id();
                editor.declarations.extend(instruction(op::CONSTANT, &[unsigned, id, n]));
                id
            })
        };
        (0..count).map(|n| constant(self, n)).collect()
    }

    fn function(&self, name: &str) -> Option<Function> {
        let named = |id| self.names.get(&id).is_some_and(|known| known == name);
        let mut all = instructions(&self.words);
        let (_, _, header) = all.find(|(_, code, operands)| *code == op::FUNCTION && named(operands[1]))?;
        let (_, code, parameter) = all.next()?;
        if code != op::FUNCTION_PARAMETER {
            return None;
        }
        let label = all.find(|(_, code, _)| *code == op::LABEL)?.0;
        let end = all.find(|(_, code, _)| *code == op::FUNCTION_END)?.0;
        let [parameter_type, parameter] = *parameter else { return None };
        Some(Function { result_type: header[0], parameter_type, parameter, body: label + 2..end })
    }

    fn replace_body(&mut self, function: &Function, body: Vec<u32>) {
        self.bodies.push((function.body.clone(), body));
    }

    fn finish(mut self) -> Vec<u32> {
        self.bodies.push((self.first_function..self.first_function, std::mem::take(&mut self.declarations)));
        // From the back, so that what lies before stays where it is.
        self.bodies.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        for (range, body) in self.bodies {
            self.words.splice(range, body);
        }
        self.words[3] = self.bound;
        self.words
    }
}

/// Where an instruction begins, its opcode and its operands.
pub(super) fn instructions(words: &[u32]) -> impl Iterator<Item = (usize, u32, &[u32])> {
    instructions_from(words, HEADER)
}

fn instructions_from(words: &[u32], mut at: usize) -> impl Iterator<Item = (usize, u32, &[u32])> {
    std::iter::from_fn(move || {
        let first = *words.get(at)?;
        let (start, length) = (at, (first >> 16) as usize);
        at += length.max(1);
        Some((start, first & 0xffff, words.get(start + 1..start + length)?))
    })
}

/// A literal string: bytes in little-endian words, ended by 0.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}
