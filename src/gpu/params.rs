//! The uniforms, as Rust sees them. A test below compares every field with what naga reflects.

use bytemuck::{Pod, Zeroable};

/// A tensor as a shader sees it; WGSL `View`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct View {
    pub batch: u32,
    pub head: u32,
    pub row: u32,
    pub col: u32,
    pub offset: u32,
    pub powers: u32,
    pub second: u32,
    pub third: u32,
}

/// WGSL `Params` of `attention.wgsl`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct AttentionParams {
    pub q: View,
    pub k: View,
    pub v: View,
    pub out: View,
    pub lse: View,
    pub bias: View,
    pub mask_bits: View,
    pub sinks: View,
    pub relative: View,
    pub first_batch: u32,
    pub first_head: u32,
    pub heads: u32,
    pub heads_per_kv: u32,
    pub len_q: u32,
    pub len_kv: u32,
    pub q_tiles: u32,
    pub workgroups: u32,
    pub grid_x: u32,
    pub left: i32,
    pub right: i32,
    pub scale: f32,
    pub softcap: f32,
    pub empty_lse: f32,
    pub kv_slots: u32,
    pub q_slots: u32,
    pub order_q: u32,
    pub order_kv: u32,
    pub heads_at: u32,
    pub places: u32,
    pub lists: u32,
    pub list_batch: u32,
    pub kv_tiles: u32,
    pub instances: u32,
    pub all_heads: u32,
    pub parts: u32,
    pub part_batches: u32,
    pub teams: u32,
    pub abreast: u32,
}

/// WGSL `Params` of `linear/chunk.wgsl`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct LinearParams {
    pub views: [View; 10],
    pub heads: u32,
    pub group: u32,
    pub chunks: u32,
    pub sequences: u32,
    pub instances: u32,
    pub items: u32,
    pub grid_x: u32,
    pub scale: f32,
    pub eps: f32,
    pub first_head: u32,
    pub zero: u32,
    pub rate: f32,
    pub keep: f32,
    pub positions: u32,
    pub run: u32,
    pub segments: u32,
    pub window: u32,
    pub map_scale: f32,
    pub map_root: f32,
}

/// WGSL `Params` of `combine.wgsl`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct CombineParams {
    pub out_parts: View,
    pub lse_parts: View,
    pub out: View,
    pub lse: View,
    pub mass: View,
    pub parts: u32,
    pub batch: u32,
    pub heads: u32,
    pub len: u32,
    pub dim: u32,
    pub threads: u32,
    pub grid_x: u32,
    pub empty_lse: f32,
}

/// WGSL `Params` of `permute.wgsl`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct PermuteParams {
    pub x: View,
    pub out: View,
    pub heads: u32,
    pub slots: u32,
    pub columns: u32,
    pub units: u32,
    pub grid_x: u32,
}

/// WGSL `Params` of `halves.wgsl`, field by field.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct HalvesParams {
    pub x: View,
    pub heads: u32,
    pub len: u32,
    pub rows: u32,
    /// Where the rows' powers begin.
    pub first: u32,
    pub grid_x: u32,
    pub clears: u32,
    pub values: u32,
    pub part4: u32,
}

/// WGSL `PerHead`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct PerHead {
    pub scale: f32,
    pub slope: f32,
    pub pad: [f32; 2],
}

/// Heads that values given head by head may number: what fits the smallest uniform binding of any device.
pub(crate) const MAX_PER_HEAD: usize = 1024;

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::gpu::attention_spec::example_attention_spec;
    use crate::gpu::flat_spec::{HalvesSpec, PermuteSpec};
    use crate::gpu::layout::DType;
    use crate::gpu::linear_spec::LinearSpec;
    use crate::gpu::link::reflect_struct;
    use crate::gpu::spec::{Spec, example_combine_spec};

    macro_rules! offsets {
        ($ty:ty: $($field:ident)*) => { vec![$((stringify!($field).to_string(), offset_of!($ty, $field) as u32)),*] };
    }

    #[test]
    fn rust_and_wgsl_agree_on_every_field() {
        let attention = Spec::Attention(example_attention_spec()).link().unwrap().module;
        let fields = offsets!(AttentionParams: q k v out lse bias mask_bits sinks relative first_batch first_head heads
            heads_per_kv len_q len_kv q_tiles workgroups grid_x left right scale softcap empty_lse kv_slots q_slots order_q order_kv heads_at places lists list_batch kv_tiles
            instances all_heads parts part_batches teams abreast);
        assert_eq!(reflect_struct(&attention, "Params"), Some((fields, size_of::<AttentionParams>() as u32)));
        let view: Vec<_> = offsets!(View: batch head row col offset powers second third);
        let (reflected, size) = reflect_struct(&attention, "View").unwrap();
        assert_eq!((&reflected[..], size), (&view[..], size_of::<View>() as u32));
        let (per_head, size) = reflect_struct(&attention, "PerHead").unwrap();
        assert_eq!((&per_head[..2], size), (&offsets!(PerHead: scale slope)[..], size_of::<PerHead>() as u32));

        let text = "fn value(at: Place, i: u32, d: u32) -> f32 { return 1.0; }\n\
                    fn put_value(at: Place, i: u32, d: u32, x: f32) {}\n";
        let linear = LinearSpec {
            title: "",
            files: vec!["linear/pointwise.wgsl"],
            constants: vec![("ROWS", 16), ("COLS", 16)],
            text: text.into(),
            f16: false,
            threads: 64,
            windows: 1,
            matrices: None,
        };
        let linear = Spec::Linear(linear).link().unwrap().module;
        let (reflected, size) = reflect_struct(&linear, "Params").unwrap();
        let fields = offsets!(LinearParams: views heads group chunks sequences instances items grid_x scale eps first_head zero
            rate keep positions run segments window map_scale map_root);
        assert_eq!((reflected, size), (fields, size_of::<LinearParams>() as u32));

        let combine = example_combine_spec().link().unwrap().module;
        let fields = offsets!(CombineParams: out_parts lse_parts out lse mass parts batch heads len dim threads grid_x
            empty_lse);
        assert_eq!(reflect_struct(&combine, "Params"), Some((fields, size_of::<CombineParams>() as u32)));

        let permute = Spec::Permute(PermuteSpec { dtype: DType::F32, vec4: true }).link().unwrap().module;
        let fields = offsets!(PermuteParams: x out heads slots columns units grid_x);
        assert_eq!(reflect_struct(&permute, "Params"), Some((fields, size_of::<PermuteParams>() as u32)));

        let halves = HalvesSpec { dim: 8, padded: 16, subgroup: 32, vec4: true };
        let halves = Spec::Halves(halves).link().unwrap().module;
        let fields = offsets!(HalvesParams: x heads len rows first grid_x clears values part4);
        assert_eq!(reflect_struct(&halves, "Params"), Some((fields, size_of::<HalvesParams>() as u32)));
    }
}
