//! What is offered: the table of operators.

use half::f16;
use wgpu_attention::{Context, DType, Tensor};

use crate::case::{Array, Case, Data, has_operand};
use crate::{composed, layers, linear, masks, merge, packed, pictures, planners, s4d, softmax, video};

/// Why a case has no outputs.
#[derive(Debug)]
pub enum Stop {
    /// Its operator, or a parameter of it, is not offered: the case is skipped.
    NotOffered(String),
    /// The file is bad, or the library refused.
    Failed(String),
}

impl From<wgpu_attention::Error> for Stop {
    fn from(e: wgpu_attention::Error) -> Stop {
        Stop::Failed(e.to_string())
    }
}

/// Something an operator computed.
pub struct Output {
    pub name: &'static str,
    pub array: Array,
    /// Where it was read from, unless the host has made something of it.
    pub tensor: Option<Tensor>,
}

impl Output {
    pub fn new(name: &'static str, shape: impl AsRef<[usize]>, data: Vec<f32>) -> Output {
        let shape = shape.as_ref().to_vec();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "bug in the runner: {name} is not of shape {shape:?}");
        Output { name, array: Array { shape, data: Data::Floats(data) }, tensor: None }
    }

    /// Integers, which must match exactly.
    pub fn integers(name: &'static str, shape: impl AsRef<[usize]>, data: Vec<i64>) -> Output {
        let shape = shape.as_ref().to_vec();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "bug in the runner: {name} is not of shape {shape:?}");
        Output { name, array: Array { shape, data: Data::Integers(data) }, tensor: None }
    }

    /// A tensor of the device, as it is.
    pub fn read(ctx: &Context, name: &'static str, tensor: &Tensor) -> Result<Output, Stop> {
        Output::read_as(ctx, name, tensor.shape(), tensor)
    }

    /// A tensor of the device with a last dimension of 1, which case files leave out.
    pub fn read_rows(ctx: &Context, name: &'static str, tensor: &Tensor) -> Result<Output, Stop> {
        Output::read_as(ctx, name, &tensor.shape()[..3], tensor)
    }

    /// A tensor of the device, its dimensions regrouped.
    pub fn read_as(
        ctx: &Context,
        name: &'static str,
        shape: impl AsRef<[usize]>,
        tensor: &Tensor,
    ) -> Result<Output, Stop> {
        Ok(Output { tensor: Some(tensor.clone()), ..Output::new(name, shape, read(ctx, tensor)?) })
    }
}

pub fn read(ctx: &Context, tensor: &Tensor) -> Result<Vec<f32>, Stop> {
    if tensor.layout().dtype() == DType::F16 {
        let values: Vec<f16> = pollster::block_on(tensor.read(ctx))?;
        return Ok(values.into_iter().map(f16::to_f32).collect());
    }
    Ok(pollster::block_on(tensor.read(ctx))?)
}

/// An operator: all it understands, and how it is computed.
pub struct Operator {
    name: &'static str,
    params: &'static [&'static str],
    inputs: &'static [&'static str],
    run: fn(&Context, &Case) -> Result<Vec<Output>, Stop>,
}

/// Operators that the host computes alone, though their inputs are called as those of others.
const ON_HOST: [&str; 1] = ["reposition_resample"];

