//! A case file: its tensors, parameters and tolerances.

use std::collections::{BTreeMap, HashMap};

use half::f16;
use safetensors::{Dtype, SafeTensors};
use wgpu_attention::{Context, DType, Products, Tensor, Tile};

use crate::operators::{Output, Stop};
use crate::params::Params;

/// Elements on the host.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// A tensor on the host, last dimension fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Data,
}

/// How far a float may be off: `atol + rtol * |want|`.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
}

/// A case, in memory.
pub struct Case {
    pub params: Params,
    pub inputs: BTreeMap<String, Array>,
    /// What each output must be, and how closely.
    pub expected: BTreeMap<String, (Array, Tolerance)>,
    /// The tile of softmax attention, unless the library chooses it.
    pub tile: Option<Tile>,
    /// The type of its operands on the device.
    pub dtype: DType,
    /// Whether they are numbers that f16 holds, in either type.
    rounded: bool,
}

/// What may be f16: what is multiplied, or what a layer reads tokens from. States, decay and all else stay f32.
const OPERANDS: [&str; 18] = [
    "q",
    "q_pre",
    "k",
    "v",
    "k1",
    "k2",
    "v1",
    "v2",
    "extra_k",
    "extra_v",
    "do",
    "x",
    "x_query",
    "y",
    "u",
    "g_raw",
    "part_out",
    "out_parts",
];

/// Whether one of these inputs may be f16.
pub fn has_operand(inputs: &[&str]) -> bool {
    inputs.iter().any(|name| OPERANDS.contains(name))
}

/// How far f16 may be off f32 of the same operands, in parts of the largest number of an output, or absolutely where that is below 1: weights
/// and results are rounded to 2^-11 each.
const F16: f64 = 1.0 / 256.0;

/// The nearest number that f16 holds.
fn nearest(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// The strings in the header of a safetensors file.
pub fn metadata(bytes: &[u8]) -> Result<HashMap<String, String>, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| format!("is no safetensors file ({e})"))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

impl Case {
    /// The case with operands that f16 holds.
    pub fn rounded(mut self) -> Case {
        self.rounded = true;
        for (_, input) in self.inputs.iter_mut().filter(|(name, _)| OPERANDS.contains(&name.as_str())) {
            if let Data::Floats(values) = &mut input.data {
                values.iter_mut().for_each(|x| *x = nearest(*x));
            }
        }
        self
    }

    /// The case in f16, which must give what f32 made of the same operands.
    pub fn in_f16(mut self, exact: Vec<Output>) -> Case {
        self.dtype = DType::F16;
        for output in exact {
            let Some((want, tolerance)) = self.expected.get_mut(output.name) else { continue };
            *want = output.array;
            if let Data::Floats(want) = &want.data {
                let finite = want.iter().filter(|x| x.is_finite()).map(|x| f64::from(x.abs()));
                *tolerance = Tolerance { atol: tolerance.atol + F16 * finite.fold(1.0, f64::max), ..*tolerance };
            }
        }
        self
    }

    /// Whether the tile that was asked for is one of matrix units.
    pub fn on_matrix_units(&self) -> bool {
        self.tile.is_some_and(|tile| matches!(tile.products, Products::Matrices(_)))
    }

