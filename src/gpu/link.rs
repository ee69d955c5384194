//! Links WGSL by name: a generated prelude plus one provider for each role, concatenated. The order of declarations does
//! not matter in WGSL, and a missing or doubled name is an error of naga's, reported at the fragment's own line.

use wgpu::naga;

use super::unroll::unroll;
use crate::{Error, Result};

/// A piece of WGSL and where it comes from.
pub(crate) struct Source {
    name: &'static str,
    text: std::borrow::Cow<'static, str>,
    by: By,
}

/// Who wrote a source.
#[derive(PartialEq)]
enum By {
    /// A shipped file: loops that are marked are unrolled.
    File,
    /// The library, for one spec.
    Library,
    /// A user, who declares no bindings, whatever comments say.
    User,
}

impl Source {
    /// Text made for one spec.
    pub(crate) fn generated(name: &'static str, text: String) -> Source {
        Source { name, text: text.into(), by: By::Library }
    }

    /// A user's text.
    pub(crate) fn users(name: &'static str, text: String) -> Source {
        Source { name, text: text.into(), by: By::User }
    }
}

macro_rules! fragments {
    ($($path:literal)*) => {
        /// Every shipped shader file: path below `shaders/`, text.
        pub(crate) const FRAGMENTS: &[(&str, &str)] =
            &[$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path)))),*];
    };
}