/// Every operator that is offered.
const OPERATORS: &[Operator] = &[
    Operator {
        name: "associative_memory",
        params: &["forget", "lr", "rule"],
        inputs: &["k", "v", "q", "initial_state"],
        run: layers::associative_memory,
    },
    Operator {
        name: "block_mask",
        params: &["block_k", "block_q", "kind", "lk", "lq", "mask"],
        inputs: &[],
        run: masks::block_mask,
    },
    Operator {
        name: "block_sparse_attention",
        params: &["block_k", "block_q", "lists", "scale", "tile_class"],
        inputs: &["q", "k", "v", "csr_class", "csr_col_idx", "csr_row_ptr", "mask_bits", "kv_indices", "kv_num_blocks"],
        run: masks::block_sparse_attention,
    },
    Operator {
        name: "cad_planner",
        params: &["columns", "docs_per_rank", "heads", "hidden", "kv_heads", "tolerance"],
        inputs: &[],
        run: planners::cad_planner,
    },
    Operator {
        name: "channel_attention",
        params: &["rule", "scale"],
        inputs: &["q", "k", "v"],
        run: composed::channel_attention,
    },
    Operator {
        name: "chunk_intermediates",
        params: &["chunk_size", "gate", "scale"],
        inputs: &["q", "k", "v", "beta", "initial_state", "log_decay"],
        run: linear::chunk_intermediates,
    },
    Operator {
        name: "concentric_causal_attention",
        params: &["height", "image_start", "rings", "rope_style", "rope_theta", "scale", "text_after", "width"],
        inputs: &["q", "k", "v"],
        run: pictures::concentric_causal_attention,
    },
    Operator {
        name: "core_attention_tasks",
        params: &["causal", "causal_align", "scale", "task_columns"],
        inputs: &["q", "k", "v", "cu_seqlens", "tasks"],
        run: packed::core_attention_tasks,
    },
    Operator {
        name: "cosformer_attention",
        params: &["act", "causal", "eps"],
        inputs: &["q", "k", "v"],
        run: linear::cosformer_attention,
    },
    Operator {
        name: "decay_slopes",
        params: &["convention", "layer_idx", "num_heads", "num_layers"],
        inputs: &[],
        run: layers::decay_slopes,
    },
    Operator {
        name: "delta_product",
        params: &["gated", "num_householder", "scale"],
        inputs: &["q", "k", "v", "beta", "initial_state", "log_decay"],
        run: linear::described_attention,
    },
    Operator {
        name: "delta_product_bwd",
        params: &["gated", "num_householder", "scale"],
        inputs: &["q", "k", "v", "d_final_state", "do", "initial_state", "beta", "log_decay"],
        run: linear::described_backward,
    },
    Operator {
        name: "delta_rule",
        params: &["scale"],
        inputs: &["q", "k", "v", "beta", "initial_state"],
        run: linear::described_attention,
    },
    Operator {
        name: "delta_rule_bwd",
        params: &["scale"],
        inputs: &["q", "k", "v", "d_final_state", "do", "initial_state", "beta"],
        run: linear::described_backward,
    },
    Operator {
        name: "diag_attention",
        params: &["block", "causal", "kind", "norm_eps", "scale", "tail"],
        inputs: &["q", "k", "v"],
        run: masks::diag_attention,
    },
    Operator {
        name: "diag_block_attention",
        params: &["block_size", "causal", "eps", "kind", "padding", "scale"],
        inputs: &["q", "k", "v"],
        run: masks::diag_block_attention,
    },
    Operator {
        name: "gated_delta_rule",
        params: &["scale"],
        inputs: &["q", "k", "v", "beta", "initial_state", "log_decay"],
        run: linear::described_attention,
    },
    Operator {
        name: "gated_delta_rule_bwd",
        params: &["scale"],
        inputs: &["q", "k", "v", "d_final_state", "do", "initial_state", "beta", "log_decay"],
        run: linear::described_backward,
    },
    Operator {
        name: "gla",
        params: &["scale"],
        inputs: &["q", "k", "v", "initial_state", "log_decay"],
        run: linear::described_attention,
    },
    Operator {
        name: "gla_bwd",
        params: &["scale"],
        inputs: &["q", "k", "v", "d_final_state", "do", "initial_state", "log_decay"],
        run: linear::described_backward,
    },
    Operator {
        name: "gna_simulator",
        params: &["causal", "dilation", "kv_tile", "q_tile", "shape", "stride", "window"],
        inputs: &[],
        run: planners::gna_simulator,
    },
    Operator {
        name: "head_pattern_search",
        params: &["block", "eps", "frames", "lam", "modes", "text", "tokens_per_frame"],
        inputs: &["q", "k", "v"],
        run: video::head_pattern_search,
    },
    Operator {
        name: "isolation_attention",
        params: &["height", "kv_layout", "scale", "subjects", "width"],
        inputs: &["q", "k", "v", "ref_masks", "target_masks"],
        run: pictures::isolation_attention,
    },
    Operator {
        name: "kda",
        params: &["l2norm_eps", "qk_l2norm", "scale"],
        inputs: &["q", "k", "v", "beta", "initial_state", "log_decay"],
        run: linear::described_attention,
    },
    Operator {
        name: "kda_bwd",
        params: &["scale"],
        inputs: &["q", "k", "v", "d_final_state", "do", "initial_state", "beta", "log_decay"],
        run: linear::described_backward,
    },
    Operator {
        name: "kda_gate",
        params: &["lower_bound", "mode"],
        inputs: &["g_raw", "a_log", "dt_bias"],
        run: layers::kda_gate,
    },
    Operator {
        name: "kernel_regression_heads",
        params: &["noise_var"],
        inputs: &["x", "x_query", "y", "omega", "mu"],
        run: composed::kernel_regression_heads,
    },
    Operator {
        name: "key_gate_attention",
        params: &["causal", "scale"],
        inputs: &["q_pre", "k", "v"],
        run: layers::key_gate_attention,
    },
    Operator {
        name: "lightning_attention",
        params: &["scale"],
        inputs: &["q", "k", "v", "initial_state", "log_decay"],
        run: linear::described_attention,
    },
    Operator {
        name: "lightning_attention_bwd",
        params: &["scale"],
        inputs: &["q", "k", "v", "d_final_state", "do", "initial_state", "log_decay"],
        run: linear::described_backward,
    },
    Operator {
        name: "linear_attention",
        params: &["causal", "eps", "feature_map", "n_features", "normalize", "scale", "softmax_temp"],
        inputs: &["q", "k", "v", "initial_state", "initial_z", "omega"],
        run: linear::linear_attention,
    },
    Operator { name: "lrpe", params: &["offset"], inputs: &["x", "theta"], run: layers::lrpe },
    Operator {
        name: "maxvit_block",
        params: &["bias_index", "height", "scale", "size", "width"],
        inputs: &["q", "k", "v", "rel_bias"],
        run: pictures::maxvit_block_attention,
    },
    Operator {
        name: "maxvit_grid",
        params: &["bias_index", "height", "scale", "size", "width"],
        inputs: &["q", "k", "v", "rel_bias"],
        run: pictures::maxvit_grid_attention,
    },
    Operator { name: "merge_lse", params: &["parts"], inputs: &["part_out", "part_lse"], run: merge::merge_lse },
    Operator {
        name: "neighborhood_attention",
        params: &["causal", "dilation", "num_extra_kv", "scale", "shape", "stride", "window"],
        inputs: &["q", "k", "v", "extra_k", "extra_v"],
        run: masks::neighborhood_attention,
    },
    Operator {
        name: "norm_attention",
        params: &["act", "causal", "eps", "eps_mode", "norm", "norm_scope"],
        inputs: &["q", "k", "v", "initial_state", "norm_weight", "u"],
        run: layers::norm_attention,
    },
    Operator {
        name: "pair_cross_attention",
        params: &["scale"],
        inputs: &["q", "k1", "v1", "k2", "v2"],
        run: composed::pair_cross_attention,
    },
    Operator {
        name: "partial_merge",
        params: &["parts", "weighted"],
        inputs: &["out_parts", "lse_parts", "group_weight"],
        run: merge::partial_merge,
    },
    Operator {
        name: "pattern_attention",
        params: &["block", "frames", "modes", "scale", "text", "tokens_per_frame"],
        inputs: &["q", "k", "v"],
        run: video::pattern_attention,
    },
    Operator {
        name: "positional_attention",
        params: &["align", "causal", "causal_align", "scale", "window"],
        inputs: &["q", "k", "v"],
        run: composed::positional_attention,
    },
    Operator {
        name: "radial_attention",
        params: &["block", "decay_factor", "frames", "model", "scale", "sink", "tokens_per_frame", "variant"],
        inputs: &["q", "k", "v"],
        run: video::radial_attention,
    },
    Operator {
        name: "rag_block_diagonal_attention",
        params: &["causal", "passages", "prefix", "query", "scale"],
        inputs: &["q", "k", "v", "segment"],
        run: pictures::rag_block_diagonal_attention,
    },
    Operator {
        name: "refrag_cost_model",
        params: &["batch", "context", "expand_fraction", "hidden", "layers", "output", "params", "rate"],
        inputs: &[],
        run: planners::refrag_cost_model,
    },
    Operator {
        name: "refrag_layout",
        params: &["chunk", "context_tokens", "expand_fraction", "query_tokens"],
        inputs: &["chunk_logits"],
        run: planners::refrag_layout,
    },
    Operator {
        name: "reposition_resample",
        params: &["height", "index", "mode", "width"],
        inputs: &["ref_mask", "target_mask", "x"],
        run: planners::reposition_resample,
    },
    Operator {
        name: "s4d_conv",
        params: &["conj_pairs", "disc"],
        inputs: &["a_re", "a_im", "b_re", "b_im", "c_re", "c_im", "log_dt", "d", "u", "state_re", "state_im"],
        run: s4d::conv,
    },
    Operator { name: "s4d_init", params: &["d_state", "init", "sign"], inputs: &[], run: s4d::init },
    Operator {
        name: "s4d_kernel",
        params: &["conj_pairs", "disc", "length"],
        inputs: &["a_re", "a_im", "b_re", "b_im", "c_re", "c_im", "log_dt"],
        run: s4d::kernel,
    },
    Operator {
        name: "short_conv",
        params: &["act"],
        inputs: &["x", "weight", "bias", "cache"],
        run: layers::short_conv,
    },
    Operator {
        name: "simple_gla",
        params: &["scale"],
        inputs: &["q", "k", "v", "initial_state", "log_decay"],
        run: linear::described_attention,
    },
    Operator {
        name: "simple_gla_bwd",
        params: &["scale"],
        inputs: &["q", "k", "v", "d_final_state", "do", "initial_state", "log_decay"],
        run: linear::described_backward,
    },
    Operator {
        name: "softmax_attention",
        params: &["alibi", "align", "bias_shape", "causal", "causal_align", "scale", "sinks", "softcap", "window"],
        inputs: &["q", "k", "v", "alibi_slopes", "bias", "mask_bits", "sinks"],
        run: softmax::softmax_attention,
    },
    Operator { name: "srms_norm", params: &["eps", "eps_mode"], inputs: &["x"], run: layers::srms_norm },
    Operator {
        name: "srms_norm_bwd",
        params: &["eps", "eps_mode"],
        inputs: &["x", "do"],
        run: layers::srms_norm_backward,
    },
    Operator {
        name: "taylor_attention",
        params: &["causal", "scale"],
        inputs: &["q", "k", "v"],
        run: linear::taylor_attention,
    },
    Operator {
        name: "tnl_attention",
        params: &["act", "eps", "eps_mode", "lrpe", "norm_scope"],
        inputs: &["q", "k", "v", "log_decay", "theta", "u"],
        run: layers::tnl_attention,
    },
    Operator {
        name: "varlen_attention",
        params: &["causal", "causal_align", "scale"],
        inputs: &["q", "k", "v", "cu_seqlens_k", "cu_seqlens_q"],
        run: packed::varlen_attention,
    },
    Operator {
        name: "window_attention",
        params: &["height", "scale", "tail", "width", "window"],
        inputs: &["q", "k", "v"],
        run: masks::window_attention,
    },
];

