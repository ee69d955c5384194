//! What formulas may name: tensors of the caller and buffers of the plan, each read and written by a function of its own
//! name, `x(at, i, j)` and `put_x(at, i, j, value)`, in rows of a chunk.

use crate::gpu::layout::DType;

/// Which token a row of a chunk stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// The row itself: a token, or a step of one.
    Each,
    /// Row `i` is step `i % n` of token `i / n`; only the first step has a value.
    First(usize),
    /// Likewise the last.
    Last(usize),
    /// Not a row of a chunk but of a sequence's state; the batch is the sequence.
    State(usize),
    /// Not a row of a chunk but of a tensor that all batches and heads share.
    Whole(usize),
}

/// Where an operand lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Memory {
    /// The caller's tensor of this slot.
    Slot { slot: &'static str, rows: Rows, dtype: DType },
    /// The plan's own, f32: `rows` of `cols` for each chunk of each head.
    PerChunk { rows: usize },
    /// The plan's own, f16 and by eights: `rows` of `cols` for each chunk of each head.
    PerChunkHalf { rows: usize },
    /// The plan's own, f32: `rows` of `cols` for each sequence of each head.
    PerSequence { rows: usize },
    /// The plan's own, f32: `rows` of `cols` for each head.
    PerHead { rows: usize },
    /// One f32 for each head of the whole problem, given by the host; of rows with this many steps a token, only the first has it.
    Constant(usize),
}

/// Something that formulas name.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub name: &'static str,
    pub memory: Memory,
    pub cols: usize,
    /// Whether key heads have one each, rather than value heads.
    pub key_heads: bool,
    /// Whether a further column of ones follows: the denominator is one more value.
    pub ones: bool,
}

/// What a kernel does with an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub read: bool,
    pub write: bool,
    /// By eights, `x_8(at, i, j8)` and `put_x_8(at, i, j8, eight)`, and nothing else.
    pub eights: bool,
}

impl Access {
    /// How a text uses an operand, if it does.
    pub(super) fn of(name: &str, text: &str) -> Option<Access> {
        let uses = |suffix: &str| {
            let (read, write) = (format!("{name}{suffix}"), format!("put_{name}{suffix}"));
            let there = suffix.is_empty() && calls(text, &format!("{name}_there"));
            Access { read: there || calls(text, &read), write: calls(text, &write), eights: !suffix.is_empty() }
        };
        [uses(""), uses("_8")].into_iter().find(|access| access.read || access.write)
    }
}

/// Whether the text calls a function of this name.
pub(super) fn calls(text: &str, name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_none_or(|c| !word(c));
        before && text[at + name.len()..].starts_with('(') && !text[..at].ends_with("fn ")
    })
}

impl Operand {
    /// The caller's tensor.
    pub(super) fn slot(name: &'static str, slot: &'static str, rows: Rows, dtype: DType, cols: usize) -> Operand {
        Operand { name, memory: Memory::Slot { slot, rows, dtype }, cols, key_heads: false, ones: false }
    }

    /// A matrix for each chunk.
    pub(super) fn per_chunk(name: &'static str, rows: usize, cols: usize) -> Operand {
        Operand { name, memory: Memory::PerChunk { rows }, cols, key_heads: false, ones: false }
    }

    /// A matrix for each chunk, of f16 that are read and written by eights.
    pub(super) fn per_chunk_half(name: &'static str, rows: usize, cols: usize) -> Operand {
        Operand { name, memory: Memory::PerChunkHalf { rows }, cols, key_heads: false, ones: false }
    }

    /// A matrix for each head.
    pub(super) fn per_head(name: &'static str, rows: usize, cols: usize) -> Operand {
        Operand { name, memory: Memory::PerHead { rows }, cols, key_heads: false, ones: false }
    }

    /// Of key heads, which groups of value heads share.
    pub(super) fn of_key_heads(mut self) -> Operand {
        self.key_heads = true;
        self
    }

