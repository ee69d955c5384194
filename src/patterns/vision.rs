//! Patterns over images.