/// The operator of this name.
pub fn find(name: &str) -> Result<&'static Operator, Stop> {
    let operator = OPERATORS.iter().find(|operator| operator.name == name);
    operator.ok_or_else(|| Stop::NotOffered(format!("op: {name} is not offered")))
}

impl Operator {
    /// Computes the outputs, unless the case asks for more than is understood.
    pub fn run(&self, ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
        self.understands(case)?;
        (self.run)(ctx, case)
    }

    /// Whether the device reads anything of it that may be f16.
    pub fn goes_by_f16(&self) -> bool {
        has_operand(self.inputs) && !ON_HOST.contains(&self.name)
    }

    /// A parameter or input that is not in the table would change the result: the case is skipped, never half done.
    fn understands(&self, case: &Case) -> Result<(), Stop> {
        if let Some((key, value)) = case.params.set().find(|(key, _)| !self.params.contains(key)) {
            return Err(Stop::NotOffered(format!("parameter {key}: is {value}, but is not offered")));
        }
        match case.inputs.keys().find(|name| !self.inputs.contains(&&***name)) {
            Some(name) => Err(Stop::NotOffered(format!("input {name}: is not offered"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::tests::parse;

    #[test]
    fn what_is_not_understood_is_skipped() {
        let case = |params: &str, input: &str| {
            parse(&[("expected.out", &[1.0]), (input, &[1.0])], &[("params", params), ("rtol", "0"), ("atol", "0")])
        };
        let verdict = |params, input| find("softmax_attention")?.understands(&case(params, input).unwrap());
        assert!(verdict(r#"{"causal": true, "novelty": null, "other": false}"#, "q").is_ok());
        for (params, input) in [(r#"{"novelty": true}"#, "q"), (r#"{"novelty": 0}"#, "q"), ("{}", "key_padding")] {
            assert!(matches!(verdict(params, input), Err(Stop::NotOffered(_))), "{params} {input}");
        }
        assert!(matches!(find("no_such_operator"), Err(Stop::NotOffered(_))));
    }

    #[test]
    fn what_goes_by_f16() {
        let [by_f16, others]: [Vec<_>; 2] =
            [true, false].map(|f16| OPERATORS.iter().filter(|o| o.goes_by_f16() == f16).map(|o| o.name).collect());
        assert!(
            ["softmax_attention", "kda_bwd", "merge_lse", "short_conv", "s4d_conv"].iter().all(|o| by_f16.contains(o))
        );
        assert_eq!(
            others,
            [
                "block_mask",
                "cad_planner",
                "decay_slopes",
                "gna_simulator",
                "refrag_cost_model",
                "refrag_layout",
                "reposition_resample",
                "s4d_init",
                "s4d_kernel"
            ]
        );
    }
}
