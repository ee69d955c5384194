//! Contexts to run on, and a case that knows its own oracle.

use std::ffi::OsString;
use std::sync::OnceLock;

use half::f16;
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use wgpu_attention::reference::{Real, Rules, Sizes, check, softmax_attention};
use wgpu_attention::{Attention, Capabilities, Context, DType, Element, Mask, Result, Score, Tensor, Tile};

use crate::data;

/// The device as found.
pub fn ctx() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        pollster::block_on(Context::request())
            .expect("tests need a Vulkan, Metal or DX12 driver; scripts/test installs one")
    })
}

/// The device as found, and lowered in every way that changes what runs.
pub fn contexts() -> Vec<(&'static str, Context)> {
    let found = ctx().capabilities().clone();
    let lower = |capabilities| ctx().restricted(capabilities).expect("lowering is always allowed");
    let mut contexts = vec![("as found", ctx().clone())];
    if found.matrices.is_some() {
        // CPUs that run shaders are given other tiles, whatever units they report.
        let gpu = as_gpu(&found);
        contexts.extend([
            ("matrix units", lower(gpu.clone())),
            ("matrix units by way of workgroup memory", lower(gpu.without_matrix_registers())),
            ("without matrix units", lower(found.clone().without_matrices())),
        ]);
    }
    contexts.extend([
        ("without subgroups", lower(found.clone().without_subgroups())),
        ("without f16", lower(found.clone().without_f16())),
        ("WebGPU defaults", lower(found.webgpu_defaults())),
    ]);
    contexts
}

/// This program once more, in a process of its own, with what it was started through (scripts/lib/on-mesa, where it runs on that
/// driver). By the name that it was given, for current_exe is the dynamic loader where that started it.
pub fn this_program() -> Vec<OsString> {
    let runner = std::env::var_os("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER");
    runner.into_iter().chain(std::env::args_os().take(1)).collect()
}

/// Whether tests that draw or repeat do so at full length: `WGPU_ATTENTION_LONG` is set.
pub fn long() -> bool {
    std::env::var_os("WGPU_ATTENTION_LONG").is_some()
}