fragments! {
    "lib/place_abreast.wgsl" "attention.wgsl" "attention_coop.wgsl" "lib/visits_named.wgsl" "lib/visits_staged.wgsl" "lib/coop_lanes.wgsl" "lib/coop_registers.wgsl" "lib/coop_store_fours.wgsl" "lib/coop_store_slabs.wgsl" "lib/coop_tile.wgsl" "lib/coop_workgroup.wgsl"
    "halves.wgsl" "lib/eleven_bits.wgsl" "lib/coop_f16.wgsl" "lib/coop_f32.wgsl" "lib/coop_store_shuffled.wgsl" "lib/halves_scalar.wgsl" "lib/halves_vec4.wgsl" "lib/store_scalar.wgsl" "lib/wanted_all.wgsl" "lib/wanted_told.wgsl" "lib/lost_none.wgsl" "lib/lost_totals.wgsl"
    "lib/half_pair.wgsl" "lib/half_scalar.wgsl" "lib/half_vec4.wgsl" "lib/half_vec8.wgsl" "lib/score_tile.wgsl" "lib/threads_rows.wgsl" "coop_probe.wgsl"
    "classify.wgsl" "combine.wgsl" "compact.wgsl" "head_norm.wgsl" "permute.wgsl" "softmax.wgsl" "sparse.wgsl"
    "window.wgsl" "lib/classes.wgsl" "lib/heads_one.wgsl" "lib/heads_table.wgsl" "lib/lists.wgsl" "lib/order_none.wgsl"
    "lib/order_table.wgsl" "lib/place_grid.wgsl" "lib/place_tasks.wgsl" "lib/rows_relu.wgsl" "lib/rule_args.wgsl"
    "lib/tables_read.wgsl" "lib/tables_write.wgsl" "mods/mask_blocks.wgsl" "mods/mask_distance.wgsl"
    "mods/mask_groups.wgsl" "mods/mask_ranges.wgsl" "mods/mask_tiles.wgsl" "mods/mask_tokens.wgsl"
    "mods/mask_window.wgsl" "mods/relative.wgsl"
    "lib/bindings.wgsl" "lib/dot_broadcast.wgsl" "lib/dot_fma.wgsl" "lib/dot_stream.wgsl" "lib/load_scalar.wgsl" "lib/load_vec4.wgsl" "lib/load_vec8.wgsl" "lib/store_vec4.wgsl"
    "lib/kv_rows.wgsl" "lib/lse_none.wgsl" "lib/lse_store.wgsl" "lib/mass_none.wgsl" "lib/mass_store.wgsl" "lib/merged_lse_none.wgsl"
    "lib/merged_lse_store.wgsl" "lib/merged_out_one.wgsl" "lib/merged_out_pairs.wgsl" "lib/pack.wgsl" "lib/pack_pairs.wgsl" "lib/packed_pairs.wgsl" "lib/packed_vec4.wgsl"
    "lib/store_pairs.wgsl"
    "lib/load_words.wgsl" "lib/words4_f16.wgsl" "lib/words4_f32.wgsl" "lib/words8_f16.wgsl" "lib/words8_f32.wgsl" "lib/words_scalar.wgsl" "lib/reduce_none.wgsl" "lib/reduce_subgroup.wgsl"
    "lib/reduce_workgroup.wgsl" "lib/rows_softmax.wgsl" "lib/share_none.wgsl" "lib/share_subgroup.wgsl" "lib/split_none.wgsl" "lib/split_parts.wgsl"
    "lib/tile.wgsl" "lib/view.wgsl" "lib/weights_tile.wgsl"
    "mods/alibi.wgsl" "mods/bias.wgsl" "mods/mask_bits.wgsl" "mods/mask_none.wgsl" "mods/per_head.wgsl"
    "linear/carry.wgsl" "linear/chunk.wgsl" "linear/columns.wgsl" "linear/cumulate.wgsl" "linear/collect.wgsl" "linear/divide.wgsl" "linear/exp.wgsl" "linear/features.wgsl" "linear/features_half.wgsl" "linear/gate_gradient.wgsl" "linear/recurrent.wgsl" "linear/rows.wgsl" "linear/delta.wgsl" "linear/pointwise.wgsl" "linear/product.wgsl" "linear/scan.wgsl"
    "linear/solve.wgsl" "linear/blocks_coop.wgsl" "linear/powers.wgsl" "linear/pairs_coop.wgsl" "linear/pairs_delta.wgsl" "linear/pairs_plain.wgsl" "linear/pairs_channels.wgsl" "linear/pairs_gates.wgsl" "linear/sweep_coop.wgsl" "linear/sweep_place.wgsl" "linear/sweep_state.wgsl" "linear/sweep_still.wgsl"
    "linear/segment_coop.wgsl" "linear/sweep_constant.wgsl" "linear/sweep_decays.wgsl" "linear/sweep_unscored.wgsl" "linear/sweep_within.wgsl"
    "linear/sweep_delta.wgsl" "linear/sweep_divided.wgsl" "linear/sweep_undivided.wgsl" "linear/sweep_gates.wgsl" "linear/sweep_keys.wgsl" "linear/sweep_plain.wgsl" "linear/sweep_scores.wgsl"
    "linear/sweep_channels.wgsl" "linear/sweep_rows.wgsl" "linear/sweep_stored.wgsl" "linear/sweep_stored_keys.wgsl" "linear/sweep_ungated.wgsl"
    "linear/kda_gate.wgsl" "linear/key_gate.wgsl" "linear/key_out.wgsl" "linear/key_parts.wgsl" "linear/key_scan.wgsl" "linear/key_scores.wgsl" "linear/key_state.wgsl" "linear/lrpe.wgsl" "linear/s4d_states.wgsl" "linear/s4d_scan.wgsl" "linear/s4d_powers.wgsl" "linear/s4d_out.wgsl" "linear/s4d_modes.wgsl" "linear/s4d_kernel.wgsl" "linear/oja.wgsl" "linear/short_conv.wgsl" "linear/short_conv_cache.wgsl" "linear/short_conv_input.wgsl" "lib/turns.wgsl"
    "mods/scale_one.wgsl" "mods/scale_per_head.wgsl" "mods/sink.wgsl" "mods/sink_none.wgsl" "mods/softcap.wgsl"
}

/// A shipped file by its path.
///
/// # Panics
/// When there is no such file: our bug, and a test links them all.
pub(crate) fn fragment(path: &'static str) -> Source {
    Source { name: path, text: fragment_text(path).into(), by: By::File }
}

/// The text of a shipped file.
///
/// # Panics
/// As [`fragment`].
pub(crate) fn fragment_text(path: &'static str) -> &'static str {
    match FRAGMENTS.iter().find(|(name, _)| *name == path) {
        Some((_, text)) => text,
        None => panic!("shaders/{path} is not listed in link.rs"),
    }
}

/// A module ready for the device.
#[derive(Debug)]
pub(crate) struct Linked {
    pub text: String,
    pub module: naga::Module,
}

/// A storage or uniform variable of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub name: String,
    pub binding: u32,
    pub ty: wgpu::BufferBindingType,
}

