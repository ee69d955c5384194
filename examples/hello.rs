//! The shortest program: three tensors, causal attention, the numbers on the host.
//!
//!     cargo run --release --example hello

use wgpu_attention::{Attention, Context, Error, Mask, Tensor};

fn main() {
    if let Err(e) = pollster::block_on(run()) {
        eprintln!("hello: {e}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Error> {
    let ctx = Context::request().await?;
    println!("on {}", ctx.device().adapter_info().name);

    // One batch, 2 heads, 5 tokens, 4 numbers a token.
    let shape = [1, 2, 5, 4];
    let values = |phase: f32| (0..40).map(|i| (i as f32 * 1.7 + phase).sin()).collect::<Vec<f32>>();
    let q = Tensor::from_slice(&ctx, shape, &values(0.0))?;
    let k = Tensor::from_slice(&ctx, shape, &values(1.0))?;
    let v = Tensor::from_slice(&ctx, shape, &values(2.0))?;

    let out = Attention::new(&q, &k, &v).mask(Mask::causal()).run(&ctx)?;

    // The first token sees only itself: its row is the first row of v.
    println!("v[0, 0, 0]   {:6.3?}", &values(2.0)[..4]);
    for (token, row) in out.read::<f32>(&ctx).await?.chunks(4).take(5).enumerate() {
        println!("out[0, 0, {token}] {row:6.3?}");
    }
    Ok(())
}
