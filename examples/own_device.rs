//! An application with a device, buffers and an encoder of its own. The library borrows them: no copy, no submission
//! that the application does not make itself. Every wgpu call is explained once.
//!
//!     cargo run --release --example own_device

use wgpu_attention::reference::{Rules, Sizes, check, softmax_attention};
use wgpu_attention::{Attention, AttentionIo, Context, DType, Layout, Mask, Tensor};

const BATCH: usize = 1;
const LEN: usize = 200;
const HEADS: usize = 4;
const DIM: usize = 64;

fn main() {
    if let Err(e) = pollster::block_on(run()) {
        eprintln!("own_device: {e}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), String> {
    let (adapter, device, queue) = open_device().await?;
    // Kept as long as the device: what it compiles and knows of masks serves every plan. Matrix units are found through the adapter.
    let ctx = Context::new(&device, &queue).with_adapter(&adapter).await.map_err(|e| e.to_string())?;

    // The application's buffers hold [batch, len, heads, dim], the order in which a projection leaves them.
    let values: Vec<f32> = (0..BATCH * LEN * HEADS * DIM).map(|i| (i as f32 * 0.37).sin()).collect();
    let buffer = |label| {
        // A buffer is memory on the GPU, for the uses it names: kernels read and write it (STORAGE), and it is copied
        // to (COPY_DST) and from (COPY_SRC).
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: size_of_val(&values[..]) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    };
    let (x, hidden, y) = (buffer("x"), buffer("hidden"), buffer("y"));
    // Bytes for a buffer; they arrive before the next submission starts.
    queue.write_buffer(&x, 0, bytemuck::cast_slice(&values));

    let y = encode_layers(&ctx, [&x, &hidden, &y]).map_err(|e| e.to_string())?;

    // Copies to memory that the host can map, and waits for the GPU.
    let got: Vec<f32> = y.read(&ctx).await.map_err(|e| e.to_string())?;
    let error = compare(&values, &got)?;
    println!("two layers on {}: largest error {error:.1e}", device.adapter_info().name);
    Ok(())
}

/// What an application that draws or computes with wgpu has already.
async fn open_device() -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), String> {
    // The instance finds the drivers of this machine: Vulkan, Metal, DX12.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    // An adapter is one driver's view of one GPU; these options ask for the fastest.
    let options =
        wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    let adapter = instance.request_adapter(&options).await.map_err(|e| format!("no adapter: {e}"))?;
    // The device is the opened adapter, the queue takes work for it. Features and limits not asked for here are not
    // there later: 16-bit floats, subgroups, matrix units and large bindings make attention faster.
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("application"),
        required_features: Context::features(&adapter),
        required_limits: adapter.limits(),
        // SAFETY: matrix units are an experimental feature of wgpu; those of the drivers that the library is tested on do what they should.
        // A program that wants none of it leaves this out, and EXPERIMENTAL_COOPERATIVE_MATRIX above.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    };
    let opened = adapter.request_device(&descriptor).await;
    let (device, queue) = opened.map_err(|e| format!("the device did not open: {e}"))?;
    Ok((adapter, device, queue))
}

/// Two layers of causal self-attention, x to hidden to y, in one submission. Returns y.
fn encode_layers(ctx: &Context, buffers: [&wgpu::Buffer; 3]) -> wgpu_attention::Result<Tensor> {
    // The library counts [batch, heads, len, dim]: a view of the same bytes with two dimensions exchanged.
    let layout = Layout::new(DType::F32, [BATCH, LEN, HEADS, DIM])?.transpose(1, 2)?;
    let tensor = |buffer| Tensor::from_buffer(buffer, layout);
    let (x, hidden, y) = (tensor(buffers[0])?, tensor(buffers[1])?, tensor(buffers[2])?);

    // Compiled once, for any tensors of these layouts; the output's is given, so that it is not contiguous either.
    let plan = Attention::new(layout, layout, layout).out(layout).mask(Mask::causal()).plan(ctx)?;
    println!("{plan}");

    // An encoder records commands; nothing runs yet. A compute pass costs a GPU some microseconds, so the layers share one.
    let mut encoder =
        ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("two layers") });
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    plan.encode_in(&mut pass, &AttentionIo::new(&x, &x, &x, &hidden))?;
    // The second layer reads what the first writes; wgpu sees that and puts a barrier between.
    plan.encode_in(&mut pass, &AttentionIo::new(&hidden, &hidden, &hidden, &y))?;
    drop(pass);
    // finish() closes the recording, submit() starts the GPU on it and returns at once.
    ctx.queue().submit([encoder.finish()]);
    Ok(y)
}

/// The same two layers by the reference; returns the largest error, or says which number is wrong.
fn compare(values: &[f32], got: &[f32]) -> Result<f64, String> {
    let sizes =
        Sizes { batch: BATCH, heads: HEADS, heads_kv: HEADS, len_q: LEN, len_kv: LEN, head_dim: DIM, v_dim: DIM };
    let causal = |_: usize, _: usize, i: usize, j: usize| j <= i;
    let scale = 1.0 / (DIM as f64).sqrt();
    let mut x = vec![0.0; values.len()];
    for (n, value) in values.iter().enumerate() {
        let (d, h, i) = (n % DIM, n / DIM % HEADS, n / DIM / HEADS);
        x[(h * LEN + i) * DIM + d] = *value;
    }
    let exact_layer =
        |x: &[f64]| softmax_attention(sizes, x, x, x, Rules { mask: &causal, ..Rules::dense(&|_| scale) }).0;
    let plain_layer =
        |x: &[f32]| softmax_attention(sizes, x, x, x, Rules { mask: &causal, ..Rules::dense(&|_| scale as f32) }).0;
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let exact = exact_layer(&exact_layer(&wide(&x)));
    let plain = plain_layer(&plain_layer(&x));
    check(&wide(got), &exact, &wide(&plain), DType::F32)
}
