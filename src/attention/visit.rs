//! How a problem's tiles are visited: what the mask is decides, together with the order of tokens and packed sequences.

use std::sync::Arc;

use super::Attention;
use super::kept::{LastBuffers, MaskKey};
use super::tasks::{Task, check_tasks, places};
use crate::gpu::attention_spec::Visitor;
use crate::gpu::context::Context;
use crate::gpu::layout::Layout;
use crate::gpu::mask_spec::MaskSpec;
use crate::gpu::tiles;
use crate::gpu::tuning::{Products, Tile};
use crate::mask::{self, Compiled, Node, Rule, RuleData, Slots, closer};
use crate::user_wgsl::Text;
use crate::{DType, Error, Mask, Result};

/// How tiles are visited. Results do not depend on it, up to rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Visit {
    /// What the mask is decides: none, every tile; a band, the tiles it touches; else the tiles of a list.
    #[default]
    Auto,
    /// Every tile that a band leaves, each pair tested: no list is made.
    Every,
    /// The tiles of a list, whatever the mask is.
    Listed,
    /// The tiles of a list, full ones tested like partial ones: what the shortcut is worth.
    ListedPartial,
}

/// The decision, and the tables it needs.
#[derive(Debug)]
pub(super) struct Visiting {
    pub visitor: Visitor,
    /// The band of [`Visitor::Window`].
    pub window: [Option<usize>; 2],
    pub mask: MaskSpec,
    pub texts: Vec<Arc<Text>>,
    pub test_all: bool,
    /// Where the mask cuts no tile, nor the end of the keys: the most that a query tile can visit.
    pub whole_tiles: Option<usize>,
    /// Whether lists are made anew at each call, because the mask reads tensors.
    pub dynamic: bool,
    pub tasks: bool,
    /// Heads of a group whose rows lie in one query tile; 1 for none.
    pub pack: usize,
    /// Whether every row of out is written: tasks may leave some as they are.
    pub every_row: bool,
    /// KV tiles that a query tile visits, at most, as far as is known without the GPU.
    pub longest: usize,
    /// Tiles of queries and keys.
    pub tiles: [usize; 2],
    /// Slots of queries and keys.
    pub slots: [usize; 2],
    /// Batches whose lists differ, and lists of each.
    pub batches: usize,
    pub instances: usize,
    /// Instance and pattern of every head.
    pub heads: Vec<[u32; 2]>,
    pub data: RuleData,
    pub at: Offsets,
    /// Words of tile lists, after the tables.
    pub list_words: u64,
    /// What the plan before made of the tables, if plans to come will find it here.
    pub buffers: Option<LastBuffers>,
    pub note: Option<String>,
}

/// Where things begin in the tables.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    pub heads: u32,
    pub order_q: u32,
    pub order_kv: u32,
    pub places: u32,
}

/// The band that a mask lies within, and what remains to be tested.
pub(super) fn split(mask: &Mask) -> ([Option<usize>; 2], Mask) {
    if let Some(window) = mask.as_window() {
        return (window, Mask::all());
    }
    match &*mask.node {
        Node::And(a, b) => {
            let ([l1, r1], a) = split(a);
            let ([l2, r2], b) = split(b);
            ([closer(l1, l2), closer(r1, r2)], a & b)
        }
        _ => ([None, None], mask.clone()),
    }
}

/// The tensor of a bit mask within.
fn bits_layout(mask: &Mask) -> Option<Layout> {
    mask.rules().into_iter().find_map(|rule| if let Rule::Bits(bits) = rule { Some(bits.layout) } else { None })
}