/// Draws so many cases: the same ones each time, so that what fails is the change's own fault; others each time where tests run long.
pub fn drawn(cases: u32) -> ProptestConfig {
    let rng_seed = if long() { RngSeed::Random } else { RngSeed::Fixed(5) };
    ProptestConfig { cases, failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

/// What a CPU that runs shaders would be given if it were a GPU.
pub fn as_gpu(found: &Capabilities) -> Capabilities {
    let mut capabilities = found.clone();
    capabilities.cpu = false;
    capabilities
}

/// A problem in full: lengths, types, options, and a seed for its data.
#[derive(Debug, Clone)]
pub struct Case {
    pub sizes: Sizes,
    pub dtype: DType,
    pub left: Option<usize>,
    pub right: Option<usize>,
    pub scale: Option<f32>,
    pub scale_per_head: Option<Vec<f32>>,
    pub softcap: Option<f32>,
    pub slopes: Option<Vec<f32>>,
    /// Batch, heads and len_q of the bias: full or 1.
    pub bias: Option<[usize; 3]>,
    /// Likewise of the bit mask.
    pub bits: Option<[usize; 3]>,
    pub sinks: bool,
    pub tile: Option<Tile>,
    pub splits: Option<usize>,
    pub pack_gqa: Option<bool>,
    pub seed: u64,
    /// What is done to normal q, k and v.
    pub change: Option<Change>,
}

/// Makes other operands of normal ones.
pub type Change = fn(Sizes, &mut [Vec<f32>; 3]);

impl Case {
    /// f32, one batch, two heads, 64 wide, no options.
    pub fn new(len_q: usize, len_kv: usize) -> Case {
        Case {
            sizes: Sizes { batch: 1, heads: 2, heads_kv: 2, len_q, len_kv, head_dim: 64, v_dim: 64 },
            dtype: DType::F32,
            left: None,
            right: None,
            scale: None,
            scale_per_head: None,
            softcap: None,
            slopes: None,
            bias: None,
            bits: None,
            sinks: false,
            tile: None,
            splits: None,
            pack_gqa: None,
            seed: 1,
            change: None,
        }
    }

    pub fn causal(mut self) -> Case {
        self.right = Some(0);
        self
    }

    pub fn f16(mut self) -> Case {
        self.dtype = DType::F16;
        self
    }

    pub fn dims(mut self, head_dim: usize, v_dim: usize) -> Case {
        (self.sizes.head_dim, self.sizes.v_dim) = (head_dim, v_dim);
        self
    }

    pub fn heads(mut self, batch: usize, heads: usize, heads_kv: usize) -> Case {
        (self.sizes.batch, self.sizes.heads, self.sizes.heads_kv) = (batch, heads, heads_kv);
        self
    }

    /// Values of q, k and v, as the device holds them.
    pub fn operands(&self) -> [Vec<f32>; 3] {
        let Sizes { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim } = self.sizes;
        let counts =
            [batch * heads * len_q * head_dim, batch * heads_kv * len_kv * head_dim, batch * heads_kv * len_kv * v_dim];
        let mut seed = self.seed;
        let mut operands = counts.map(|count| {
            seed += 1;
            data::normal(seed, count)
        });
        if let Some(change) = self.change {
            change(self.sizes, &mut operands);
        }
        operands.map(|x| x.into_iter().map(|x| self.rounded(x)).collect())
    }

    fn rounded(&self, x: f32) -> f32 {
        if self.dtype == DType::F16 { f16::from_f32(x).to_f32() } else { x }
    }

    fn bias_values(&self) -> Vec<f32> {
        let Some([b, h, q]) = self.bias else { return Vec::new() };
        // Some pairs are masked by the bias alone.
        let values = data::normal(self.seed + 50, b * h * q * self.sizes.len_kv);
        values.into_iter().map(|x| if x > 1.8 { f32::NEG_INFINITY } else { x }).collect()
    }

    fn sink_values(&self) -> Vec<f32> {
        data::normal(self.seed + 60, self.sizes.heads)
    }

    /// Whether a bit of the mask is set; two thirds are, and no bit of every fifth row.
    fn bit(&self, b: usize, h: usize, i: usize, j: usize) -> bool {
        i % 5 != 4 && !(b * 31 + h * 17 + i * 7 + j * 13).is_multiple_of(3)
    }

    fn bit_words(&self) -> Vec<u32> {
        let Some([batch, heads, rows]) = self.bits else { return Vec::new() };
        let len_kv = self.sizes.len_kv;
        let mut words = Vec::new();
        for b in 0..batch {
            for h in 0..heads {
                for i in 0..rows {
                    words.extend((0..len_kv.div_ceil(32)).map(|w| {
                        let set = |j: &usize| *j < len_kv && self.bit(b, h, i, *j);
                        (w * 32..w * 32 + 32).filter(set).fold(0u32, |word, j| word | 1 << (j % 32))
                    }));
                }
            }
        }
        words
    }

    /// The description over these tensors.
    pub fn describe(&self, ctx: &Context, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Attention> {
        let mut mask = Mask::window(self.left, self.right);
        if let Some([b, h, q]) = self.bits {
            let words = self.sizes.len_kv.div_ceil(32);
            mask = mask & Mask::bits(&Tensor::from_slice(ctx, [b, h, q, words], &self.bit_words())?);
        }
        let mut description = Attention::new(q, k, v).mask(mask);
        if let Some(scale) = self.scale {
            description = description.scale(scale);
        }
        if let Some(scales) = &self.scale_per_head {
            description = description.scale_per_head(scales);
        }
        if let Some(cap) = self.softcap {
            description = description.score(Score::softcap(cap));
        }
        if let Some(slopes) = &self.slopes {
            description = description.score(Score::alibi(slopes));
        }
        if let Some([b, h, q]) = self.bias {
            let bias = Tensor::from_slice(ctx, [b, h, q, self.sizes.len_kv], &self.bias_values())?;
            description = description.score(Score::bias(&bias));
        }
        if self.sinks {
            let sinks = Tensor::from_slice(ctx, [1, self.sizes.heads, 1, 1], &self.sink_values())?;
            description = description.sinks(&sinks);
        }
        if let Some(tile) = self.tile {
            description = description.tile(tile);
        }
        if let Some(splits) = self.splits {
            description = description.splits(splits);
        }
        if let Some(pack) = self.pack_gqa {
            description = description.pack_gqa(pack);
        }
        Ok(description)
    }

    /// q, k and v on the device, contiguous.
    pub fn upload(&self, ctx: &Context) -> Result<[Tensor; 3]> {
        let Sizes { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim } = self.sizes;
        let [q, k, v] = self.operands();
        Ok([
            upload(ctx, self.dtype, [batch, heads, len_q, head_dim], &q)?,
            upload(ctx, self.dtype, [batch, heads_kv, len_kv, head_dim], &k)?,
            upload(ctx, self.dtype, [batch, heads_kv, len_kv, v_dim], &v)?,
        ])
    }

    /// out and lse from the device.
    pub fn run(&self, ctx: &Context) -> Result<(Vec<f64>, Vec<f64>)> {
        let [q, k, v] = self.upload(ctx)?;
        let (out, lse) = self.describe(ctx, &q, &k, &v)?.run_with_lse(ctx)?;
        Ok((download(ctx, &out)?, download(ctx, &lse)?))
    }

    /// out and lse by the reference.
    pub fn oracle<T: Real>(&self) -> (Vec<f64>, Vec<f64>) {
        let [q, k, v] = self.operands().map(|x| x.into_iter().map(|x| T::of(x.into())).collect::<Vec<T>>());
        let Sizes { len_kv, head_dim, len_q, .. } = self.sizes;
        let (bias, sinks) = (self.bias_values(), self.sink_values());
        let window = Mask::window(self.left, self.right).host([1, 1, self.sizes.len_q, len_kv]).unwrap();
        let default_scale = 1.0 / (head_dim as f32).sqrt();
        let scale = |h: usize| {
            let each = self.scale_per_head.as_ref().map(|scales| scales[h]);
            T::of(each.or(self.scale).unwrap_or(default_scale).into())
        };
        let within = |[nb, nh, nq]: [usize; 3], b: usize, h: usize, i: usize| (b % nb, h % nh, i % nq);
        let score = |mut x: T, b: usize, h: usize, i: usize, j: usize| {
            if let Some(cap) = self.softcap {
                x = T::of(cap.into()) * (x / T::of(cap.into())).tanh();
            }
            if let Some(slopes) = &self.slopes {
                let distance = (i + len_kv).abs_diff(j + len_q);
                x = x - T::of(slopes[h].into()) * T::of(distance as f64);
            }
            if let Some(dims) = self.bias {
                let (b, h, i) = within(dims, b, h, i);
                x = x + T::of(bias[((b * dims[1] + h) * dims[2] + i) * len_kv + j].into());
            }
            x
        };
        let mask = |b: usize, h: usize, i: usize, j: usize| {
            let bit = self.bits.is_none_or(|dims| {
                let (b, h, i) = within(dims, b, h, i);
                self.bit(b, h, i, j)
            });
            bit && window.allows(0, 0, i, j)
        };
        let sink = |h: usize| self.sinks.then(|| T::of(sinks[h].into()));
        let rules = Rules { scale: &scale, score: &score, mask: &mask, sink: &sink };
        let (out, lse) = softmax_attention(self.sizes, &q, &k, &v, rules);
        let wide = |x: Vec<T>| x.into_iter().map(T::to_f64).collect();
        (wide(out), wide(lse))
    }

    /// Compares a result with the oracle by the one tolerance rule.
    pub fn compare(&self, name: &str, out: &[f64], lse: &[f64]) {
        let ((out64, lse64), (out32, lse32)) = (self.oracle::<f64>(), self.oracle::<f32>());
        check(out, &out64, &out32, self.dtype).unwrap_or_else(|e| panic!("{name}, out: {e}\n{self:?}"));
        check(lse, &lse64, &lse32, DType::F32).unwrap_or_else(|e| panic!("{name}, lse: {e}\n{self:?}"));
    }

    /// Runs on every context and compares. Without 16-bit floats, f16 goes by fours or is refused.
    pub fn check(&self) {
        for (name, ctx) in contexts() {
            let fours = self.sizes.head_dim.is_multiple_of(4) && self.sizes.v_dim.is_multiple_of(4);
            if self.dtype == DType::F32 || fours || ctx.capabilities().f16 {
                self.check_on(name, &ctx);
            } else {
                let refusal = self.run(&ctx).expect_err(name).to_string();
                assert!(refusal.contains("f16 must be read four at a time"), "{name}: {refusal}");
            }
        }
    }

    /// Runs on one context and compares.
    pub fn check_on(&self, name: &str, ctx: &Context) {
        let (out, lse) = self.run(ctx).unwrap_or_else(|e| panic!("{name}: {e}\n{self:?}"));
        self.compare(name, &out, &lse);
    }
}

/// Host values as a tensor of this type.
pub fn upload(ctx: &Context, dtype: DType, shape: [usize; 4], values: &[f32]) -> Result<Tensor> {
    if dtype == DType::F32 {
        return Tensor::from_slice(ctx, shape, values);
    }
    let rounded: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
    Tensor::from_slice(ctx, shape, &rounded)
}

/// A float tensor of either type as f64.
pub fn download(ctx: &Context, tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(match tensor.layout().dtype() {
        DType::F16 => read::<f16>(ctx, tensor)?.into_iter().map(|x| x.to_f64()).collect(),
        _ => read::<f32>(ctx, tensor)?.into_iter().map(f64::from).collect(),
    })
}

/// A tensor's elements, waited for.
pub fn read<T: Element>(ctx: &Context, tensor: &Tensor) -> Result<Vec<T>> {
    pollster::block_on(tensor.read(ctx))
}

/// A number of 11 significant bits, of any size: f16 behind a power of two. The one towards 0: WGSL lets a device take either
/// neighbour.
pub fn eleven_bits(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let unit = 2f64.powi(x.abs().log2().floor() as i32 - 10);
    (x / unit).trunc() * unit
}
