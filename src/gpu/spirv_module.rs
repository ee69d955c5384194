//! SPIR-V as blocks of instructions, for what changes the order of a module (`inline.rs`).

use std::ops::Range;

use super::spirv::{instructions, op};

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

pub(super) struct Module {
    pub bound: u32,
    pub globals: Vec<Instruction>,
    pub functions: Vec<Function>,
}

impl Module {
    pub fn read(words: &[u32]) -> Module {
        let mut module = Module { bound: words[3], globals: Vec::new(), functions: Vec::new() };
        let mut inside = false;
        for (_, opcode, operands) in instructions(words) {
            let read = Instruction { opcode, operands: operands.to_vec() };
            match opcode {
                op::FUNCTION => {
                    inside = true;
                    module.functions.push(Function { head: vec![read], blocks: Vec::new() });
                }
                op::FUNCTION_END => inside = false,
                _ if !inside => module.globals.push(read),
                _ => module.functions.last_mut().expect("inside of one").add(read),
            }
        }
        module
    }

    pub fn write(&self, header: &[u32]) -> Vec<u32> {
        let mut words = header.to_vec();
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

    /// Every id that is defined here.
    pub fn ids(&self) -> Vec<u32> {
        let defined = self.head.iter().chain(self.instructions()).filter_map(Instruction::result);
        defined.chain(self.blocks.iter().map(|block| block.label)).collect()
    }
}

impl Instruction {
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