/// Decides for a problem `[batch, heads, len_q, len_kv]` cut by a tile that should hold `pack` heads; it holds one where
/// they cannot share it. What an earlier plan found is found again.
pub(super) fn visiting(
    a: &Attention,
    shape: [usize; 4],
    tile: &Tile,
    pack: usize,
    ctx: &Context,
) -> Result<Arc<Visiting>> {
    if let Some(tasks) = &a.tasks {
        let tasks = tasks.clone()?;
        check_tasks(&tasks, shape)?;
        return every(a, shape, tile, pack, Some(&tasks)).map(Arc::new);
    }
    let plain = a.mask.as_window().is_some() && !a.is_ordered(Some(tile));
    if plain && matches!(a.visit, Visit::Auto | Visit::Every) {
        return every(a, shape, tile, pack, None).map(Arc::new);
    }
    let binding_bytes = ctx.capabilities().binding_bytes;
    let key = MaskKey {
        shape,
        tile: *tile,
        pack,
        dtype: a.q.layout.dtype(),
        visit: a.visit,
        binding_bytes,
        trusted: a.trusted,
        order: a.order.clone(),
        mask: a.mask.clone(),
    };
    if let Some(kept) = ctx.kept_masks().find(&key) {
        return Ok(kept);
    }
    let mut found = every_or_listed(a, shape, tile, pack, binding_bytes)?;
    // Kept, such a mask would keep the caller's tensors alive, and its lists are those of a call.
    if a.mask.reads_tensors() {
        return Ok(Arc::new(found));
    }
    found.data = found.data.to_share();
    // Else heads cannot share a tile, and no plan is made of this.
    found.buffers = (found.pack == pack).then(LastBuffers::default);
    let found = Arc::new(found);
    ctx.kept_masks().keep(key, found.clone());
    Ok(found)
}

/// Every tile, or a list of them, where that is not clear from the start.
fn every_or_listed(a: &Attention, shape: [usize; 4], tile: &Tile, pack: usize, binding_bytes: u64) -> Result<Visiting> {
    let tiles = [(shape[2] * pack).div_ceil(tile.block_q as usize), shape[3].div_ceil(tile.block_kv as usize)];
    let few = tiles[0] * tiles[1] < tiles::LISTED_TILES && !a.is_ordered(Some(tile));
    let reason = match a.visit {
        Visit::Every => return every(a, shape, tile, pack, None),
        Visit::Auto if few => format!("a list does not pay below {} tiles", tiles::LISTED_TILES),
        _ => {
            let listed = listed(a, shape, tile, pack)?;
            let lists = 4 * (listed.data.len() as u64 + listed.list_words);
            // Classes are made of all batches and heads at once, whatever pieces attention is cut into.
            let bits = bits_layout(&a.mask).map_or(0, |bits| 4 * bits.end() as u64);
            let (what, bytes) =
                if lists > binding_bytes { ("tile lists", lists) } else { ("mask_bits as a whole", bits) };
            if bytes <= binding_bytes {
                return Ok(listed);
            }
            let reason = format!("{what} need {bytes} bytes and the device binds {binding_bytes}");
            if a.visit != Visit::Auto {
                return Err(Error::Limit(format!("visit: {reason}")));
            }
            reason
        }
    };
    let note = Some(format!("every tile is visited and tested, because {reason}"));
    Ok(Visiting { note, ..every(a, shape, tile, pack, None)? })
}

