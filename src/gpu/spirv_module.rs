//! SPIR-V as blocks of instructions, for what changes the order of a module (`inline.rs`).

use super::spirv::{instruction, instructions, op};

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
        let mut put = |opcode, operands: &[u32]| words.extend(instruction(opcode, operands));
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

/// Whether an instruction defines an id (its second operand), and which of its operands are ids of others; the rest are numbers. None for
/// what is not known.
pub(super) fn layout(i: &Instruction) -> Option<(bool, Vec<usize>)> {
    let all = i.operands.len();
    let result = |first: std::ops::Range<usize>| Some((true, [0].into_iter().chain(first).collect()));
    let none = |first: usize| Some((false, (0..first).collect()));
    match i.opcode {
        op::FUNCTION_PARAMETER => result(2..2),
        op::VARIABLE => result(3..all),
        op::LOAD => result(2..3),
        op::STORE => none(2),
        op::EXTENDED => result(4..all).map(|(defines, ids)| (defines, ids.into_iter().chain([2]).collect())),
        op::VECTOR_SHUFFLE => result(2..4),
        op::COMPOSITE_EXTRACT => result(2..3),
        op::COMPOSITE_INSERT => result(2..4),
        op::FUNCTION_CALL | op::ACCESS_CHAIN | op::COMPOSITE_CONSTRUCT | op::COPY_OBJECT => result(2..all),
        // Conversions, arithmetic, comparisons, bits.
        109..=124 | 126..=205 => result(2..all),
        op::CONTROL_BARRIER | op::MEMORY_BARRIER | op::ATOMIC_STORE => none(all),
        op::ATOMIC_LOAD | 229..=242 => result(2..all),
        // Votes, broadcasts, shuffles; then reductions, which say in a number over whom.
        333..=341 | 345..=348 => result(2..all),
        349..=364 => result(4..all).map(|(defines, ids)| (defines, ids.into_iter().chain([2]).collect())),
        op::MATRIX_LOAD => result(2..5.min(all)),
        op::MATRIX_STORE => none(4.min(all)),
        op::MATRIX_MULTIPLY_ADD => result(2..5),
        op::RETURN => none(0),
        op::RETURN_VALUE => none(1),
        _ => None,
    }
}
