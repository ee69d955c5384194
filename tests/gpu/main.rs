//! Everything that runs on a device, on whatever adapter the environment selects (lavapipe on a machine without a GPU).

mod contract;
mod data;
mod dense;
mod errors;
mod gqa;
mod layouts;
mod limits;
mod linear_matrices;
mod lists;
mod mask_errors;
mod masks;
mod matrices;
mod mods;
mod packed;
mod patterns;
mod permute;
mod pipeline_cache;
mod plans;
mod properties;
mod split;
mod stream;
mod support;
mod user_rules;
mod window;