/// Dense or band, with what remains of the mask tested on every pair.
fn every(a: &Attention, shape: [usize; 4], tile: &Tile, pack: usize, tasks: Option<&[Task]>) -> Result<Visiting> {
    let (window, rest) = split(&a.mask);
    if let (Some(_), Some(rule)) = (tasks, rest.rules().iter().find(|rule| !rule.is_positional())) {
        return Err(Error::Mask(format!(
            "mask: {} has tables or tensors of one sequence's length, but packed sequences and tasks have many; use windows, \
             keys, queries, block_diagonal or wgsl",
            rule.name()
        )));
    }
    let mut data = RuleData::default();
    let tested = rest != Mask::all();
    let compiled = tested.then(|| mask::compile(&rest, shape, &mut data)).transpose()?;
    let pack = if compiled.as_ref().is_none_or(Compiled::one_head) { pack } else { 1 };
    let bounded = window.iter().any(Option::is_some);
    let tiles = [(shape[2] * pack).div_ceil(tile.block_q as usize), shape[3].div_ceil(tile.block_kv as usize)];
    // A kernel of its own, so only where it is faster (an H100, N 4096, whole and not): f16 at D 64, 128, 256 1.69, 1.79 and 1.92 ms instead of
    // 1.75, 1.85 and 2.14; two f16 a number take longer, B 1, H 8 0.406 instead of 0.389 and 0.886 instead of 0.812.
    let gains = matches!(tile.products, Products::Matrices(_)) && a.q.layout.dtype() == DType::F16;
    let uncut = !bounded && !tested && tasks.is_none() && shape[3].is_multiple_of(tile.block_kv as usize);
    let mut visiting = Visiting {
        visitor: if bounded { Visitor::Window } else { Visitor::Dense },
        window,
        mask: MaskSpec::default(),
        texts: Vec::new(),
        test_all: tested,
        whole_tiles: (gains && uncut).then_some(tiles[1]),
        dynamic: false,
        tasks: tasks.is_some(),
        pack,
        every_row: tasks.is_none_or(|tasks| tasks.iter().map(|task| task.q.len()).sum::<usize>() == shape[2]),
        longest: longest(window, shape[3], tile, tasks),
        tiles,
        slots: [shape[2], shape[3]],
        batches: 1,
        instances: 1,
        heads: Vec::new(),
        data,
        at: Offsets::default(),
        list_words: 0,
        buffers: None,
        note: None,
    };
    if let Some(compiled) = compiled {
        visiting.add_mask(compiled);
    }
    if let Some(tasks) = tasks {
        let places = places(tasks, pack, tile.block_q as usize);
        visiting.tiles[0] = places.len();
        visiting.at.places = visiting.data.append(places.as_flattened());
    }
    Ok(visiting)
}

/// KV tiles that a query tile visits, at most.
fn longest(window: [Option<usize>; 2], len_kv: usize, tile: &Tile, tasks: Option<&[Task]>) -> usize {
    let keys = tasks.map_or(len_kv, |tasks| tasks.iter().map(|task| task.kv.len()).max().unwrap_or(0));
    let band = match window {
        [Some(left), Some(right)] => left.saturating_add(right).saturating_add(tile.block_q as usize),
        _ => usize::MAX,
    };
    keys.min(band).div_ceil(tile.block_kv as usize)
}

/// The tiles of a list.
fn listed(a: &Attention, shape: [usize; 4], tile: &Tile, pack: usize) -> Result<Visiting> {
    let mut data = RuleData::default();
    let compiled = mask::compile(&a.mask, shape, &mut data)?;
    let lens = [shape[2], shape[3]];
    let blocks = [tile.block_q as usize, tile.block_kv as usize];
    let ordered = a.is_ordered(Some(tile));
    let slots = compiled.instances.iter().map(|(_, order)| match a.order.as_ref().or(order.as_ref()) {
        Some(order) if ordered => order.cut(lens, blocks),
        _ => Ok(Slots { q: None, kv: None }),
    });
    let slots: Vec<Slots> = slots.collect::<Result<_>>()?;
    let ordered = slots.iter().any(|slots| slots.q.is_some() || slots.kv.is_some());
    let mut visiting = Visiting {
        visitor: Visitor::List,
        window: [None, None],
        mask: MaskSpec { order: ordered, ..MaskSpec::default() },
        texts: Vec::new(),
        test_all: a.visit == Visit::ListedPartial,
        whole_tiles: None,
        dynamic: compiled.dynamic,
        tasks: false,
        pack: if compiled.one_head() && !ordered && blocks[0].is_multiple_of(pack) { pack } else { 1 },
        every_row: true,
        longest: 0,
        tiles: [0, 0],
        slots: lens,
        batches: if compiled.batched { shape[0] } else { 1 },
        instances: compiled.instances.len(),
        heads: Vec::new(),
        data,
        at: Offsets::default(),
        list_words: 0,
        buffers: None,
        note: (a.mask.is_ordered() && a.order.is_none() && !ordered)
            .then(|| "tokens are visited as they lie, not in the mask's order, because products are broadcast".into()),
    };
    if ordered {
        visiting.add_orders(&slots, lens, blocks);
    }
    visiting.tiles = [(visiting.slots[0] * visiting.pack).div_ceil(blocks[0]), visiting.slots[1].div_ceil(blocks[1])];
    visiting.longest = visiting.tiles[1];
    // A tile of keys that reaches past the last is cut, too.
    if !ordered && !visiting.test_all && lens[1].is_multiple_of(blocks[1]) {
        visiting.whole_tiles = a.mask.whole_tiles([blocks[0] / visiting.pack, blocks[1]], visiting.tiles[1]);
    }
    visiting.add_mask(compiled);
    let rows = visiting.batches * visiting.instances * visiting.tiles[0];
    // And a word for each thread behind the last list: a workgroup asks for as much of its list before it knows how long that is.
    visiting.list_words = (rows * (visiting.tiles[1] + 1)) as u64 + u64::from(tile.threads);
    Ok(visiting)
}

