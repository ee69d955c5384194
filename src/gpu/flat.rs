//! Kernels without tiles: a file holds the formula, and what it reads, writes and counts is declared here, once, for Rust and
//! WGSL alike. A tensor `x` is read by `x(b, h, i, d)` and written by `put_x(b, h, i, d, value)`; a buffer of the plan's by
//! `x(n)` and `put_x(n, value)`; numbers are fields of `params`.

use std::collections::HashMap;
use std::fmt;

use super::builder::PlanBuilder;
use super::layout::{DType, Layout};
use super::link::{Assembled, Source, assemble, fragment};
use super::params::View;
use super::plan::Bound;
use super::spec::{FLAT_THREADS, Spec};
use super::window::{Window, fold_grid};
use crate::Result;

/// What a kernel does with an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    Read,
    Write,
    /// Reads it, and writes it in place.
    Update,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Declared {
    Tensor(DType, Use),
    /// f32, or pairs of them.
    Buffer(&'static str, Use),
    /// Not given: what reading it yields.
    Absent(&'static str),
}

/// One kernel: files, operands, and constants that change its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FlatSpec {
    title: &'static str,
    files: Vec<&'static str>,
    constants: Vec<(&'static str, u32)>,
    operands: Vec<(&'static str, Declared)>,
    /// Name and WGSL type of what `params` holds after the views.
    numbers: Vec<(&'static str, &'static str)>,
    text: String,
    pub(super) threads: u32,
}

impl FlatSpec {
    pub(super) fn assemble(&self) -> Assembled {
        let f16 = self.operands.iter().any(|(_, declared)| matches!(declared, Declared::Tensor(DType::F16, _)));
        let mut prelude = String::from(if f16 { "enable f16;\n" } else { "" });
        for (name, value) in &self.constants {
            prelude += &format!("const {name}: u32 = {value}u;\n");
        }
        prelude += &format!("const THREADS: u32 = {}u;\n", self.threads);
        let mut files = vec![fragment("lib/view.wgsl")];
        files.extend(self.files.iter().map(|file| fragment(file)));
        files.push(Source::generated("operands", self.declarations()));
        assemble(&prelude, &self.constants, &files)
    }

    fn declarations(&self) -> String {
        let mut fields = String::new();
        let mut text = String::new();
        let mut binding = 1;
        for (name, declared) in &self.operands {
            let (usage, element, index, arguments) = match declared {
                Declared::Absent(value) => {
                    text += &format!("fn {name}(b: u32, h: u32, i: u32, d: u32) -> f32 {{\n    return {value};\n}}\n");
                    continue;
                }
                Declared::Tensor(dtype, usage) => {
                    fields += &format!("    view_{name}: View,\n");
                    let view = format!("params.view_{name}");
                    let index = format!("base({view}, b, h) + i * {view}.row + d * {view}.col");
                    (*usage, dtype.to_string(), index, "b: u32, h: u32, i: u32, d: u32")
                }
                Declared::Buffer(element, usage) => (*usage, element.to_string(), "n".to_string(), "n: u32"),
            };
            let value = if element == "f16" { "f32" } else { &element };
            let mode = if usage == Use::Read { "read" } else { "read_write" };
            text += &format!("@group(0) @binding({binding}) var<storage, {mode}> {name}_data: array<{element}>;\n");
            if usage != Use::Write {
                text +=
                    &format!("fn {name}({arguments}) -> {value} {{\n    return {value}({name}_data[{index}]);\n}}\n");
            }
            if usage != Use::Read {
                text += &format!(
                    "fn put_{name}({arguments}, value: {value}) {{\n    {name}_data[{index}] = {element}(value);\n}}\n"
                );
            }
            binding += 1;
        }
        for (name, ty) in &self.numbers {
            fields += &format!("    {name}: {ty},\n");
        }
        format!(
            "struct Params {{\n{fields}    items: u32,\n    grid_x: u32,\n}}\n\
             @group(0) @binding(0) var<uniform> params: Params;\n\
             // The workgroup's number: grids past the device's limit fold into two dimensions.\n\
             fn number_of(group: vec3<u32>) -> u32 {{\n    return group.y * params.grid_x + group.x;\n}}\n{}{text}",
            self.text
        )
    }
}

impl fmt::Display for FlatSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title)?;
        // What comes first is what it computes from.
        if let Some((_, Declared::Tensor(dtype, _))) = self.operands.first() {
            write!(f, ", {dtype}")?;
        }
        for (name, value) in &self.constants {
            write!(f, ", {name} {value}")?;
        }
        write!(f, ", {} threads", self.threads)
    }
}

/// What an operand is bound to.
#[derive(Debug, Clone)]
enum Operand {
    Slot(Layout),
    /// A buffer of the plan's, and how it lies there where it is read as a tensor.
    Owned(wgpu::Buffer, Option<Layout>),
}

