//! SPIR-V as functions of blocks of instructions, for what changes a module (`spirv.rs`, `inline.rs`).

use std::collections::HashMap;
use std::ops::Range;

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
pub(super) const FUNCTION_CLASS: u32 = 7;

/// Words before the first instruction; the fourth is the bound of ids.
const HEADER: usize = 5;

pub(super) struct Instruction {
    pub opcode: u32,
    pub operands: Vec<u32>,
}

pub(super) struct Block {
    pub label: u32,
    pub body: Vec<Instruction>,
}

pub(super) struct Function {
    /// The function and its parameters.
    pub head: Vec<Instruction>,
    pub blocks: Vec<Block>,
}

/// A function of one parameter.
pub(super) struct Signature {
    pub result_type: u32,
    pub parameter_type: u32,
    pub parameter: u32,
}

/// A module that is being changed. Types and constants that are added stand before the first function.
pub(super) struct Module {
    header: [u32; HEADER],
    pub bound: u32,
    pub globals: Vec<Instruction>,
    pub functions: Vec<Function>,
}

impl Module {
    pub fn read(words: &[u32]) -> Result<Module, &'static str> {
        let (header, words) = words.split_first_chunk().ok_or("no header")?;
        let mut module = Module { header: *header, bound: header[3], globals: Vec::new(), functions: Vec::new() };
        let mut inside = false;
        let mut rest = words;
        while let [first, ..] = *rest {
            let (own, after) =
                rest.split_at_checked((first >> 16).max(1) as usize).ok_or("an instruction is cut off")?;
            rest = after;
            let read = Instruction::new(first & 0xffff, own[1..].iter().copied());
            match (read.opcode, module.functions.last_mut()) {
                (op::FUNCTION, _) => {
                    inside = true;
                    module.functions.push(Function { head: vec![read], blocks: Vec::new() });
                }
                (op::FUNCTION_END, _) => inside = false,
                (_, Some(function)) if inside => function.add(read),
                _ => module.globals.push(read),
            }
        }
        Ok(module)
    }

    pub fn write(&self) -> Vec<u32> {
        let mut words = self.header.to_vec();
        words[3] = self.bound;
        let mut put = |opcode: u32, operands: &[u32]| {
            words.push(((operands.len() as u32 + 1) << 16) | opcode);
            words.extend(operands);
        };
        self.globals.iter().for_each(|i| put(i.opcode, &i.operands));
        for function in &self.functions {
            function.head.iter().for_each(|i| put(i.opcode, &i.operands));
            for block in &function.blocks {
                put(op::LABEL, &[block.label]);
                block.body.iter().for_each(|i| put(i.opcode, &i.operands));
            }
            put(op::FUNCTION_END, &[]);
        }
        words
    }

    /// All but what ends functions and begins blocks.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.globals.iter().chain(self.functions.iter().flat_map(Function::instructions))
    }

    pub fn id(&mut self) -> u32 {
        self.bound += 1;
        self.bound - 1
    }

    pub fn names(&self) -> HashMap<u32, String> {
        let named = self.globals.iter().filter(|i| i.opcode == op::NAME);
        named.map(|i| (i.operands[0], text(&i.operands[1..]))).collect()
    }

    /// Where the function of this name and of one parameter stands.
    pub fn function(&self, name: &str) -> Option<usize> {
        let mut named = self.globals.iter().filter(|i| i.opcode == op::NAME && text(&i.operands[1..]) == name);
        let is_it = |id| self.functions.iter().position(|function| function.id() == id && function.head.len() == 2);
        named.find_map(|i| is_it(i.operands[0]))
    }

    /// The id of what was declared with these operands, counted from behind its result.
    fn declared(&self, opcode: u32, result_at: usize, wanted: &[u32]) -> Option<u32> {
        let is_it = |i: &&Instruction| {
            let (before, after) = i.operands.split_at(result_at);
            i.opcode == opcode && before.iter().chain(&after[1..]).eq(wanted)
        };
        self.globals.iter().filter(|i| i.opcode == opcode).find(is_it).map(|i| i.operands[result_at])
    }

    /// The same, declared now if it was not; the result is an id of its own.
    fn declare(&mut self, opcode: u32, result_at: usize, wanted: &[u32]) -> u32 {
        self.declared(opcode, result_at, wanted).unwrap_or_else(|| {
            let id = self.id();
            let mut operands = wanted.to_vec();
            operands.insert(result_at, id);
            self.globals.push(Instruction { opcode, operands });
            id
        })
    }

    pub fn float(&self, bits: u32) -> Option<u32> {
        self.declared(op::TYPE_FLOAT, 0, &[bits])
    }

    pub fn pointer_to(&mut self, target: u32) -> u32 {
        self.declare(op::TYPE_POINTER, 0, &[FUNCTION_CLASS, target])
    }

    /// Constants 0, 1, 2 and so on.
    pub fn indices(&mut self, count: u32) -> Vec<u32> {
        let unsigned = self.declare(op::TYPE_INT, 0, &[32, 0]);
        (0..count).map(|n| self.declare(op::CONSTANT, 1, &[unsigned, n])).collect()
    }
}

