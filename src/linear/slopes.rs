//! Constant decays of the literature, a number a head: computed on the host.

use super::Decay;
use crate::{Error, Result};

impl Decay {
    /// Decays of Lightning Attention as its code has them: `-slope (1 - layer / (layers - 1) + 1e-5)`, with the slopes of ALiBi,
    /// `2^(-8 (h + 1) / heads)` for heads a power of two; otherwise those of the next lower power of two, then every other one of the
    /// next higher.
    ///
    /// ```
    /// use wgpu_attention::Decay;
    ///
    /// let Decay::PerHead(decay) = Decay::lightning(8, 0, 12)? else { unreachable!() };
    /// assert!((decay[0] + 0.5).abs() < 1e-4 && (decay[7] + 1.0 / 256.0).abs() < 1e-6);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// Source: Lightning Attention-2 (Qin et al. 2024), official code; ALiBi (Press et al. 2022).
    ///
    /// # Errors
    /// [`Error::Value`] without heads, or when the layer is not one of `layers`.
    pub fn lightning(heads: usize, layer: usize, layers: usize) -> Result<Decay> {
        check(heads, layer, layers)?;
        let fade = if layers == 1 { 1.0 } else { 1.0 - layer as f64 / (layers - 1) as f64 } + 1e-5;
        let power = |heads: usize, h: usize| 2f64.powf(-8.0 * (h + 1) as f64 / heads as f64);
        let lower = 1usize << heads.ilog2();
        let slope = |h: usize| if h < lower { power(lower, h) } else { power(2 * lower, 2 * (h - lower)) };
        Ok(Decay::PerHead((0..heads).map(|h| (-slope(h) * fade) as f32).collect()))
    }

    /// Decays of Lightning Attention as its paper has them: `-(8 h / heads) (1 - layer / layers)`. Head 0 forgets nothing. Not the
    /// same as [`lightning`](Decay::lightning): a model was trained with one of them.
    ///
    /// Source: Lightning Attention-2 (Qin et al. 2024), section 3.
    ///
    /// # Errors
    /// [`Error::Value`] without heads, or when the layer is not one of `layers`.
    pub fn lightning_linear(heads: usize, layer: usize, layers: usize) -> Result<Decay> {
        check(heads, layer, layers)?;
        let fade = 1.0 - layer as f64 / layers as f64;
        Ok(Decay::PerHead((0..heads).map(|h| (-8.0 * h as f64 / heads as f64 * fade) as f32).collect()))
    }

    /// Decays of RetNet: `ln(1 - 2^(-5 - h))`.
    ///
    /// Source: RetNet (Sun et al. 2023), section 3.1.
    pub fn retnet(heads: usize) -> Decay {
        Decay::PerHead((0..heads).map(|h| (-(2f64.powi(-5 - h as i32))).ln_1p() as f32).collect())
    }
}

fn check(heads: usize, layer: usize, layers: usize) -> Result<()> {
    if heads == 0 {
        return Err(Error::Value("heads: is 0, but must be at least 1".into()));
    }
    if layer >= layers {
        return Err(Error::Value(format!("layer: is {layer}, but must be below layers ({layers})")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slope_is_a_decay() {
        for heads in [1, 3, 8, 12, 40] {
            for decay in [Decay::lightning(heads, 1, 4), Decay::lightning_linear(heads, 1, 4), Ok(Decay::retnet(heads))]
            {
                let Ok(Decay::PerHead(decay)) = decay else { panic!("no decays a head") };
                assert!(decay.len() == heads && decay.iter().all(|&x| x <= 0.0), "{decay:?}");
            }
        }
        assert_eq!(Decay::lightning(4, 4, 4).unwrap_err().to_string(), "layer: is 4, but must be below layers (4)");
        assert_eq!(Decay::lightning_linear(0, 0, 1).unwrap_err().to_string(), "heads: is 0, but must be at least 1");
    }
}
