//! From descriptions to dispatches: device, tensors, shaders, plans.

mod adapter;
pub(crate) mod attention_spec;
pub(crate) mod builder;
pub(crate) mod capabilities;
pub(crate) mod context;
pub(crate) mod driver_cache;
pub(crate) mod flat;
pub(crate) mod flat_spec;
mod grid;
mod inline;
pub(crate) mod layout;
pub(crate) mod linear_spec;
pub(crate) mod link;
pub(crate) mod lists;
pub(crate) mod mask_spec;
pub(crate) mod matrices;
mod matrix_tiles;
pub(crate) mod multiprocessors;
pub(crate) mod params;
pub(crate) mod pipeline;
pub(crate) mod plan;
mod prelude;
pub(crate) mod probe;
mod scratch;
pub mod shaders;
pub(crate) mod spec;
pub(crate) mod spirv;
mod spirv_module;
pub(crate) mod splits;
pub(crate) mod tensor;
pub(crate) mod tiles;
mod translations;
pub(crate) mod tuning;
pub(crate) mod turns;
pub(crate) mod unroll;

#[cfg(test)]
mod shader_tests;
pub(crate) mod window;