impl Function {
    pub fn id(&self) -> u32 {
        self.head[0].operands[1]
    }

    fn add(&mut self, read: Instruction) {
        match (read.opcode, self.blocks.last_mut()) {
            (op::LABEL, _) => self.blocks.push(Block { label: read.operands[0], body: Vec::new() }),
            (_, Some(block)) => block.body.push(read),
            (_, None) => self.head.push(read),
        }
    }

    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.blocks.iter().flat_map(|block| &block.body)
    }

    pub fn instructions_mut(&mut self) -> impl Iterator<Item = &mut Instruction> {
        self.blocks.iter_mut().flat_map(|block| &mut block.body)
    }

    /// Of a function that `Module::function` found.
    pub fn signature(&self) -> Signature {
        let (function, parameter) = (&self.head[0].operands, &self.head[1].operands);
        Signature { result_type: function[0], parameter_type: parameter[0], parameter: parameter[1] }
    }

    pub fn replace_body(&mut self, body: Vec<Instruction>) {
        self.blocks.truncate(1);
        self.blocks[0].body = body;
    }

    /// Every id that is defined here.
    pub fn ids(&self) -> Vec<u32> {
        let defined = self.head.iter().chain(self.instructions()).filter_map(Instruction::result);
        defined.chain(self.blocks.iter().map(|block| block.label)).collect()
    }
}

impl Instruction {
    pub fn new(opcode: u32, operands: impl IntoIterator<Item = u32>) -> Instruction {
        Instruction { opcode, operands: operands.into_iter().collect() }
    }

    /// The id that it defines; of instructions outside of the table, the usual place.
    pub fn result(&self) -> Option<u32> {
        let defines = match (layout(self), self.opcode) {
            (Some((result, _)), _) => result,
            (None, op::LOOP_MERGE..=op::SELECTION_MERGE | op::BRANCH..=op::UNREACHABLE) => false,
            (None, _) => true,
        };
        defines.then(|| self.operands.get(1).copied()).flatten()
    }

    /// The blocks that it names.
    pub fn labels(&self) -> Vec<u32> {
        match self.opcode {
            op::BRANCH | op::SELECTION_MERGE => vec![self.operands[0]],
            op::BRANCH_CONDITIONAL => self.operands[1..3].to_vec(),
            op::LOOP_MERGE => self.operands[..2].to_vec(),
            // The default, then pairs of a number and a block.
            op::SWITCH => {
                [1].into_iter().chain((3..self.operands.len()).step_by(2)).map(|n| self.operands[n]).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Whether an instruction defines an id (its second operand), and which of its operands are ids that a function may have defined; the others
/// are types, scopes and numbers. None for what is not known.
pub(super) fn layout(i: &Instruction) -> Option<(bool, Range<usize>)> {
    let all = i.operands.len();
    match i.opcode {
        op::FUNCTION_PARAMETER => Some((true, 2..2)),
        op::VARIABLE => Some((true, 3..all)),
        op::LOAD | op::COMPOSITE_EXTRACT => Some((true, 2..3)),
        op::VECTOR_SHUFFLE | op::COMPOSITE_INSERT => Some((true, 2..4)),
        op::FUNCTION_CALL | op::ACCESS_CHAIN | op::COMPOSITE_CONSTRUCT | op::COPY_OBJECT | op::ATOMIC_LOAD => {
            Some((true, 2..all))
        }
        // Conversions, arithmetic, comparisons, bits; atomics; votes, broadcasts, shuffles.
        109..=124 | 126..=205 | 229..=242 | 333..=341 | 345..=348 => Some((true, 2..all)),
        // Which function, or over whom, and what: a number.
        op::EXTENDED | 349..=364 => Some((true, 4..all)),
        op::MATRIX_LOAD => Some((true, 2..all.min(5))),
        op::MATRIX_MULTIPLY_ADD => Some((true, 2..5)),
        op::STORE => Some((false, 0..2)),
        op::MATRIX_STORE => Some((false, 0..all.min(4))),
        op::CONTROL_BARRIER | op::MEMORY_BARRIER | op::ATOMIC_STORE => Some((false, 0..all)),
        op::RETURN => Some((false, 0..0)),
        op::RETURN_VALUE => Some((false, 0..1)),
        _ => None,
    }
}

/// A literal string: bytes in little-endian words, ended by 0.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}