/// A module as text, and where its sources begin in it.
#[derive(Debug, Clone)]
pub(crate) struct Assembled {
    text: String,
    starts: Vec<(&'static str, usize)>,
    bindings: Vec<Binding>,
}

/// Concatenates and unrolls.
pub(crate) fn assemble(prelude: &str, constants: &[(&str, u32)], sources: &[Source]) -> Assembled {
    let mut text = prelude.to_string();
    let mut starts = vec![("prelude", 0)];
    let mut bindings: Vec<Binding> = text.lines().filter_map(declared_binding).collect();
    for source in sources {
        starts.push((source.name, text.len()));
        if source.by != By::User {
            bindings.extend(source.text.lines().filter_map(declared_binding));
        }
        match source.by {
            By::File => text += &unroll(&source.text, constants),
            By::Library | By::User => text += &source.text,
        }
    }
    bindings.sort_by_key(|b| b.binding);
    Assembled { text, starts, bindings }
}

impl Assembled {
    /// Parses. An error names the fragment and its own line.
    pub(crate) fn parse(&self) -> Result<naga::Module> {
        let Assembled { text, starts, .. } = self;
        let options =
            naga::front::wgsl::Options { parse_doc_comments: false, capabilities: naga::valid::Capabilities::all() };
        naga::front::wgsl::Frontend::new_with_options(options).parse(text).map_err(|e| {
            let at = e.location(text).map_or(0, |at| at.offset as usize);
            let (name, start) = starts.iter().rev().find(|(_, start)| *start <= at).unwrap_or(&starts[0]);
            let line = text[*start..at].matches('\n').count() + 1;
            Error::Shader(format!("{name}:{line}: {}", e.message()))
        })
    }

    /// Parses, and keeps the text.
    pub(crate) fn link(self) -> Result<Linked> {
        let module = self.parse()?;
        Ok(Linked { text: self.text, module })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The bindings of group 0, by number, as `reflect_bindings` finds them, without parsing: each is declared on a line of its own.
    pub(crate) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }
}

fn declared_binding(line: &str) -> Option<Binding> {
    let (number, rest) = line.strip_prefix("@group(0) @binding(")?.split_once(") var<")?;
    let (space, rest) = rest.split_once("> ")?;
    let name = rest.split_once(':')?.0.to_string();
    let ty = match space {
        "uniform" => wgpu::BufferBindingType::Uniform,
        _ => wgpu::BufferBindingType::Storage { read_only: space == "storage, read" },
    };
    Some(Binding { name, binding: number.parse().ok()?, ty })
}

/// The bindings of group 0, by number.
pub(crate) fn reflect_bindings(module: &naga::Module) -> Vec<Binding> {
    let mut bindings: Vec<Binding> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let ty = match variable.space {
                naga::AddressSpace::Uniform => wgpu::BufferBindingType::Uniform,
                naga::AddressSpace::Storage { access } => {
                    wgpu::BufferBindingType::Storage { read_only: !access.contains(naga::StorageAccess::STORE) }
                }
                _ => return None,
            };
            let binding = variable.binding.as_ref()?.binding;
            Some(Binding { name: variable.name.clone()?, binding, ty })
        })
        .collect();
    bindings.sort_by_key(|b| b.binding);
    bindings
}

/// Bytes of workgroup memory the module declares. wgpu does not check them against the device.
pub(crate) fn reflect_workgroup_bytes(module: &naga::Module) -> u32 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("a validated module has layouts");
    let workgroup = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    workgroup.map(|(_, v)| layouter[v.ty].size).sum()
}

/// The fields of a WGSL struct with their byte offsets, and its size, to compare with Rust's.
#[cfg(test)]
pub(crate) fn reflect_struct(module: &naga::Module, name: &str) -> Option<(Vec<(String, u32)>, u32)> {
    let found = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name))?.1;
    let naga::TypeInner::Struct { members, span } = &found.inner else { return None };
    Some((members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset)).collect(), *span))
}