    /// With a column of ones after the last.
    pub(super) fn with_ones(mut self, ones: bool) -> Operand {
        self.ones = ones;
        self
    }

    pub(super) fn dtype(&self) -> DType {
        match self.memory {
            Memory::Slot { dtype, .. } => dtype,
            Memory::PerChunkHalf { .. } => DType::F16,
            _ => DType::F32,
        }
    }

    /// f32 that one head needs for it.
    pub(super) fn per_head_len(&self, chunks: usize, sequences: usize) -> usize {
        match self.memory {
            Memory::PerChunk { rows } => chunks * rows * self.cols,
            Memory::PerChunkHalf { rows } => chunks * rows * self.cols / 2,
            Memory::PerSequence { rows } => sequences * rows * self.cols,
            Memory::PerHead { rows } => rows * self.cols,
            Memory::Slot { .. } | Memory::Constant(_) => 0,
        }
    }

    /// Its binding and its functions. `view` is the number of its view, where it has one; `unit` how many elements that
    /// view and the binding count as one.
    pub(super) fn declare(&self, binding: usize, view: usize, access: Access, unit: usize) -> String {
        if access.eights {
            return self.declare_eights(binding, view, access, unit);
        }
        let (name, cols) = (self.name, self.cols);
        let mode = if access.write { "read_write" } else { "read" };
        let mut text =
            format!("@group(0) @binding({binding}) var<storage, {mode}> {name}_data: array<{}>;\n", self.dtype());
        let (guard, index) = self.address(view);
        if access.read {
            let ones =
                if self.ones { format!("if (j == {cols}u && i < at.len) {{ return 1.0; }} ") } else { String::new() };
            text += &format!(
                "fn {name}(at: Place, i: u32, j: u32) -> f32 {{\n    {ones}if ({guard}) {{ return 0.0; }}\n    \
                 return f32({name}_data[{index}]);\n}}\n"
            );
            // Of rows and columns that are there: no load waits for a test.
            text += &format!(
                "fn {name}_there(at: Place, i: u32, j: u32) -> f32 {{\n    return f32({name}_data[{index}]);\n}}\n"
            );
        }
        if access.write {
            text += &format!(
                "fn put_{name}(at: Place, i: u32, j: u32, value: f32) {{\n    if ({guard}) {{ return; }}\n    \
                 {name}_data[{index}] = {}(value);\n}}\n",
                self.dtype()
            );
        }
        text
    }

    /// Likewise, by eights of f16: as they lie, two vectors of four at a time, where unit is 8, or one by one. Rows must be there
    /// to be read.
    fn declare_eights(&self, binding: usize, view: usize, access: Access, unit: usize) -> String {
        let (name, dtype) = (self.name, self.dtype());
        let mode = if access.write { "read_write" } else { "read" };
        let element = if unit == 8 { format!("vec4<{dtype}>") } else { dtype.to_string() };
        let (guard, index) = self.address(view);
        let mut text = format!("@group(0) @binding({binding}) var<storage, {mode}> {name}_data: array<{element}>;\n");
        let each = |part: usize, value: &dyn Fn(usize) -> String| {
            (0..4).map(|n| value(part * 4 + n)).collect::<Vec<_>>().join(", ")
        };
        // Columns in eights: the view has no other stride than 1.
        let guard_8 = guard.replace(&format!("j >= {}u", self.cols), &format!("j8 * 8u >= {}u", self.cols));
        let index_8 = index.replace(&format!("j * params.views[{view}].col"), "j8");
        if access.read && unit == 8 {
            text += &format!(
                "fn {name}_8(at: Place, i: u32, j8: u32) -> Half8 {{\n    if (j8 >= {}u) {{ return Half8(); }}\n    \
                 let n = 2u * ({index_8});\n    return Half8({name}_data[n], {name}_data[n + 1u]);\n}}\n",
                self.cols / 8
            );
        } else if access.read {
            let one = |n: usize| format!("{name}_1(at, i, j8 * 8u + {n}u)");
            text += &format!(
                "fn {name}_1(at: Place, i: u32, j: u32) -> f16 {{\n    if ({guard}) {{ return 0.0h; }}\n    \
                 return f16({name}_data[{index}]);\n}}\n\
                 fn {name}_8(at: Place, i: u32, j8: u32) -> Half8 {{\n    \
                 return Half8(vec4<f16>({}), vec4<f16>({}));\n}}\n",
                each(0, &one),
                each(1, &one)
            );
        }
        if access.write && unit == 8 {
            text += &format!(
                "fn put_{name}_8(at: Place, i: u32, j8: u32, x: Half8) {{\n    if ({guard_8}) {{ return; }}\n    \
                 let n = 2u * ({index_8});\n    {name}_data[n] = x.lo;\n    {name}_data[n + 1u] = x.hi;\n}}\n"
            );
        } else if access.write {
            let puts: String = (0..8)
                .map(|n| {
                    let part = if n < 4 { "lo" } else { "hi" };
                    format!("    put_{name}_1(at, i, j8 * 8u + {n}u, x.{part}[{}]);\n", n % 4)
                })
                .collect();
            text += &format!(
                "fn put_{name}_1(at: Place, i: u32, j: u32, x: f16) {{\n    if ({guard}) {{ return; }}\n    \
                 {name}_data[{index}] = {dtype}(x);\n}}\n\
                 fn put_{name}_8(at: Place, i: u32, j8: u32, x: Half8) {{\n{puts}}}\n"
            );
        }
        text
    }

