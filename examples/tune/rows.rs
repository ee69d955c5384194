//! A tuned tile as a row of TOML.

use std::io::Write;
use std::path::Path;

use serde::Deserialize;
use wgpu_attention::{Capabilities, Products, Tile};

use crate::cases::Case;
use crate::tile_text;

#[derive(Debug, Deserialize)]
struct Table {
    tile: Vec<Row>,
}

/// For what, on what, which, and how much faster.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    case: String,
    dtype: String,
    head_dim: usize,
    v_dim: usize,
    mask: String,
    device: String,
    driver: String,
    tile: String,
    ms: f64,
    /// Time of the library's own choice over that.
    gain: f64,
}

impl Row {
    /// `own`: seconds of the library's choice; `share`: the tile's time over that.
    pub fn new(case: &Case, info: &wgpu::AdapterInfo, tile: &Tile, own: f64, share: f64) -> Row {
        let rounded = |x: f64| (x * 1e4).round() / 1e4;
        Row {
            case: case.name.clone(),
            dtype: case.dtype.to_string(),
            head_dim: case.head_dim,
            v_dim: case.v_dim,
            mask: case.mask_name.clone(),
            device: info.name.clone(),
            driver: format!("{} {}", info.driver, info.driver_info),
            tile: tile_text::write(tile),
            ms: rounded(own * share * 1e3),
            gain: rounded(1.0 / share),
        }
    }

    pub fn toml(&self) -> String {
        let Row { case, dtype, head_dim, v_dim, mask, device, driver, tile, ms, gain } = self;
        format!(
            "[[tile]]\ncase = {case:?}\ndtype = {dtype:?}\nhead_dim = {head_dim}\nv_dim = {v_dim}\nmask = {mask:?}\n\
             device = {device:?}\ndriver = {driver:?}\ntile = {tile:?}\nms = {ms:?}\ngain = {gain:?}\n"
        )
    }

    /// The tile as `Attention::tile` takes it. Matrix units come from the context: they differ between devices.
    pub fn rust(&self, tile: &Tile) -> String {
        let Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident, products, v_parts } = tile;
        let (before, products) = match products {
            Products::Matrices(_) => {
                ("let matrices = ctx.capabilities().matrices?;\n", "Products::Matrices(matrices)".into())
            }
            other => ("", format!("Products::{other:?}")),
        };
        format!(
            "{before}Tile {{\n    block_q: {block_q},\n    block_kv: {block_kv},\n    lanes: {lanes},\n    threads: {threads},\n    \
             slice_qk: {slice_qk},\n    slice_v: {slice_v},\n    q_resident: {q_resident},\n    products: {products},\n    v_parts: {v_parts},\n}}\n"
        )
    }

    pub fn append(&self, file: &Path) -> Result<(), String> {
        let told = |e: std::io::Error| format!("{}: {e}", file.display());
        let mut out = std::fs::OpenOptions::new().create(true).append(true).open(file).map_err(told)?;
        writeln!(out, "{}", self.toml()).map_err(told)
    }
}

/// The tiles of a file that are of the case's shape.
pub fn load(file: &Path, case: &Case, capabilities: &Capabilities) -> Result<Vec<Tile>, String> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
    let table: Table = toml::from_str(&text).map_err(|e| format!("{name}: {e}"))?;
    let suits = |row: &&Row| {
        (row.dtype == case.dtype.to_string() && row.mask == case.mask_name)
            && (row.head_dim, row.v_dim) == (case.head_dim, case.v_dim)
    };
    let tiles = table.tile.iter().filter(suits).map(|row| tile_text::parse(&row.tile, capabilities));
    let tiles = tiles.collect::<Result<Vec<_>, _>>().map_err(|e| format!("{name}: {e}"))?;
    if tiles.is_empty() {
        let Case { dtype, head_dim, v_dim, mask_name, .. } = case;
        return Err(format!("{name}: has no row for {dtype}, head_dim {head_dim}, v_dim {v_dim}, mask {mask_name}"));
    }
    Ok(tiles)
}
