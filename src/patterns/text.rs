//! Patterns over text.
