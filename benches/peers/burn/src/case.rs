//! The cases of benches/cases.toml that burn can express: as many key heads as query heads, no mask or a causal one.

use std::path::Path;

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub dtype: DType,
    pub batch: usize,
    pub heads: usize,
    heads_kv: Option<usize>,
    pub len_q: usize,
    len_kv: Option<usize>,
    pub head_dim: usize,
    v_dim: Option<usize>,
    mask: Option<String>,
    /// Small enough for a CPU that runs shaders.
    #[serde(default)]
    pub cpu: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    #[default]
    F32,
    F16,
}

#[derive(Deserialize)]
struct Table {
    case: Vec<Case>,
}

/// Compiled in, so that the program runs anywhere.
const TABLE: &str = include_str!("../../../cases.toml");

/// Reads the project's table, or a file's, without the cases that burn cannot express.
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
    let known = |case: &Case| case.heads_kv() == case.heads && matches!(case.mask(), "full" | "causal");
    Ok(table.case.into_iter().filter(known).collect())
}

impl Case {
    pub fn heads_kv(&self) -> usize {
        self.heads_kv.unwrap_or(self.heads)
    }

    pub fn len_kv(&self) -> usize {
        self.len_kv.unwrap_or(self.len_q)
    }

    pub fn v_dim(&self) -> usize {
        self.v_dim.unwrap_or(self.head_dim)
    }

    pub fn mask(&self) -> &str {
        self.mask.as_deref().unwrap_or("full")
    }

    pub fn is_causal(&self) -> bool {
        self.mask() == "causal"
    }

    /// The keys that a query sees are the first so many: aligned at the bottom right.
    pub fn seen(&self, i: usize) -> usize {
        if self.is_causal() {
            (i + 1 + self.len_kv()).saturating_sub(self.len_q).min(self.len_kv())
        } else {
            self.len_kv()
        }
    }

    /// Two products, a multiply and an add each, over the pairs that attend.
    pub fn flops(&self) -> f64 {
        let pairs: usize = (0..self.len_q).map(|i| self.seen(i)).sum();
        2.0 * pairs as f64 * (self.head_dim + self.v_dim()) as f64 * (self.batch * self.heads) as f64
    }

    /// Bytes of q, k, v and out, each once.
    pub fn bytes(&self) -> f64 {
        let size = if self.dtype == DType::F16 { 2 } else { 4 };
        (self.batch * self.heads * (self.len_q + self.len_kv()) * (self.head_dim + self.v_dim()) * size) as f64
    }
}