/// A kernel and what it runs on, before it becomes a stage.
#[derive(Debug, Clone)]
pub(crate) struct Flat {
    spec: FlatSpec,
    bound: Vec<(&'static str, Operand)>,
    /// What `params` holds after the views.
    numbers: Vec<u32>,
}

impl Flat {
    /// A kernel of this file, which may name those of `more`.
    pub(crate) fn new(title: &'static str, file: &'static str, more: &[&'static str]) -> Flat {
        let files = [file].into_iter().chain(more.iter().copied()).collect();
        let spec = FlatSpec {
            title,
            files,
            constants: Vec::new(),
            operands: Vec::new(),
            numbers: Vec::new(),
            text: String::new(),
            threads: FLAT_THREADS,
        };
        Flat { spec, bound: Vec::new(), numbers: Vec::new() }
    }

    /// The tensor of the slot of this name.
    pub(crate) fn tensor(mut self, name: &'static str, layout: Layout, usage: Use) -> Flat {
        self.spec.operands.push((name, Declared::Tensor(layout.dtype(), usage)));
        self.bound.push((name, Operand::Slot(layout)));
        self
    }

    /// A tensor that may not be given; `absent` is then what reading it yields.
    pub(crate) fn tensor_or(mut self, name: &'static str, layout: Option<Layout>, absent: &'static str) -> Flat {
        match layout {
            Some(layout) => self.tensor(name, layout, Use::Read),
            None => {
                self.spec.operands.push((name, Declared::Absent(absent)));
                self
            }
        }
    }

    /// A buffer of the plan's, of f32 or of a vector of them.
    pub(crate) fn buffer(
        mut self,
        name: &'static str,
        element: &'static str,
        buffer: &wgpu::Buffer,
        usage: Use,
    ) -> Flat {
        self.spec.operands.push((name, Declared::Buffer(element, usage)));
        self.bound.push((name, Operand::Owned(buffer.clone(), None)));
        self
    }

    /// A buffer of the plan's that is read and written as a tensor of this layout.
    pub(crate) fn buffer_as(mut self, name: &'static str, layout: Layout, buffer: &wgpu::Buffer, usage: Use) -> Flat {
        self.spec.operands.push((name, Declared::Tensor(layout.dtype(), usage)));
        self.bound.push((name, Operand::Owned(buffer.clone(), Some(layout))));
        self
    }

    /// A count in `params`.
    pub(crate) fn count(mut self, name: &'static str, count: usize) -> Flat {
        self.spec.numbers.push((name, "u32"));
        self.numbers.push(count as u32);
        self
    }

    /// A number in `params`.
    pub(crate) fn number(mut self, name: &'static str, number: f32) -> Flat {
        self.spec.numbers.push((name, "f32"));
        self.numbers.push(number.to_bits());
        self
    }

    /// A constant of the text.
    pub(crate) fn constant(mut self, name: &'static str, value: u32) -> Flat {
        self.spec.constants.push((name, value));
        self
    }

    /// Functions that the file calls.
    pub(crate) fn text(mut self, text: impl AsRef<str>) -> Flat {
        self.spec.text += text.as_ref();
        self
    }

    pub(crate) fn threads(mut self, threads: u32) -> Flat {
        self.spec.threads = threads;
        self
    }

    /// The stage of one thread an item.
    pub(crate) fn each(self, builder: &mut PlanBuilder<'_>, items: usize) -> Result<()> {
        let groups = (items as u64).div_ceil(self.spec.threads.into());
        self.stage(builder, items, groups)
    }

    /// The stage of one workgroup an item.
    pub(crate) fn groups(self, builder: &mut PlanBuilder<'_>, items: usize) -> Result<()> {
        self.stage(builder, items, items as u64)
    }

    fn stage(self, builder: &mut PlanBuilder<'_>, items: usize, groups: u64) -> Result<()> {
        if items == 0 {
            return Ok(());
        }
        let ctx = builder.ctx();
        let grid = fold_grid(groups, ctx.capabilities().workgroups_per_dimension)?;
        if items as u64 > u64::from(u32::MAX) {
            let title = self.spec.title;
            return Err(crate::Error::Limit(format!(
                "{title}: has {items} items, but a dispatch counts at most {}",
                u32::MAX
            )));
        }
        let mut views: Vec<View> = Vec::new();
        let mut bound = HashMap::new();
        for (name, operand) in &self.bound {
            let found = match operand {
                Operand::Slot(layout) => {
                    let window = Window::of(layout, 1, builder.offset_alignment());
                    window.check_fits(name, ctx)?;
                    views.push(window.view);
                    Bound::Slot { slot: builder.slot(name), start: window.start, size: window.size }
                }
                Operand::Owned(buffer, layout) => {
                    views.extend(layout.map(|layout| Window::of(&layout, 1, 1).view));
                    Bound::Owned(buffer.clone())
                }
            };
            bound.insert(format!("{name}_data"), found);
        }
        let mut bytes = bytemuck::cast_slice(&views).to_vec();
        let numbers = self.numbers.into_iter().chain([items as u32, grid[0]]);
        bytes.extend(numbers.flat_map(u32::to_ne_bytes));
        builder.stage(
            Spec::Flat(self.spec),
            &[()],
            |builder, (), binding| {
                if binding == "params" {
                    return Ok(builder.constant(&bytes));
                }
                // Each operand has one binding.
                Ok(bound.remove(binding).unwrap_or_else(|| panic!("{binding} is no operand: a bug in wgpu-attention")))
            },
            |()| grid,
        )
    }
}