    /// When (i, j) is not there, and where it lies if it is.
    fn address(&self, view: usize) -> (String, String) {
        let cols = self.cols;
        let head = if self.key_heads { "at.h / params.group" } else { "at.h" };
        let all = if self.key_heads { "(at.b * (params.heads / params.group) + at.h / params.group)" } else { "at.bh" };
        match &self.memory {
            Memory::Slot { rows, .. } => {
                let (guard, row) = match rows {
                    Rows::Each | Rows::First(1) | Rows::Last(1) => ("i >= at.len".into(), "(at.start + i)".into()),
                    Rows::First(n) => {
                        (format!("i >= at.len || (at.start + i) % {n}u != 0u"), format!("(at.start + i) / {n}u"))
                    }
                    Rows::Last(n) => (
                        format!("i >= at.len || (at.start + i) % {n}u != {}u", n - 1),
                        format!("(at.start + i) / {n}u"),
                    ),
                    Rows::State(n) | Rows::Whole(n) => (format!("i >= {n}u"), "i".to_string()),
                };
                let (batch, head) = match rows {
                    Rows::State(_) => ("at.b + at.sequence", head),
                    Rows::Whole(_) => ("0u", "0u"),
                    _ => ("at.b", head),
                };
                let view = format!("params.views[{view}]");
                (
                    format!("{guard} || j >= {cols}u"),
                    format!("base({view}, {batch}, {head}) + {row} * {view}.row + j * {view}.col"),
                )
            }
            Memory::PerChunk { rows } => (
                format!("i >= {rows}u || j >= {cols}u"),
                format!("(({all} * params.chunks + at.chunk) * {rows}u + i) * {cols}u + j"),
            ),
            Memory::PerChunkHalf { rows } => (
                format!("i >= {rows}u || j >= {cols}u"),
                format!("(({all} * params.chunks + at.chunk) * {rows}u + i) * {}u + j8", cols / 8),
            ),
            Memory::PerSequence { rows } => (
                format!("i >= {rows}u || j >= {cols}u"),
                format!("(({all} * params.sequences + at.sequence) * {rows}u + i) * {cols}u + j"),
            ),
            Memory::PerHead { rows } => {
                (format!("i >= {rows}u || j >= {cols}u"), format!("({all} * {rows}u + i) * {cols}u + j"))
            }
            Memory::Constant(steps) => {
                (format!("i >= at.len || (at.start + i) % {steps}u != 0u"), "params.first_head + at.h".into())
            }
        }
    }
}