    /// Reads everything in the file.
    pub fn parse(bytes: &[u8], metadata: &HashMap<String, String>) -> Result<Case, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| format!("is no safetensors file ({e})"))?;
        let params = metadata.get("params").ok_or("the metadata has no params")?;
        let rtol = tolerance(metadata, "rtol")?.ok_or("the metadata has no rtol")?;
        let atol = tolerance(metadata, "atol")?.ok_or("the metadata has no atol")?;
        let mut case = Case {
            params: Params::parse(params)?,
            inputs: BTreeMap::new(),
            expected: BTreeMap::new(),
            tile: None,
            dtype: DType::F32,
            rounded: false,
        };
        for (name, view) in file.iter() {
            let array = Array {
                shape: view.shape().to_vec(),
                data: decode(view.dtype(), view.data()).map_err(|e| format!("{name}: {e}"))?,
            };
            if let Some(output) = name.strip_prefix("expected.") {
                let atol = tolerance(metadata, &format!("atol.{output}"))?.unwrap_or(atol);
                case.expected.insert(output.to_string(), (array, Tolerance { rtol, atol }));
            } else {
                case.inputs.insert(name.to_string(), array);
            }
        }
        // A case without outputs would pass whatever the GPU does.
        if case.expected.is_empty() {
            return Err("the file has no tensor named expected.<output>".into());
        }
        Ok(case)
    }

    /// Whether the case has this input.
    pub fn has(&self, name: &str) -> bool {
        self.inputs.contains_key(name)
    }

    /// The lengths of an input of rank `N`.
    pub fn dims<const N: usize>(&self, name: &str) -> Result<[usize; N], Stop> {
        let shape = &self.input(name)?.shape;
        let ranked = shape[..].try_into();
        ranked.map_err(|_| Stop::Failed(format!("{name}: shape is {shape:?}, but must have rank {N}")))
    }

    /// The elements of a float input.
    pub fn floats(&self, name: &str) -> Result<&[f32], Stop> {
        match &self.input(name)?.data {
            Data::Floats(data) => Ok(data),
            Data::Integers(_) => Err(Stop::Failed(format!("{name}: holds integers, but must hold floats"))),
        }
    }

    /// The elements of an integer input.
    pub fn integers(&self, name: &str) -> Result<&[i64], Stop> {
        match &self.input(name)?.data {
            Data::Integers(data) => Ok(data),
            Data::Floats(_) => Err(Stop::Failed(format!("{name}: holds floats, but must hold integers"))),
        }
    }

    /// A float input on the device, as it is.
    pub fn tensor(&self, ctx: &Context, name: &str) -> Result<Tensor, Stop> {
        self.tensor_as(ctx, name, &self.input(name)?.shape)
    }

    /// A float input on the device, its dimensions regrouped.
    pub fn tensor_as(&self, ctx: &Context, name: &str, shape: impl AsRef<[usize]>) -> Result<Tensor, Stop> {
        self.tensor_of(ctx, name, shape, self.floats(name)?)
    }

    /// What the host made of a float input, on the device, of the type that the input has there.
    pub fn tensor_of(
        &self,
        ctx: &Context,
        name: &str,
        shape: impl AsRef<[usize]>,
        values: &[f32],
    ) -> Result<Tensor, Stop> {
        let tensor = match self.dtype {
            _ if !self.rounded || !OPERANDS.contains(&name) => Tensor::from_slice(ctx, shape, values),
            DType::F16 => Tensor::from_slice(ctx, shape, &values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()),
            _ => Tensor::from_slice(ctx, shape, &values.iter().map(|&x| nearest(x)).collect::<Vec<_>>()),
        };
        tensor.map_err(|e| Stop::Failed(format!("{name}: {e}")))
    }

    /// An input of packed bits on the device.
    pub fn bits(&self, ctx: &Context, name: &str) -> Result<Tensor, Stop> {
        self.bits_as(ctx, name, &self.input(name)?.shape)
    }

    /// An input of packed bits on the device, its dimensions regrouped.
    pub fn bits_as(&self, ctx: &Context, name: &str, shape: impl AsRef<[usize]>) -> Result<Tensor, Stop> {
        let input = self.input(name)?;
        let words: Option<Vec<u32>> = match &input.data {
            Data::Integers(data) => data.iter().map(|&word| word.try_into().ok()).collect(),
            Data::Floats(_) => None,
        };
        let words = words.ok_or_else(|| Stop::Failed(format!("{name}: must hold 32-bit unsigned integers")))?;
        let tensor = Tensor::from_slice(ctx, shape, &words);
        tensor.map_err(|e| Stop::Failed(format!("{name}: {e}")))
    }

    fn input(&self, name: &str) -> Result<&Array, Stop> {
        self.inputs
            .get(name)
            .ok_or_else(|| Stop::Failed(format!("{name}: is not in the file, but the operator needs it")))
    }
}

