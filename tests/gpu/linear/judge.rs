//! What a problem must give, and its comparison.

use wgpu_attention::reference::{
    FeatureRules, LinearBackwardResult, LinearResult, LinearRules, LinearSizes, Real, check, features,
    linear_attention, linear_attention_backward,
};
use wgpu_attention::{Context, DType, FeatureMap};

use super::problem::{Gate, Operands, Outputs, Problem};
use crate::support::{contexts, download};

impl Problem {
    /// The recurrence over these values.
    pub fn oracle_of<T: Real>(&self, o: &Operands) -> Outputs {
        let LinearResult { out, state, z } =
            self.with_rules(o, |sizes, [q, k, v], rules: LinearRules<'_, T>| linear_attention(sizes, q, k, v, rules));
        [out, state, if self.has_z() { z } else { Vec::new() }].map(wide)
    }

    /// q and k mapped, v, and the rules.
    fn with_rules<T: Real, R>(
        &self,
        o: &Operands,
        f: impl FnOnce(LinearSizes, [&[T]; 3], LinearRules<'_, T>) -> R,
    ) -> R {
        let LinearSizes { heads, len, steps, dim_k, .. } = self.sizes;
        let [q, k, v, log_decay, beta, state, z] =
            [&o.q, &o.k, &o.v, &o.log_decay, &o.beta, &o.state, &o.z].map(|x| cast::<T>(x));
        let scale = T::of(self.scale().into());
        let columns = self.gate_columns();
        let decay = |b: usize, h: usize, t: usize, d: usize| match self.gate {
            Gate::None => T::of(0.0),
            Gate::Head => log_decay[h],
            _ => log_decay[((b * heads + h) * len + t) * columns + d % columns],
        };
        let given = |values: &'_ Vec<T>| (!values.is_empty()).then_some(()).is_some();
        let rules = LinearRules {
            // The Taylor map has taken it.
            scale: if self.map == FeatureMap::Taylor { T::of(1.0) } else { scale },
            log_decay: &decay,
            beta: given(&beta).then_some(&beta[..]),
            normalizer: self.normalizer,
            initial_state: given(&state).then_some(&state[..]),
            initial_z: given(&z).then_some(&z[..]),
        };
        let of_map = FeatureRules { omega: &[], longest: len, scale, of_keys: false };
        let q = features(&self.map, &q, len, dim_k, of_map);
        let k = features(&self.map, &k, len * steps, dim_k, of_map);
        f(LinearSizes { dim_k: self.features(), ..self.sizes }, [&q, &k, &v], rules)
    }

    /// Compares a result with the oracle by the one tolerance rule.
    pub fn compare(&self, name: &str, got: &Outputs) {
        let operands = self.operands();
        let (exact, plain) = (self.oracle_of::<f64>(&operands), self.oracle_of::<f32>(&operands));
        for (n, (what, dtype)) in
            [("out", self.dtype), ("state", DType::F32), ("z", DType::F32)].into_iter().enumerate()
        {
            check(&got[n], &exact[n], &plain[n], dtype).unwrap_or_else(|e| panic!("{name}, {what}: {e}\n{self:?}"));
        }
    }

    /// Runs on every context and compares.
    pub fn check(&self) {
        for (name, ctx) in contexts() {
            if self.dtype == DType::F32 || ctx.capabilities().f16 {
                self.check_on(name, &ctx);
            }
        }
    }

    /// Runs on one context and compares.
    pub fn check_on(&self, name: &str, ctx: &Context) {
        let got = self.run(ctx).unwrap_or_else(|e| panic!("{name}: {e}\n{self:?}"));
        self.compare(name, &got);
    }

    /// Runs on one context and compares gradients.
    pub fn check_gradients_on(&self, name: &str, ctx: &Context) {
        let got = self.run_backward(ctx).unwrap_or_else(|e| panic!("{name}: {e}\n{self:?}"));
        let (exact, plain) = (self.gradients::<f64>(), self.gradients::<f32>());
        let optional = [&got.d_log_decay, &got.d_beta, &got.d_initial_state].map(Option::as_ref);
        let tensors = [Some(&got.dq), Some(&got.dk), Some(&got.dv)].into_iter().chain(optional);
        let names = ["dq", "dk", "dv", "d_log_decay", "d_beta", "d_initial_state"];
        // Each by its largest number, those of one type together: of a few numbers alone, the plain formula's error is chance.
        let mut judged: [[Vec<f64>; 3]; 2] = Default::default();
        for (n, (what, tensor)) in names.into_iter().zip(tensors).enumerate() {
            let Some(tensor) = tensor else {
                assert!(exact[n].is_empty(), "{name}: {what} is missing\n{self:?}");
                continue;
            };
            let values = download(ctx, tensor).unwrap();
            assert_eq!(values.len(), exact[n].len(), "{name}: {what}\n{self:?}");
            // A power of two, so that f16 rounds as before.
            let unit = exact[n].iter().fold(f64::MIN_POSITIVE, |m, x| m.max(x.abs())).log2().ceil().exp2();
            let of_type = &mut judged[usize::from(tensor.layout().dtype() == DType::F16)];
            for (all, new) in of_type.iter_mut().zip([&values, &exact[n], &plain[n]]) {
                all.extend(new.iter().map(|x| x / unit));
            }
        }
        for ([got, exact, plain], dtype) in judged.iter().zip([DType::F32, DType::F16]) {
            check(got, exact, plain, dtype).unwrap_or_else(|e| panic!("{name}, gradients in {dtype}: {e}\n{self:?}"));
        }
    }

    /// By the reverse recurrence: dq, dk, dv, and what the problem has of the others.
    fn gradients<T: Real>(&self) -> [Vec<f64>; 6] {
        let [d_out, d_state] = self.upstream().map(|x| cast::<T>(&x));
        let backward = |sizes: LinearSizes, qkv: [&[T]; 3], rules: LinearRules<'_, T>| {
            linear_attention_backward(sizes, qkv, rules, &d_out, Some(&d_state))
        };
        let LinearBackwardResult { dq, dk, dv, d_log_decay, d_beta, d_initial_state } =
            self.with_rules(&self.operands(), backward);
        let d_log_decay = match self.gate {
            Gate::None | Gate::Head => Vec::new(),
            Gate::Channel => d_log_decay,
            Gate::Token => {
                d_log_decay.chunks(self.sizes.dim_k).map(|row| row.iter().fold(T::of(0.0), |sum, &x| sum + x)).collect()
            }
        };
        let d_initial_state = if self.initial { d_initial_state } else { Vec::new() };
        [dq, dk, dv, d_log_decay, d_beta, d_initial_state].map(wide)
    }
}

pub(super) fn cast<T: Real>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&x| T::of(x.into())).collect()
}

fn wide<T: Real>(values: Vec<T>) -> Vec<f64> {
    values.into_iter().map(T::to_f64).collect()
}
