//! The case table.

use std::path::Path;

use serde::Deserialize;
use wgpu_attention::{DType, Mask};

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
    pub cpu: bool,
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
    let mask = mask(&mask_name)
        .ok_or_else(|| format!("{}: mask is {mask_name:?}, but must be full, causal or window LEFT RIGHT", row.name))?;
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
        cpu: row.cpu,
        name: row.name,
    })
}

fn mask(name: &str) -> Option<Mask> {
    let words: Vec<&str> = name.split_whitespace().collect();
    match words[..] {
        ["full"] => Some(Mask::all()),
        ["causal"] => Some(Mask::causal()),
        ["window", left, right] => Some(Mask::window(left.parse::<usize>().ok()?, right.parse::<usize>().ok()?)),
        _ => None,
    }
}

impl Case {
    /// Pairs that attend, a head.
    pub fn pairs(&self) -> f64 {
        if self.mask_name == "full" {
            return self.len_q as f64 * self.len_kv as f64;
        }
        let host = self.mask.host([1, 1, self.len_q, self.len_kv]).expect("masks of the table are known on the host");
        (0..self.len_q).map(|i| host.count(0, 0, i)).sum::<usize>() as f64
    }

    /// Floating-point operations of the whole case: two products, a multiply and an add each.
    pub fn flops(&self) -> f64 {
        2.0 * self.pairs() * (self.head_dim + self.v_dim) as f64 * (self.batch * self.heads) as f64
    }

    /// Bytes of q, k, v and out, each once.
    pub fn bytes(&self) -> f64 {
        let q = self.heads * self.len_q * (self.head_dim + self.v_dim);
        let kv = self.heads_kv * self.len_kv * (self.head_dim + self.v_dim);
        (self.batch * (q + kv) * self.dtype.size()) as f64
    }
}
