//! Formulas to stages: which operands a kernel names, what they are bound to, how many workgroups it takes.

use std::collections::HashMap;
use std::ops::Range;

use super::bindings::{Bindings, SUFFIXES, whole_bytes, windows};
use super::check::Problem;
use super::chunks::Chunks;
use super::features;
use super::formulas::helpers;
use super::operands::{Access, Calls, Memory, Operand, Rows};
use super::tensors::OwnBuffers;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::layout::DType;
use crate::gpu::linear_spec::LinearSpec;
use crate::gpu::link::fragment_text;
use crate::gpu::params::{LinearParams, View};
use crate::gpu::plan::Bound;
use crate::gpu::spec::{FLAT_THREADS, Spec};
use crate::gpu::window::{Window, fold_grid};
use crate::{Error, Result};

/// Batches and value heads that a run of stages covers: as many as the device's bindings hold.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub batches: Range<usize>,
    pub heads: Range<usize>,
    /// Heads of a window of those tensors that one binding does not hold; all where there are none.
    pub window: usize,
}

impl Part {
    pub(super) fn instances(&self) -> usize {
        self.batches.len() * self.heads.len()
    }
}

/// One product of a sum: `sum_s left(i, s) * right(s, j)` for s below `inner`. Texts are WGSL over `at`, `row0` (the tile's first
/// row), and i, s, j.
#[derive(Debug, Clone)]
pub(super) struct Term {
    left: String,
    right: String,
    inner: usize,
    /// Where s begins and ends for a tile, when not at 0 and `inner`.
    from: Option<String>,
    to: Option<String>,
}

impl Term {
    pub(super) fn new(inner: usize, left: impl Into<String>, right: impl Into<String>) -> Term {
        Term { left: left.into(), right: right.into(), inner, from: None, to: None }
    }

    /// Starts at this s; below it the left side is 0.
    pub(super) fn from(mut self, from: &str) -> Term {
        self.from = Some(from.into());
        self
    }

    /// Stops before this s; from there on the left side is 0.
    pub(super) fn to(mut self, to: &str) -> Term {
        self.to = Some(to.into());
        self
    }
}

/// A matrix a chunk, computed by `linear/product.wgsl`.
#[derive(Debug, Clone)]
pub(super) struct Product {
    pub title: &'static str,
    pub rows: usize,
    pub cols: usize,
    pub terms: Vec<Term>,
    /// Statements over `at`, `row0`, i, j and the sum x.
    pub finish: String,
    /// Rows of a tile, where the formula needs a number of its own.
    pub tile_rows: Option<usize>,
}

/// Everything that stages of one plan share.
pub(super) struct Stages<'a, 'b> {
    pub builder: &'a mut PlanBuilder<'b>,
    pub operands: Vec<Operand>,
    /// Functions that formulas may call; a kernel gets those that it does.
    pub helpers: Vec<(&'static str, String)>,
    pub group: usize,
    pub scale: f32,
    pub eps: f32,
    /// Of associative memory: how much a pair changes it, and the share of it that stays.
    pub rate: f32,
    pub keep: f32,
    /// What cosFormer counts positions against.
    pub positions: u32,
    /// What a feature map multiplies by, and its root.
    pub map_scale: [f32; 2],
    /// Chunks that a workgroup of pairs takes one after the other.
    pub run: usize,
    /// Segments of all sequences, where there are any.
    pub segments: usize,
    pub part: Part,
    /// Whether sequences lie one after the other in one batch.
    pub packed: bool,
    owned: HashMap<&'static str, Vec<wgpu::Buffer>>,
    tables: Vec<(Vec<[u32; 4]>, wgpu::Buffer)>,
}

/// Operands of a kernel: their bindings and functions as WGSL, and what is behind each binding.
#[derive(Default)]
struct Declared {
    functions: String,
    f16: bool,
    windows: u32,
    views: [View; 10],
    bound: HashMap<String, Bound>,
}

impl<'a, 'b> Stages<'a, 'b> {
    pub(super) fn new(builder: &'a mut PlanBuilder<'b>, operands: Vec<Operand>, group: usize, part: Part) -> Self {
        let (helpers, owned, tables) = (Vec::new(), HashMap::new(), Vec::new());
        Stages {
            builder,
            operands,
            helpers,
            group,
            scale: 1.0,
            eps: 0.0,
            rate: 1.0,
            keep: 1.0,
            positions: 1,
            map_scale: [1.0; 2],
            run: 1,
            segments: 0,
            part,
            packed: false,
            owned,
            tables,
        }
    }

    /// Of a part of linear attention, over buffers of the plan's.
    pub(super) fn of(
        p: &Problem,
        builder: &'a mut PlanBuilder<'b>,
        operands: &[Operand],
        part: Part,
        buffers: &OwnBuffers,
    ) -> Self {
        let mut stages = Stages::new(builder, operands.to_vec(), p.group(), part);
        stages.scale = p.outer_scale();
        stages.packed = p.packed;
        stages.positions = p.q.shape()[2].max(p.k.shape()[2]) as u32;
        stages.map_scale = features::scale(p);
        stages.helpers = helpers(p);
        for (name, buffer) in buffers {
            stages.own(name, buffer.clone());
        }
        stages
    }

