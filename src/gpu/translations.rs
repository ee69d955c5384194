//! Texts as SPIR-V, kept like what the driver makes of them: parsing and writing one of 70 KB takes longer than all else of a plan
//! whose kernels the driver has.

use std::any::TypeId;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use wgpu::naga;

use super::spec::Spec;
use crate::Result;

/// SPIR-V by what it was written from.
#[derive(Debug, Default)]
pub(crate) struct Translations(Mutex<HashMap<u64, Arc<[u32]>>>);

/// Kept SPIR-V, as bytes.
pub(crate) type KeptTranslations<'a> = Vec<(u64, &'a [u8])>;

/// The number of what writes SPIR-V here: what another version wrote counts for nothing. Types of naga's have other ids in every version
/// of it.
pub(crate) fn writer() -> u64 {
    let own = [
        env!("CARGO_PKG_VERSION"),
        include_str!("spirv.rs"),
        include_str!("spirv_module.rs"),
        include_str!("inline.rs"),
    ];
    number_of((TypeId::of::<naga::Module>(), own))
}

fn number_of(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

impl Translations {
    /// Begins with what was kept.
    pub(crate) fn new(kept: &KeptTranslations<'_>) -> Translations {
        let words = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        Translations(Mutex::new(kept.iter().map(|(key, bytes)| (*key, words(bytes))).collect()))
    }

    /// A kernel's text as SPIR-V, which is made where it is not there.
    pub(crate) fn get_or_make(
        &self,
        spec: &Spec,
        text: &str,
        make: impl FnOnce() -> Result<Vec<u32>>,
    ) -> Result<Arc<[u32]>> {
        let all = || self.0.lock().unwrap_or_else(|e| e.into_inner());
        let key = number_of((spec, text));
        if let Some(words) = all().get(&key) {
            return Ok(words.clone());
        }
        let words: Arc<[u32]> = make()?.into();
        all().insert(key, words.clone());
        Ok(words)
    }

    /// Appends all of it, for [`read`].
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        let all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        bytes.extend(writer().to_le_bytes());
        bytes.extend((all.len() as u64).to_le_bytes());
        for (key, words) in all.iter() {
            bytes.extend(key.to_le_bytes());
            bytes.extend((words.len() as u64).to_le_bytes());
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
    }
}

/// What [`write`](Translations::write) appended; none of it where another version did, and `None` where it is not whole.
pub(crate) fn read<'a>(rest: &mut &'a [u8]) -> Option<KeptTranslations<'a>> {
    let theirs = number(rest)?;
    let mut kept = Vec::new();
    for _ in 0..number(rest)? {
        let key = number(rest)?;
        let length = usize::try_from(number(rest)?).ok()?.checked_mul(4)?;
        let (words, others) = rest.split_at_checked(length)?;
        kept.push((key, words));
        *rest = others;
    }
    Some(if theirs == writer() { kept } else { Vec::new() })
}

/// The next eight bytes.
pub(crate) fn number(rest: &mut &[u8]) -> Option<u64> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(u64::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::gpu::spec::example_combine_spec;

    #[test]
    fn what_is_kept_is_not_made_again() {
        let spec = example_combine_spec();
        let all = Translations::default();
        let refused = || Err(Error::Shader("asked for".into()));
        assert!(all.get_or_make(&spec, "a", refused).is_err());
        assert_eq!(*all.get_or_make(&spec, "a", || Ok(vec![1, 0x0203_0405])).unwrap(), [1, 0x0203_0405]);
        all.get_or_make(&spec, "b", || Ok(vec![6])).unwrap();
        let mut bytes = Vec::new();
        all.write(&mut bytes);
        let mut rest = &bytes[..];
        let kept = Translations::new(&read(&mut rest).unwrap());
        assert!(rest.is_empty());
        assert_eq!(*kept.get_or_make(&spec, "a", refused).unwrap(), [1, 0x0203_0405]);
        assert_eq!(*kept.get_or_make(&spec, "b", refused).unwrap(), [6]);
        assert!(kept.get_or_make(&spec, "c", refused).is_err(), "another text");
        for end in 0..bytes.len() {
            assert_eq!(read(&mut &bytes[..end]), None, "cut at {end}");
        }
        bytes[0] ^= 1;
        assert_eq!(read(&mut &bytes[..]), Some(Vec::new()), "another version's");
    }
}
