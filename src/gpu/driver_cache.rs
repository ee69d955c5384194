//! What is kept of compilations, where the device lets it be kept: the driver's, and SPIR-V of the library's own.
//!
//! Several caches: a driver that compiles into one takes one kernel after the other (NVIDIA's: two of 0.55 s take 1.18 s without a cache
//! of their own each, and 0.89 s with). Which of them holds a kernel is kept with their bytes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use super::spec::Spec;
use super::translations::{self, KeptTranslations, Translations, number};

/// Kernels that are compiled side by side.
pub(crate) const SIDE_BY_SIDE: usize = 4;

/// What kept bytes begin with.
const MAGIC: &[u8; 16] = b"wgpu-attention 2";

/// The driver's caches; none on a device without `Features::PIPELINE_CACHE`.
#[derive(Debug, Default)]
pub(crate) struct DriverCaches {
    caches: Vec<wgpu::PipelineCache>,
    state: Mutex<State>,
    /// Where there are caches.
    translations: Option<Translations>,
}

#[derive(Debug, Default)]
struct State {
    /// The cache of each kernel.
    homes: HashMap<u64, usize>,
    /// Compilations into each that are under way.
    busy: [usize; SIDE_BY_SIDE],
}

/// Kept bytes, taken apart.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Kept<'a> {
    /// Of each cache the kernels that it holds, and the driver's own.
    drivers: [(Vec<u64>, Option<&'a [u8]>); SIDE_BY_SIDE],
    translations: KeptTranslations<'a>,
}

impl<'a> Kept<'a> {
    /// Nothing, where they are not whole.
    pub(crate) fn read(bytes: &'a [u8]) -> Kept<'a> {
        Kept::parse(bytes).unwrap_or_default()
    }

    fn parse(bytes: &'a [u8]) -> Option<Kept<'a>> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut kept = Kept::default();
        for (kernels, driver) in &mut kept.drivers {
            let count = number(&mut rest)?;
            for _ in 0..count {
                kernels.push(number(&mut rest)?);
            }
            let length = usize::try_from(number(&mut rest)?).ok()?;
            let (own, others) = rest.split_at_checked(length)?;
            (*driver, rest) = (Some(own), others);
        }
        kept.translations = translations::read(&mut rest)?;
        rest.is_empty().then_some(kept)
    }

    /// What the driver's caches begin with.
    pub(crate) fn drivers(&self) -> impl Iterator<Item = Option<&'a [u8]>> {
        self.drivers.iter().map(|(_, driver)| *driver)
    }
}

impl DriverCaches {
    /// Caches made of what was kept.
    pub(crate) fn new(caches: Vec<wgpu::PipelineCache>, kept: &Kept<'_>) -> DriverCaches {
        let kernels =
            kept.drivers.iter().enumerate().flat_map(|(n, (kernels, _))| kernels.iter().map(move |key| (*key, n)));
        let state = State { homes: kernels.collect(), ..State::default() };
        let translations = (!caches.is_empty()).then(|| Translations::new(&kept.translations));
        DriverCaches { caches, state: Mutex::new(state), translations }
    }

    /// Compiles a kernel into the cache that has it, or the one least in use.
    pub(crate) fn with<T>(&self, spec: &Spec, compile: impl FnOnce(Option<&wgpu::PipelineCache>) -> T) -> T {
        if self.caches.is_empty() {
            return compile(None);
        }
        let mut hasher = DefaultHasher::new();
        spec.hash(&mut hasher);
        let state = || self.state.lock().unwrap_or_else(|e| e.into_inner());
        let home = {
            let State { homes, busy } = &mut *state();
            let idle = (0..SIDE_BY_SIDE).min_by_key(|n| busy[*n]).unwrap_or(0);
            let home = *homes.entry(hasher.finish()).or_insert(idle);
            busy[home] += 1;
            home
        };
        let made = compile(self.caches.get(home));
        state().busy[home] -= 1;
        made
    }

    /// The library's own SPIR-V, on a device that keeps anything.
    pub(crate) fn translations(&self) -> Option<&Translations> {
        self.translations.as_ref()
    }

    /// All of it, for [`Kept::read`].
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let translations = self.translations.as_ref()?;
        let homes = self.state.lock().unwrap_or_else(|e| e.into_inner()).homes.clone();
        let mut bytes = MAGIC.to_vec();
        for (n, cache) in self.caches.iter().enumerate() {
            let kernels = homes.iter().filter(|(_, home)| **home == n).map(|(key, _)| *key);
            let driver = cache.get_data().unwrap_or_default();
            bytes.extend((kernels.clone().count() as u64).to_le_bytes());
            bytes.extend(kernels.flat_map(u64::to_le_bytes));
            bytes.extend((driver.len() as u64).to_le_bytes());
            bytes.extend(driver);
        }
        translations.write(&mut bytes);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_apart_or_count_for_nothing() {
        let mut bytes = MAGIC.to_vec();
        let mut wanted = Kept::default();
        for (n, (kernels, driver)) in wanted.drivers.iter_mut().enumerate() {
            *kernels = (0..n as u64).collect();
            *driver = Some(&b"abcd"[..n]);
            bytes.extend((n as u64).to_le_bytes());
            bytes.extend(kernels.iter().flat_map(|key| key.to_le_bytes()));
            bytes.extend((n as u64).to_le_bytes());
            bytes.extend(&b"abcd"[..n]);
        }
        Translations::new(&vec![(7, b"abcdefgh")]).write(&mut bytes);
        wanted.translations.push((7, b"abcdefgh"));
        assert_eq!(Kept::read(&bytes), wanted);
        for end in 0..bytes.len() {
            assert_eq!(Kept::read(&bytes[..end]), Kept::default(), "cut at {end}");
        }
        bytes.push(0);
        assert_eq!(Kept::read(&bytes), Kept::default());
        let huge = [&MAGIC[..], &u64::MAX.to_le_bytes()].concat();
        assert_eq!(Kept::read(&huge), Kept::default());
    }
}
