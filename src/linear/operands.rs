//! What formulas may name: tensors of the caller and buffers of the plan, each read and written by a function of its own
//! name, `x(at, i, j)` and `put_x(at, i, j, value)`, in rows of a chunk.

use std::collections::HashSet;

use super::bindings::Bindings;
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
    /// The plan's own, f16 and by fours or eights: `rows` of `cols` for each chunk of each head.
    PerChunkHalf { rows: usize },
    /// The plan's own, f32: `rows` of `cols` for each sequence of each head.
    PerSequence { rows: usize },
    /// The plan's own, f32: `rows` of `cols` for each segment of each head, where a kernel's sequences are segments.
    PerSegment { segments: usize, rows: usize },
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
    /// Elements at a time: 1; or 4, as f32, by `x_4(at, i, j4)` and `put_x_4(at, i, j4, four)`; or 8 of f16, likewise.
    pub width: usize,
}

impl Access {
    /// How texts that call these functions use an operand, if they do.
    pub(super) fn of(name: &str, calls: &Calls) -> Option<Access> {
        let uses = |suffix: &str, width: usize| {
            let (read, write) = (format!("{name}{suffix}"), format!("put_{name}{suffix}"));
            let there = match suffix {
                "" => calls.has(&format!("{name}_there")),
                _ => calls.has(&format!("{name}_raw{suffix}")),
            };
            Access { read: there || calls.has(&read), write: calls.has(&write), width }
        };
        [uses("", 1), uses("_4", 4), uses("_8", 8)].into_iter().find(|access| access.read || access.write)
    }
}

/// The functions that texts call. Each text is read once: a plan whose kernels are there spends most of its time here.
#[derive(Default)]
pub(super) struct Calls<'a>(HashSet<&'a str>);

