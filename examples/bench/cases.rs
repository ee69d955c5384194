//! The case table.

use std::path::Path;
use std::sync::OnceLock;

use rand::SeedableRng;
use serde::Deserialize;
use wgpu_attention::{Attention, BlockMask, DType, Input, Mask, Neighborhood, Order, TileClass, patterns};

use crate::family::Family;

/// One row of `benches/cases.toml`, defaults filled in.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub dtype: DType,
    pub batch: usize,
    pub heads: usize,
    pub heads_kv: usize,
    pub len_q: usize,
    pub len_kv: usize,
    pub head_dim: usize,
    pub v_dim: usize,
    pub mask_name: String,
    pub mask: Mask,
    pub wgsl: Option<Wgsl>,
    /// Linear attention instead; the mask is then the causal one.
    pub linear: Option<Family>,
    /// The dense case that this one is compared with.
    pub against: Option<String>,
    pub cpu: bool,
    /// Pairs that attend, once counted.
    pub(crate) pairs: OnceLock<f64>,
}

/// The mask as WGSL of a user's, instead of the library's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wgsl {
    /// Causal, with the checks that such text gets.
    Checked,
    /// Causal, vouched for.
    Trusted,
    /// Every pair, vouched for: every tile of the list is full.
    All,
    /// No pair, by a tensor: tiles are classified at each call, and none is visited.
    Classify,
}

impl Wgsl {
    /// The text; `Classify` reads a tensor `ids` of zeros.
    pub fn text(self) -> &'static str {
        match self {
            Wgsl::Checked | Wgsl::Trusted => {
                "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return kv_idx <= q_idx; }"
            }
            Wgsl::All => "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return true; }",
            Wgsl::Classify => {
                "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return ids[kv_idx] > q_idx + kv_idx; }"
            }
        }
    }
}

#[derive(Deserialize)]
struct Table {
    case: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    #[serde(default)]
    dtype: Option<String>,
    batch: usize,
    heads: usize,
    heads_kv: Option<usize>,
    len_q: usize,
    len_kv: Option<usize>,
    head_dim: usize,
    v_dim: Option<usize>,
    mask: Option<String>,
    against: Option<String>,
    #[serde(default)]
    cpu: bool,
}

/// The project's table, compiled in so that the program runs anywhere.
const TABLE: &str = include_str!("../../benches/cases.toml");

/// Reads a table, the project's own unless a file is given; an error says which row and why.
pub fn read(file: Option<&Path>) -> Result<Vec<Case>, String> {
    let (name, text) = match file {
        None => ("benches/cases.toml".into(), TABLE.into()),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
            (name, text)
        }
    };
    let table: Table = toml::from_str(&text).map_err(|e| format!("{name}: {e}"))?;
    table.case.into_iter().map(case).collect()
}

fn case(row: Row) -> Result<Case, String> {
    let dtype = match row.dtype.as_deref() {
        None | Some("f32") => DType::F32,
        Some("f16") => DType::F16,
        Some(other) => return Err(format!("{}: dtype is {other:?}, but must be f32 or f16", row.name)),
    };
    let mask_name = row.mask.unwrap_or_else(|| "full".into());
    let linear = mask_name.strip_prefix("linear ").and_then(Family::of);
    let found = if linear.is_some() { Some((Mask::causal(), None)) } else { mask(&mask_name, row.len_q) };
    let (mask, wgsl) = found
        .ok_or_else(|| format!("{}: mask is {mask_name:?}, which benches/cases.toml does not explain", row.name))?;
    if linear.is_some() && (row.heads_kv.is_some() || row.len_kv.is_some()) {
        return Err(format!("{}: has heads_kv or len_kv, but linear attention is measured with equal ones", row.name));
    }
    Ok(Case {
        dtype,
        batch: row.batch,
        heads: row.heads,
        heads_kv: row.heads_kv.unwrap_or(row.heads),
        len_q: row.len_q,
        len_kv: row.len_kv.unwrap_or(row.len_q),
        head_dim: row.head_dim,
        v_dim: row.v_dim.unwrap_or(row.head_dim),
        mask_name,
        mask,
        wgsl,
        linear,
        against: row.against,
        cpu: row.cpu,
        pairs: OnceLock::new(),
        name: row.name,
    })
}