/// A tolerance; infinite or negative ones, which would let all or nothing pass, are refused.
fn tolerance(metadata: &HashMap<String, String>, key: &str) -> Result<Option<f64>, String> {
    let Some(text) = metadata.get(key) else { return Ok(None) };
    match text.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(Some(value)),
        _ => Err(format!("{key}: is {text:?}, but must be a finite number that is not negative")),
    }
}

fn decode(dtype: Dtype, bytes: &[u8]) -> Result<Data, String> {
    Ok(match dtype {
        Dtype::F32 => Data::Floats(elements(bytes, f32::from_le_bytes)),
        Dtype::I32 => Data::Integers(elements(bytes, |b| i32::from_le_bytes(b).into())),
        Dtype::U32 => Data::Integers(elements(bytes, |b| u32::from_le_bytes(b).into())),
        Dtype::I64 => Data::Integers(elements(bytes, i64::from_le_bytes)),
        Dtype::U8 | Dtype::BOOL => Data::Integers(elements(bytes, |b| u8::from_le_bytes(b).into())),
        other => return Err(format!("is {other:?}, but must be F32, I32, U32, I64, U8 or BOOL")),
    })
}

fn elements<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| read(chunk)).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    /// A file with these f32 tensors, each a vector, and this metadata.
    pub fn file(tensors: &[(&str, &[f32])], metadata: &[(&str, &str)]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, data)| data.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, data), bytes)| {
            (name.to_string(), TensorView::new(Dtype::F32, vec![data.len()], bytes).unwrap())
        });
        let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        safetensors::serialize(views.collect::<Vec<_>>(), Some(metadata)).unwrap()
    }

    pub fn parse(tensors: &[(&str, &[f32])], metadata: &[(&str, &str)]) -> Result<Case, String> {
        let bytes = file(tensors, metadata);
        Case::parse(&bytes, &super::metadata(&bytes)?)
    }

    #[test]
    fn reads_what_is_there() {
        let tensors: [(&str, &[f32]); 3] = [("q", &[1.0, 2.0]), ("expected.out", &[3.0]), ("expected.lse", &[4.0])];
        let metadata = [("params", "{}"), ("rtol", "1e-3"), ("atol", "0.5"), ("atol.lse", "0.25")];
        let case = parse(&tensors, &metadata).unwrap();
        assert_eq!(case.floats("q").unwrap(), [1.0, 2.0]);
        assert_eq!(case.expected["out"].0.data, Data::Floats(vec![3.0]));
        assert_eq!((case.expected["out"].1.atol, case.expected["lse"].1.atol), (0.5, 0.25));
        assert!(case.dims::<4>("q").is_err() && case.floats("k").is_err() && case.integers("q").is_err());
    }

    #[test]
    fn refuses_what_could_pass_unseen() {
        let out: [(&str, &[f32]); 1] = [("expected.out", &[1.0])];
        let with = |rtol, atol| parse(&out, &[("params", "{}"), ("rtol", rtol), ("atol", atol)]);
        assert!(with("0", "1e-5").is_ok());
        for (rtol, atol) in [("inf", "0"), ("0", "inf"), ("NaN", "0"), ("-1", "0"), ("0", "small")] {
            assert!(with(rtol, atol).is_err(), "rtol {rtol}, atol {atol}");
        }
        assert!(parse(&out, &[("params", "{}"), ("rtol", "0")]).is_err());
        assert!(parse(&[("q", &[1.0])], &[("params", "{}"), ("rtol", "0"), ("atol", "0")]).is_err());
        let whole = file(&out, &[("op", "x")]);
        assert!(metadata(&whole[..whole.len() - 1]).is_err() && metadata(b"").is_err());
    }
}
