//! Everything that runs on a device, on whatever adapter the environment selects (lavapipe on a machine without a GPU).

mod contract;
mod data;
mod dense;
mod errors;
mod layouts;
mod masks;
mod limits;
mod mods;
mod plans;
mod properties;
mod support;
mod window;
