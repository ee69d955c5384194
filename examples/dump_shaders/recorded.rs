//! What plans recorded, as files: kernels, grids, bindings, what every buffer holds, and what must come out, for other
//! implementations of WebGPU to run (`tests/dawn`). The conformance example shares this file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use wgpu_attention::shaders::{Recorder, Shader};
use wgpu_attention::{Context, DType, Layout, Tensor};

/// A tensor that was written, and what must be in it: each number within `atol + rtol * |want|`.
pub struct Outcome {
    pub name: String,
    pub tensor: Tensor,
    pub want: Vec<f32>,
    pub rtol: f64,
    pub atol: f64,
}

#[derive(Serialize)]
struct Buffer {
    size: u64,
    /// What it holds at the start; zeros where there is none.
    file: Option<String>,
}

#[derive(Serialize)]
struct Bind {
    binding: u32,
    kind: &'static str,
    buffer: usize,
    offset: u64,
    size: u64,
}

#[derive(Serialize)]
struct Dispatch {
    wgsl: String,
    grid: [u32; 2],
    bindings: Vec<Bind>,
}

#[derive(Serialize)]
struct Output {
    name: String,
    buffer: usize,
    /// Numbers before it.
    offset: usize,
    file: String,
    rtol: f64,
    atol: f64,
}

#[derive(Serialize)]
struct File {
    buffers: Vec<Buffer>,
    dispatches: Vec<Dispatch>,
    outputs: Vec<Output>,
}

/// Writes NAME.json and what it names. Whether there was anything to check: outputs that no dispatch writes are left out.
pub fn save(
    ctx: &Context,
    folder: &Path,
    name: &str,
    recorder: &Recorder,
    outcomes: &[Outcome],
) -> Result<bool, String> {
    let recording = recorder.recording();
    let mut outputs = Vec::new();
    for (n, outcome) in outcomes.iter().enumerate() {
        let Some(buffer) = recording.buffers.iter().position(|(buffer, _)| buffer == outcome.tensor.buffer()) else {
            continue;
        };
        let (layout, len) = (outcome.tensor.layout(), outcome.want.len());
        let dense = Layout::new(DType::F32, layout.shape()).map_err(|e| e.to_string())?;
        if layout.dtype() != DType::F32 || layout.strides() != dense.strides() || dense.end() != len {
            return Err(format!("{}: is no dense tensor of {len} f32, but {layout:?}", outcome.name));
        }
        let file = format!("{name}.{n}.expected");
        put(&folder.join(&file), &outcome.want.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
        let Outcome { name, rtol, atol, .. } = outcome;
        outputs.push(Output { name: name.clone(), buffer, offset: layout.offset(), file, rtol: *rtol, atol: *atol });
    }
    if outputs.is_empty() {
        return Ok(false);
    }
    let mut buffers = Vec::new();
    for (n, (buffer, before)) in recording.buffers.iter().enumerate() {
        let bytes = contents(ctx, before)?;
        let mut file = None;
        if bytes.iter().any(|byte| *byte != 0) {
            put(&folder.join(file.insert(format!("{name}.{n}.bin"))), &bytes)?;
        }
        buffers.push(Buffer { size: buffer.size(), file });
    }
    let mut texts = BTreeMap::new();
    let mut dispatches = Vec::new();
    for dispatch in &recording.dispatches {
        let bindings = dispatch.bindings.iter().map(|bind| {
            let kind = match bind.ty {
                wgpu::BufferBindingType::Uniform => "uniform",
                wgpu::BufferBindingType::Storage { read_only: true } => "read-only-storage",
                wgpu::BufferBindingType::Storage { read_only: false } => "storage",
            };
            Bind { binding: bind.binding, kind, buffer: bind.buffer, offset: bind.offset, size: bind.size }
        });
        let wgsl = format!("{:016x}.wgsl", hash(&dispatch.shader));
        dispatches.push(Dispatch { wgsl: wgsl.clone(), grid: dispatch.grid, bindings: bindings.collect() });
        texts.entry(wgsl).or_insert_with(|| format!("// {}\n{}", dispatch.shader, dispatch.shader.text()));
    }
    for (wgsl, text) in texts {
        put(&folder.join(wgsl), text.as_bytes())?;
    }
    let text = serde_json::to_string_pretty(&File { buffers, dispatches, outputs }).map_err(|e| e.to_string())?;
    put(&folder.join(format!("{name}.json")), text.as_bytes())?;
    Ok(true)
}

/// Kernels that several plans run are one file, which is compiled once.
fn hash(shader: &Shader) -> u64 {
    shader.key().bytes().fold(0xcbf29ce484222325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100000001b3))
}

/// Everything that a copy holds.
fn contents(ctx: &Context, copy: &wgpu::Buffer) -> Result<Vec<u8>, String> {
    let slice = copy.slice(..);
    slice.map_async(wgpu::MapMode::Read, |mapped| mapped.expect("a device that is not lost maps"));
    ctx.device().poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
    let bytes = slice.get_mapped_range().map_err(|e| e.to_string())?.to_vec();
    copy.unmap();
    Ok(bytes)
}

/// Writes a file.
pub fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|e| format!("{}: cannot be written ({e})", path.display()))
}