/// The mask that the host knows, and the WGSL that stands for it on the GPU, if any.
fn mask(name: &str, len: usize) -> Option<(Mask, Option<Wgsl>)> {
    let words: Vec<&str> = name.split_whitespace().collect();
    let number = |word: &str| word.parse::<usize>().ok();
    let sides = |word: &str| word.split('x').map(number).collect::<Option<Vec<usize>>>();
    let own = match words[..] {
        ["full"] => Mask::all(),
        ["causal"] => Mask::causal(),
        ["window", left, right] => Mask::window(number(left)?, number(right)?),
        ["blocks", side, density] => random_blocks(len, number(side)?, density.parse().ok()?),
        ["neighborhood", grid, window] => Mask::neighborhood(&sides(grid)?, Neighborhood::new(sides(window)?)),
        ["permute", grid, window] => Mask::neighborhood(&sides(grid)?, Neighborhood::new(sides(window)?)),
        ["raster", grid, window] => {
            Mask::neighborhood(&sides(grid)?, Neighborhood::new(sides(window)?)).ordered(Order::sequence())
        }
        ["radial", frames, spots] => patterns::radial(number(frames)?, number(spots)?, false),
        ["segments", each] => {
            let each = number(each)?;
            let ids: Vec<u32> = (0..len).map(|i| (i / each) as u32).collect();
            Mask::segments(&ids, &ids)
        }
        ["wgsl", "causal"] => return Some((Mask::causal(), Some(Wgsl::Checked))),
        ["trusted", "causal"] => return Some((Mask::causal(), Some(Wgsl::Trusted))),
        ["trusted", "all"] => return Some((Mask::all(), Some(Wgsl::All))),
        ["classify"] => return Some((Mask::none(), Some(Wgsl::Classify))),
        _ => return None,
    };
    Some((own, None))
}

/// The share of blocks that the name says, in each row as many or one more, drawn evenly.
fn random_blocks(len: usize, side: usize, density: f64) -> Mask {
    let blocks = len.div_ceil(side);
    let before = |row: usize| (row as f64 * blocks as f64 * density).round() as usize;
    let mut rng = rand::rngs::StdRng::seed_from_u64(5);
    let (mut row_ptr, mut col_idx) = (vec![0], Vec::new());
    for n in 0..blocks {
        let each = before(n + 1) - before(n);
        let mut row: Vec<u32> =
            rand::seq::index::sample(&mut rng, blocks, each).iter().map(|block| block as u32).collect();
        row.sort_unstable();
        col_idx.extend(row);
        row_ptr.push(col_idx.len() as u32);
    }
    let full = vec![TileClass::Full; col_idx.len()];
    let list = BlockMask::new([len, len], [side, side], 1, &row_ptr, &col_idx, &full);
    Mask::blocks(&list.expect("rows are sorted and within"))
}

impl Case {
    /// The case over q, k and v; `ids` is a tensor of zeros, one a key.
    pub fn describe(&self, [q, k, v]: [Input; 3], ids: Input) -> Attention {
        let mask = match self.wgsl {
            None => self.mask.clone(),
            Some(Wgsl::Classify) => Mask::wgsl_with(Wgsl::Classify.text(), [("ids", ids)]),
            Some(wgsl) => Mask::wgsl(wgsl.text()),
        };
        let description = Attention::new(q, k, v).mask(mask);
        if matches!(self.wgsl, Some(Wgsl::Trusted | Wgsl::All)) {
            // SAFETY: the text indexes nothing and has no loop.
            return unsafe { description.trust_wgsl() };
        }
        description
    }

    /// Pairs that attend, a head.
    pub fn pairs(&self) -> f64 {
        if self.mask_name == "full" {
            return self.len_q as f64 * self.len_kv as f64;
        }
        *self.pairs.get_or_init(|| self.count_pairs() as f64)
    }

    /// On all cores: a billion pairs take a while.
    fn count_pairs(&self) -> usize {
        let host = self.mask.host([1, 1, self.len_q, self.len_kv]).expect("masks of the table are known on the host");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = &|n: usize| (n..self.len_q).step_by(cores).map(|i| host.count(0, 0, i)).sum::<usize>();
        std::thread::scope(|scope| {
            let counts: Vec<_> = (0..cores).map(|n| scope.spawn(move || share(n))).collect();
            counts.into_iter().map(|count| count.join().expect("counting does not panic")).sum()
        })
    }

    /// Floating-point operations of the whole case: two products, a multiply and an add each.
    pub fn flops(&self) -> f64 {
        if let Some(family) = self.linear {
            return family.flops(self);
        }
        2.0 * self.pairs() * (self.head_dim + self.v_dim) as f64 * (self.batch * self.heads) as f64
    }

    /// Share of the tiles that a mask leaves, of all; dense attention visits all.
    pub fn tile_density(&self, tile: [usize; 2]) -> f64 {
        let host = self.mask.host([1, 1, self.len_q, self.len_kv]).expect("masks of the table are known on the host");
        host.tiles(0, 0, tile, &host.order(0)).expect("the plan used this tile").density()
    }

    /// Whether moving the bytes is the work, as when a few queries read many keys: arithmetic waits for memory then.
    pub fn is_bound_by_memory(&self) -> bool {
        self.flops() < 16.0 * self.bytes()
    }

    /// Bytes of q, k, v and out, each once; of linear attention also those of its gates, and of a state in place.
    pub fn bytes(&self) -> f64 {
        if let Some(family) = self.linear {
            return family.bytes(self);
        }
        let q = self.heads * self.len_q * (self.head_dim + self.v_dim);
        let kv = self.heads_kv * self.len_kv * (self.head_dim + self.v_dim);
        (self.batch * (q + kv) * self.dtype.size()) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_table_is_read_too() {
        let largest = read(Some(Path::new("benches/largest.toml"))).unwrap();
        assert!(largest.len() >= 10 && largest.iter().all(|case| !case.cpu && case.linear.is_none()));
    }
}
