// A learned logit a head that joins the softmax without a value (StreamingLLM; gpt-oss).
//
// provides  sinks sink
// requires  bindings

@group(0) @binding(8) var<storage, read> sinks: array<f32>;

fn sink(h: u32) -> f32 {
    return max(sinks[base(params.sinks, 0u, h - params.first_head)], NEG_INF);
}