    /// Puts buffers of the plan's behind an operand, one a window.
    pub(super) fn own(&mut self, name: &'static str, buffers: Vec<wgpu::Buffer>) {
        self.owned.insert(name, buffers);
    }

    /// A matrix a chunk.
    pub(super) fn product(&mut self, chunks: &Chunks, product: Product) -> Result<()> {
        let tile = |n: usize| n.next_multiple_of(16).min(if n <= 32 { 32 } else { 64 });
        let tile_m = product.tile_rows.unwrap_or_else(|| tile(product.rows));
        let tile_n = tile(product.cols);
        let mut text = String::new();
        let mut choice = |head: &str, ty: &str, value: &dyn Fn(&Term) -> String| {
            text += &format!("fn {head} -> {ty} {{\n    var x = {ty}();\n");
            for (n, term) in product.terms.iter().enumerate() {
                // Not a switch: SwiftShader takes time and memory for each that doubles with the next.
                text +=
                    &format!("    {}if (term == {n}u) {{ x = {}; }}\n", if n > 0 { "else " } else { "" }, value(term));
            }
            text += "    return x;\n}\n";
        };
        choice("left(term: u32, at: Place, row0: u32, i: u32, s: u32)", "f32", &|term| term.left.clone());
        choice("right(term: u32, at: Place, row0: u32, s: u32, j: u32)", "f32", &|term| term.right.clone());
        choice("extent(term: u32, row0: u32, len: u32)", "vec2<u32>", &|term| {
            let (from, inner) = (term.from.as_deref().unwrap_or("0u"), term.inner);
            let to = term.to.as_ref().map_or(format!("{inner}u"), |to| format!("min({to}, {inner}u)"));
            format!("vec2<u32>(({from}) / 16u * 16u, {to})")
        });
        // Rows lie one after the other in memory: an operand called with s last runs along s.
        choice("left_along_s(term: u32)", "bool", &|term| term.left.contains("i, s)").to_string());
        choice("right_along_s(term: u32)", "bool", &|term| term.right.contains("j, s)").to_string());
        text += &format!("fn finish(at: Place, row0: u32, i: u32, j: u32, x: f32) {{\n    {}\n}}\n", product.finish);
        // Compilers unroll a loop whose bound they see: on GPUs that is wanted, on CPUs it is all that compiling takes.
        let zero = if self.builder.ctx().capabilities().cpu { " + params.zero" } else { "" };
        text += &format!("fn whole(n: u32) -> u32 {{ return n{zero}; }}\n");
        let constants = vec![
            ("ROWS", product.rows as u32),
            ("COLS", product.cols as u32),
            ("TILE_M", tile_m as u32),
            ("TILE_N", tile_n as u32),
            ("TERMS", product.terms.len() as u32),
        ];
        let tiles = product.rows.div_ceil(tile_m) * product.cols.div_ceil(tile_n);
        let items = (self.part.instances() * chunks.count * tiles) as u64;
        let threads = (tile_m * tile_n / 16) as u32;
        self.kernel(chunks, product.title, "linear/product.wgsl", constants, text, threads, items, items)
    }