impl Visiting {
    /// Bytes of its tables, and of the buffers with tables and lists that there are or will be.
    pub(super) fn bytes(&self) -> u64 {
        let tables = 4 * self.data.len() as u64;
        let device = |last: &LastBuffers| last.bytes().max(tables + 4 * self.list_words);
        tables + self.buffers.as_ref().map_or(0, device)
    }

    /// KV tiles that the query tiles of a head, or of heads that share them, visit together, as far as is known without the GPU.
    pub(super) fn all(&self, tile: &Tile) -> usize {
        if self.visitor != Visitor::Window || self.tasks {
            return self.tiles[0].saturating_mul(self.longest);
        }
        let [len_q, len_kv] = self.slots;
        let (rows, keys) = (tile.block_q as usize, tile.block_kv as usize);
        // As window.wgsl has it: query i stands at key i + len_kv - len_q.
        let place = |row: usize| (row / self.pack).min(len_q.max(1) - 1) + len_kv;
        let visited = |tile: usize| {
            let [first, last] = [place(tile * rows), place(tile * rows + rows - 1)];
            let end = self.window[1]
                .map_or(len_kv, |right| last.saturating_add(right).saturating_add(1).saturating_sub(len_q).min(len_kv));
            let begin = self.window[0].map_or(0, |left| first.saturating_sub(left.saturating_add(len_q)));
            end.div_ceil(keys).saturating_sub(begin / keys)
        };
        (0..self.tiles[0]).map(visited).sum()
    }

    fn add_mask(&mut self, compiled: Compiled) {
        self.mask.heads_differ = !compiled.one_head();
        // Two words a head, then the head that stands for each instance.
        self.at.heads = self.data.append(compiled.heads.as_flattened());
        self.data.append(&compiled.instances.iter().map(|(h, _)| *h as u32).collect::<Vec<_>>());
        self.heads = compiled.heads;
        self.mask.text = compiled.text;
        self.mask.files = compiled.files.into_iter().collect();
        self.texts = compiled.texts;
    }

    /// One row of slots an instance, all as long as the longest, in whole tiles.
    fn add_orders(&mut self, slots: &[Slots], lens: [usize; 2], blocks: [usize; 2]) {
        let mut rows = |tokens: &dyn Fn(&Slots) -> Vec<u32>, block: usize| {
            let each: Vec<Vec<u32>> = slots.iter().map(tokens).collect();
            let longest = each.iter().map(Vec::len).max().unwrap_or(0).next_multiple_of(block);
            let mut words = Vec::with_capacity(longest * each.len());
            for mut row in each {
                row.resize(longest, u32::MAX);
                words.extend(row);
            }
            (longest, self.data.append(&words))
        };
        let (q_slots, order_q) = rows(&|slots| slots.q_tokens(lens[0]), blocks[0]);
        let (kv_slots, order_kv) = rows(&|slots| slots.kv_tokens(lens[1]), blocks[1]);
        self.slots = [q_slots, kv_slots];
        (self.at.order_q, self.at.order_kv) = (order_q, order_kv);
    }
}
