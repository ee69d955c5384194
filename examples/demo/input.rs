//! The tensors of a real model, from a safetensors file.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// One layer's queries, keys and values, and the words they belong to.
pub struct Input {
    /// `[batch, heads, len, head_dim]` of q, k and v alike.
    pub shape: [usize; 4],
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    /// A word piece for each of the `len` positions.
    pub tokens: Vec<String>,
}

/// Reads the file; an error says what is wrong with it.
pub fn read(path: &Path) -> Result<Input, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
    let (q, shape) = tensor(&file, "q").map_err(wrong)?;
    let (k, k_shape) = tensor(&file, "k").map_err(wrong)?;
    let (v, v_shape) = tensor(&file, "v").map_err(wrong)?;
    if k_shape != shape || v_shape != shape {
        return Err(wrong(format!("q, k and v are {shape:?}, {k_shape:?}, {v_shape:?}, but must be of one shape")));
    }
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?;
    let tokens = header.metadata().as_ref().and_then(|metadata| metadata.get("tokens"));
    let tokens = tokens.ok_or_else(|| wrong("has no tokens in its metadata".into()))?;
    let tokens: Vec<String> = serde_json::from_str(tokens).map_err(|e| wrong(format!("tokens: {e}")))?;
    if tokens.len() != shape[2] {
        return Err(wrong(format!("has {} tokens, but q has {} rows a head", tokens.len(), shape[2])));
    }
    Ok(Input { shape, q, k, v, tokens })
}

fn tensor(file: &SafeTensors, name: &str) -> Result<(Vec<f32>, [usize; 4]), String> {
    let view = file.tensor(name).map_err(|e| e.to_string())?;
    match (view.dtype(), <[usize; 4]>::try_from(view.shape())) {
        // The bytes of a file may lie anywhere: cast by copy.
        (Dtype::F32, Ok(shape)) => Ok((bytemuck::pod_collect_to_vec(view.data()), shape)),
        (dtype, _) => Err(format!("{name} is {dtype} {:?}, but must be F32 of four dimensions", view.shape())),
    }
}