    /// One thread an item.
    pub(super) fn flat(
        &mut self,
        chunks: &Chunks,
        title: &'static str,
        file: &'static str,
        constants: Vec<(&'static str, u32)>,
        text: String,
        items: usize,
    ) -> Result<()> {
        let groups = (items as u64).div_ceil(FLAT_THREADS.into());
        self.kernel(chunks, title, file, constants, text, FLAT_THREADS, items as u64, groups)
    }

    /// Any kernel: `items` is what it counts, `groups` how many workgroups it takes.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn kernel(
        &mut self,
        chunks: &Chunks,
        title: &'static str,
        file: &'static str,
        constants: Vec<(&'static str, u32)>,
        text: String,
        threads: u32,
        items: u64,
        groups: u64,
    ) -> Result<()> {
        let spec =
            LinearSpec { title, files: vec![file], constants, text, f16: false, threads, windows: 1, matrices: None };
        self.launch(chunks, spec, items, groups)
    }

    /// Likewise; operands and helpers are added to the spec.
    pub(super) fn launch(&mut self, chunks: &Chunks, mut spec: LinearSpec, items: u64, groups: u64) -> Result<()> {
        if items == 0 {
            return Ok(());
        }
        let (title, formulas) = (spec.title, std::mem::take(&mut spec.text));
        let (mut text, mut calls) = (formulas.clone(), Calls::default());
        calls.add(&formulas);
        if calls.has("cos_sin") {
            spec.files.push("lib/turns.wgsl");
        }
        spec.files.iter().for_each(|file| calls.add(fragment_text(file)));
        // Helpers may call helpers that stand before them.
        for (name, helper) in self.helpers.iter().rev() {
            if calls.has(name) {
                calls.add(helper);
                text += helper;
            }
        }
        let Declared { functions, f16, windows, views, mut bound } = self.declare(&calls)?;
        text += &functions;
        let grid = fold_grid(groups, self.builder.ctx().capabilities().workgroups_per_dimension)?;
        if items > u32::MAX.into() {
            return Err(Error::Limit(format!(
                "{title}: has {items} items, but a dispatch counts at most {}",
                u32::MAX
            )));
        }
        let params = LinearParams {
            views,
            heads: self.part.heads.len() as u32,
            group: self.group as u32,
            chunks: chunks.count as u32,
            sequences: chunks.sequences as u32,
            instances: self.part.instances() as u32,
            items: items as u32,
            grid_x: grid[0],
            scale: self.scale,
            eps: self.eps,
            first_head: self.part.heads.start as u32,
            zero: 0,
            rate: self.rate,
            keep: self.keep,
            positions: self.positions,
            run: self.run as u32,
            segments: self.segments as u32,
            window: self.part.window as u32,
            map_scale: self.map_scale[0],
            map_root: self.map_scale[1],
        };
        let table = self.table(chunks)?;
        let spec = Spec::Linear(LinearSpec { text, f16, windows, ..spec });
        self.builder.stage(
            spec,
            &[()],
            |builder, (), name| {
                Ok(match name {
                    "params" => builder.constant(bytemuck::bytes_of(&params)),
                    "table" => Bound::Owned(table.clone()),
                    _ => bound.remove(name).expect("every binding but those was declared for an operand"),
                })
            },
            |()| grid,
        )
    }

    /// The operands that a kernel names by these calls.
    fn declare(&self, calls: &Calls) -> Result<Declared> {
        let mut declared = Declared { windows: 1, ..Declared::default() };
        let named = self.operands.iter().filter_map(|operand| Some((operand, Access::of(operand.name, calls)?)));
        for (view, (operand, access)) in named.enumerate() {
            let unit = self.unit(operand, access.width);
            let bound: Vec<Bound> = match &operand.memory {
                Memory::Slot { slot, .. } => {
                    let windows = self.windows(operand, unit)?;
                    declared.views[view] = windows[0].view;
                    let slot = self.builder.slot(slot);
                    windows
                        .iter()
                        .map(|Window { start, size, .. }| Bound::Slot { slot, start: *start, size: *size })
                        .collect()
                }
                _ => self.owned[operand.name].iter().cloned().map(Bound::Owned).collect(),
            };
            let bindings = Bindings { first: declared.bound.len() + 2, windows: bound.len(), view, unit };
            declared.functions += &operand.declare(bindings, access);
            declared.f16 |= operand.dtype() == DType::F16;
            declared.windows = declared.windows.max(bound.len() as u32);
            let names = SUFFIXES.iter().map(|suffix| format!("{}_{suffix}", operand.name));
            declared.bound.extend(names.zip(bound));
        }
        Ok(declared)
    }

    /// Elements that can be read at once: as many as are asked for, or 1.
    fn unit(&self, operand: &Operand, width: usize) -> usize {
        match &operand.memory {
            Memory::Slot { slot, .. } => {
                let layout = self.builder.layout(self.builder.slot(slot));
                if layout.not_by(width).is_none() { width } else { 1 }
            }
            Memory::Constant(_) => 1,
            _ if operand.cols.is_multiple_of(width) => width,
            _ => 1,
        }
    }

    /// The window of a caller's tensor that this part needs, or several where a binding does not hold it.
    fn windows(&self, operand: &Operand, unit: usize) -> Result<Vec<Window>> {
        let Memory::Slot { slot, rows, .. } = &operand.memory else { return Ok(Vec::new()) };
        let layout = self.builder.layout(self.builder.slot(slot));
        let group = if operand.key_heads { self.group } else { 1 };
        let heads = self.part.heads.start / group..self.part.heads.end.div_ceil(group);
        // States of packed sequences have a batch each, and are taken together.
        let packed = self.packed && matches!(rows, Rows::State(_));
        let batches = if packed { 0..layout.shape()[0] } else { self.part.batches.clone() };
        let part = if matches!(rows, Rows::Whole(_)) { *layout } else { layout.part(batches, heads) };
        let alignment = self.builder.offset_alignment();
        if !packed
            && !matches!(rows, Rows::Whole(_))
            && whole_bytes(&part) > self.builder.ctx().capabilities().binding_bytes
        {
            return Ok(windows(&part, self.part.window / group, unit, alignment));
        }
        let window = Window::of(&part, unit, alignment);
        window.check_fits(slot, self.builder.ctx())?;
        Ok(vec![window])
    }

    fn table(&mut self, chunks: &Chunks) -> Result<wgpu::Buffer> {
        if let Some((_, buffer)) = self.tables.iter().find(|(table, _)| *table == chunks.table) {
            return Ok(buffer.clone());
        }
        let bytes = bytemuck::cast_slice(&chunks.table);
        let buffer = self.builder.owned("table", wgpu::BufferUsages::STORAGE, bytes)?;
        self.tables.push((chunks.table.clone(), buffer.clone()));
        Ok(buffer)
    }
}
