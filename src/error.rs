//! What can go wrong, each in one sentence: which argument, its value, the rule, the other value.

use std::fmt;

/// Everything this library refuses. The text after the kind is a whole sentence for the person who called.
///
/// No buffer of the caller's was written when a plan or a call is refused, and nothing was recorded into the caller's encoder. (A plan whose mask
/// has lists may have submitted the work that makes them; calls that run several plans may have run the first.)
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Lengths, head counts or ranks that do not fit together.
    Shape(String),
    /// Strides, offsets, buffer sizes, usage flags or aliasing that the kernels cannot work with.
    Layout(String),
    /// An element type that is not the one needed, or that the device lacks.
    DType(String),
    /// An argument that the plan needs and the call does not give, or the other way round.
    Missing(String),
    /// More of something than the device, or the library, allows.
    Limit(String),
    /// WGSL that does not link, validate or compile.
    Shader(String),
    /// A mask that contradicts itself or the tensors.
    Mask(String),
    /// A number that is not one, or a choice given twice.
    Value(String),
    /// No adapter, or none that matches.
    Adapter(String),
    /// The device refused to open or to create something.
    Device(String),
    /// A buffer could not be read back.
    Read(String),
    /// The device is gone.
    Lost(String),
}

/// `Result` with this library's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Error::Shape(sentence)
        | Error::Layout(sentence)
        | Error::DType(sentence)
        | Error::Missing(sentence)
        | Error::Limit(sentence)
        | Error::Shader(sentence)
        | Error::Mask(sentence)
        | Error::Value(sentence)
        | Error::Adapter(sentence)
        | Error::Device(sentence)
        | Error::Read(sentence)
        | Error::Lost(sentence)) = self;
        f.write_str(sentence)
    }
}

impl std::error::Error for Error {}
