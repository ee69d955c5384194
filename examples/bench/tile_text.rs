//! A tile in one word, as `bench --tile` takes it and `tune` writes it:
//! BLOCK_Q:BLOCK_KV:LANES:THREADS:SLICE_QK:SLICE_V:Q_RESIDENT:PRODUCTS, and /V_PARTS where those are several.

use wgpu_attention::{Capabilities, Fragments, Products, Tile};

pub fn write(tile: &Tile) -> String {
    let Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident, products, v_parts } = *tile;
    let products = match products {
        Products::Staged => "0".into(),
        Products::Broadcast(size) => size.to_string(),
        Products::Stream(share) => format!("s{share}"),
        Products::Matrices(m) if m.fragments == Fragments::Workgroup => "matrices-memory".into(),
        Products::Matrices(_) if v_parts > 1 => format!("matrices/{v_parts}"),
        Products::Matrices(_) => "matrices".into(),
    };
    let resident = u32::from(q_resident);
    format!("{block_q}:{block_kv}:{lanes}:{threads}:{slice_qk}:{slice_v}:{resident}:{products}")
}

/// The tile on a device of these capabilities, which know how its matrix units work.
pub fn parse(text: &str, capabilities: &Capabilities) -> Result<Tile, String> {
    let wrong = || format!("{text:?} must be seven numbers and a kind of products, joined by colons");
    let number = |n: &str| n.parse::<u32>().map_err(|_| wrong());
    let (numbers, products) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (products, v_parts) = match products.split_once('/') {
        Some((products, parts)) => (products, number(parts)?),
        None => (products, 1),
    };
    let none = || format!("{text:?} needs matrix units, which the device does not have");
    let products = match products {
        "0" => Products::Staged,
        "matrices" => Products::Matrices(capabilities.matrices.ok_or_else(none)?),
        "matrices-memory" => {
            let lowered = capabilities.clone().without_matrix_registers();
            Products::Matrices(lowered.matrices.ok_or_else(none)?)
        }
        _ => match products.strip_prefix('s') {
            Some(share) => Products::Stream(number(share)?),
            None => Products::Broadcast(number(products)?),
        },
    };
    let numbers = numbers.split(':').map(number).collect::<Result<Vec<u32>, _>>()?;
    let [block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident] = numbers[..] else { return Err(wrong()) };
    Ok(Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident: q_resident != 0, products, v_parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_comes_back() {
        let ctx = pollster::block_on(wgpu_attention::Context::request()).expect("tests need a driver");
        for text in ["128:64:16:256:32:16:0:0", "32:64:1:8:4:4:0:8", "4:128:32:32:4:16:1:s8"] {
            let tile = parse(text, ctx.capabilities()).unwrap();
            assert_eq!(write(&tile), text);
        }
        assert_eq!(parse("64:32:4:128:4:4:1:0/2", ctx.capabilities()).unwrap().v_parts, 2);
        let none = ctx.capabilities().clone().without_matrices();
        assert!(parse("64:32:4:128:4:4:1:matrices", &none).unwrap_err().contains("needs matrix units"));
        assert!(parse("64:32:4:128", &none).unwrap_err().contains("must be seven numbers"));
    }
}