impl<'a> Calls<'a> {
    /// Whatever stands before a parenthesis, but for what a text defines.
    pub(super) fn add(&mut self, text: &'a str) {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for (end, _) in text.match_indices('(') {
            let start = text[..end].rfind(|c| !word(c)).map_or(0, |at| at + 1);
            if start < end && !text[..start].ends_with("fn ") {
                self.0.insert(&text[start..end]);
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
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

    /// A matrix for each chunk, of f16 that are read and written by fours or eights.
    pub(super) fn per_chunk_half(name: &'static str, rows: usize, cols: usize) -> Operand {
        Operand { name, memory: Memory::PerChunkHalf { rows }, cols, key_heads: false, ones: false }
    }

    /// A matrix for each segment.
    pub(super) fn per_segment(name: &'static str, segments: usize, rows: usize, cols: usize) -> Operand {
        Operand { name, memory: Memory::PerSegment { segments, rows }, cols, key_heads: false, ones: false }
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
            Memory::PerSegment { segments, rows } => segments * rows * self.cols,
            Memory::PerHead { rows } => rows * self.cols,
            Memory::Slot { .. } | Memory::Constant(_) => 0,
        }
    }

    /// Its bindings and its functions.
    pub(super) fn declare(&self, bound: Bindings, access: Access) -> String {
        if access.width > 1 {
            return self.declare_groups(bound, access);
        }
        let (name, cols) = (self.name, self.cols);
        let mut text = bound.declare(name, access, &self.dtype().to_string());
        let (there, index) = self.address(bound, 1);
        let number = bound.element(name, &index);
        if access.read {
            let missing =
                if self.ones { format!("select(0.0, 1.0, j == {cols}u && i < at.len)") } else { "0.0".to_string() };
            // No early return: compilers that inline make a loop or a switch of each, and formulas call many.
            text += &format!(
                "fn {name}(at: Place, i: u32, j: u32) -> f32 {{\n    var x = {missing};\n    \
                 if ({there}) {{ x = f32({number}); }}\n    return x;\n}}\n"
            );
            // Of rows and columns that are there: no load waits for a test.
            let value = self.of_first("0.0", format!("f32({number})"));
            text += &format!("fn {name}_there(at: Place, i: u32, j: u32) -> f32 {{\n    return {value};\n}}\n");
        }
        if access.write {
            text += &format!(
                "fn put_{name}(at: Place, i: u32, j: u32, value: f32) {{\n    if ({there}) {{ {} }}\n}}\n",
                bound.put(name, &index, &format!("{}(value)", self.dtype()))
            );
        }
        text
    }

    /// Likewise, by fours or eights: as they lie, where unit says so, or one by one. Rows must be there to be read; columns that are
    /// not read as 0, and no load waits for a test.
    fn declare_groups(&self, bound: Bindings, access: Access) -> String {
        let (name, dtype, width, unit) = (self.name, self.dtype(), access.width, bound.unit);
        let element = match (unit, access.write) {
            (1, _) => dtype.to_string(),
            (8, false) => "vec4<u32>".into(),
            _ => format!("vec4<{dtype}>"),
        };
        let (there, index) = self.address(bound, unit);
        let mut text = bound.declare(name, access, &element);
        let of = |index: &str| bound.element(name, index);
        let group = if width == 8 { "Half8" } else { "vec4<f32>" };
        let [read, put] = [
            format!("fn {name}_{width}(at: Place, i: u32, j{width}: u32) -> {group} {{\n"),
            format!("fn put_{name}_{width}(at: Place, i: u32, j{width}: u32, x: {group}) {{\n"),
        ];
        if unit == 1 {
            // A number's own functions, and a group's by them.
            let number = if width == 8 { "f16" } else { "f32" };
            let each = |from: usize| {
                let one = |n: usize| format!("{name}_1(at, i, j{width} * {width}u + {n}u)");
                (from..from + 4).map(one).collect::<Vec<_>>().join(", ")
            };
            if access.read {
                let all = if width == 8 {
                    format!("Half8(vec4<f16>({}), vec4<f16>({}))", each(0), each(4))
                } else {
                    format!("vec4<f32>({})", each(0))
                };
                text += &format!(
                    "fn {name}_1(at: Place, i: u32, j: u32) -> {number} {{\n    var x = {number}(0.0);\n    \
                     if ({there}) {{ x = {number}({}); }}\n    return x;\n}}\n\
                     {read}    return {all};\n}}\n",
                    of(&index)
                );
                if width == 4 {
                    text += &format!(
                        "alias {name}_four = vec4<f32>;\n\
                         fn {name}_raw_4(at: Place, i: u32, j4: u32) -> vec4<f32> {{\n    return {name}_4(at, i, j4);\n}}\n"
                    );
                }
            }
            if access.write {
                let part = |n: usize| match (width, n) {
                    (8, 0..4) => format!("x.lo[{n}]"),
                    (8, _) => format!("x.hi[{}]", n - 4),
                    _ => format!("x[{n}]"),
                };
                let puts: String = (0..width)
                    .map(|n| format!("    put_{name}_1(at, i, j{width} * {width}u + {n}u, {});\n", part(n)))
                    .collect();
                text += &format!(
                    "fn put_{name}_1(at: Place, i: u32, j: u32, x: {number}) {{\n    \
                     if ({there}) {{ {} }}\n}}\n{put}{puts}}}\n",
                    bound.put(name, &index, &format!("{dtype}(x)"))
                );
            }
            return text;
        }
        if access.read {
            let value = match (width, access.write) {
                (8, false) => {
                    format!("let words = {};\n    return Half8(halves_of(words.xy), halves_of(words.zw));", of(&index))
                }
                (8, true) => format!("let n = 2u * ({index});\n    return Half8({}, {});", of("n"), of("n + 1u")),
                _ => {
                    let four = format!("vec4<{dtype}>");
                    format!("return {};", self.of_first(&format!("{four}()"), format!("{four}({})", of(&index))))
                }
            };
            let columns = self.cols / width;
            if width == 8 {
                text += &format!("{read}    if (j8 >= {columns}u) {{ return Half8(); }}\n    {value}\n}}\n");
            } else {
                let last = columns.saturating_sub(1);
                text += &format!(
                    "alias {name}_four = vec4<{dtype}>;\n\
                     fn {name}_any(at: Place, i: u32, j4: u32) -> {name}_four {{\n    {value}\n}}\n\
                     fn {name}_raw_4(at: Place, i: u32, j4: u32) -> {name}_four {{\n    \
                     return {name}_any(at, i, min(j4, {last}u));\n}}\n\
                     {read}    return select(vec4<f32>(), vec4<f32>({name}_raw_4(at, i, j4)), j4 < {columns}u);\n}}\n"
                );
            }
        }
        if access.write {
            let store = if width == 8 {
                let [lo, hi] = [("n", "x.lo"), ("n + 1u", "x.hi")].map(|(n, x)| bound.put(name, n, x));
                format!("let n = 2u * ({index});\n    {lo}\n    {hi}")
            } else {
                bound.put(name, &index, &format!("vec4<{dtype}>(x)"))
            };
            text += &format!("{put}    if ({there}) {{\n    {store}\n    }}\n}}\n");
        }
        text
    }

    /// Of rows of which only the first step of a token has a value: that, and nothing for other steps; the load does not wait for it.
    fn of_first(&self, nothing: &str, value: String) -> String {
        match self.memory {
            Memory::Slot { rows: Rows::First(n), .. } | Memory::Constant(n) if n > 1 => {
                format!("select({nothing}, {value}, (at.start + i) % {n}u == 0u)")
            }
            _ => value,
        }
    }

    /// When (i, j) is there, and where it lies then; j counts groups of so many columns, named j4 or j8, where it is not 1.
    fn address(&self, bound: Bindings, unit: usize) -> (String, String) {
        let j = if unit == 1 { "j".to_string() } else { format!("j{unit}") };
        let cols = self.cols / unit;
        let head = if self.key_heads { "at.key_h" } else { "at.h" };
        let all = bound.head_of_own(self.key_heads);
        match &self.memory {
            Memory::Slot { rows, .. } => {
                let (there, row) = match rows {
                    Rows::Each | Rows::First(1) | Rows::Last(1) => ("i < at.len".into(), "(at.start + i)".into()),
                    Rows::First(n) => {
                        (format!("i < at.len && (at.start + i) % {n}u == 0u"), format!("(at.start + i) / {n}u"))
                    }
                    Rows::Last(n) => {
                        (format!("i < at.len && (at.start + i) % {n}u == {}u", n - 1), format!("(at.start + i) / {n}u"))
                    }
                    Rows::State(n) | Rows::Whole(n) => (format!("i < {n}u"), "i".to_string()),
                };
                let (batch, head) = match rows {
                    Rows::State(_) => ("at.b + at.sequence", head),
                    Rows::Whole(_) => ("0u", "0u"),
                    _ => ("at.b", head),
                };
                let view = format!("params.views[{}]", bound.view);
                // Groups lie in rows of stride 1.
                let column = if unit == 1 { format!("{j} * {view}.col") } else { j.clone() };
                (
                    format!("{there} && {j} < {cols}u"),
                    bound.index(format!("base({view}, {batch}, {head}) + {row} * {view}.row + {column}")),
                )
            }
            Memory::PerChunk { rows } | Memory::PerChunkHalf { rows } => (
                format!("i < {rows}u && {j} < {cols}u"),
                format!("(({all} * params.chunks + at.chunk) * {rows}u + i) * {cols}u + {j}"),
            ),
            Memory::PerSequence { rows } => (
                format!("i < {rows}u && {j} < {cols}u"),
                format!("(({all} * params.sequences + at.sequence) * {rows}u + i) * {cols}u + {j}"),
            ),
            Memory::PerSegment { rows, .. } => (
                format!("i < {rows}u && {j} < {cols}u"),
                format!("(({all} * params.segments + at.sequence) * {rows}u + i) * {cols}u + {j}"),
            ),
            Memory::PerHead { rows } => {
                (format!("i < {rows}u && {j} < {cols}u"), format!("({all} * {rows}u + i) * {cols}u + {j}"))
            }
            Memory::Constant(steps) => {
                (format!("i < at.len && (at.start + i) % {steps}u == 0u"), "params.first_head + at.h".into())
            }
        }
    }
}
