//! What it costs to move tokens instead of reading through their order: q, k and v there, out back.

use wgpu_attention::{Context, Permute, PermuteIo, Tensor, inverse_order};

use crate::cases::Case;
use crate::data::Data;
use crate::{Args, Measured};

pub fn measure(ctx: &Context, case: &Case, data: &Data, args: &Args) -> Result<Measured, String> {
    let text = |e: wgpu_attention::Error| e.to_string();
    let host = case.mask.host([1, 1, case.len_q, case.len_kv]).map_err(text)?;
    let [tokens, _] = host.order(0).slots([case.len_q, case.len_kv], [64, 64]).map_err(text)?;
    let back = inverse_order(&tokens, case.len_q);
    let shape = [case.batch, case.heads, tokens.len(), case.head_dim];
    let permuted = Tensor::zeros(ctx, case.dtype, shape).map_err(text)?;
    let there = Permute::new(&data.q, &tokens).plan(ctx).map_err(text)?;
    let home = Permute::new(&permuted, &back).plan(ctx).map_err(text)?;
    let encode = |pass: &mut wgpu::ComputePass<'_>| {
        for x in [&data.k, &data.v, &data.q] {
            there.encode_in(pass, &PermuteIo::new(x, &permuted)).expect("the plan was made for these tensors");
        }
        home.encode_in(pass, &PermuteIo::new(&permuted, &data.out)).expect("the plan was made for these tensors");
    };
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    encode(&mut encoder.begin_compute_pass(&Default::default()));
    ctx.queue().submit([encoder.finish()]);
    // There and back, q is what it was.
    let out: Vec<f32> = pollster::block_on(data.out.read(ctx)).map_err(text)?;
    if out != data.host[0].read(0, case.batch * case.heads * case.len_q) {
        return Err("tokens came back to other places: not timed".into());
    }
    let seconds = args.seconds_of_call(ctx, encode);
    let path = [there.stages(), home.stages()].concat().join(" + ");
    Ok(Measured { seconds, tile_density: None, of_dense: None, splits: 1, rel_err: 0.0, path })
}
