//! Numbers and tables of rules, as they are laid out for the GPU.

use std::sync::Arc;

use crate::{Error, Result};

/// Rules of all masks and scores of a description, at most: what a uniform of 8 KiB holds.
pub(crate) const MAX_RULES: usize = 256;

/// Numbers and tables of mask and score rules, as they are laid out for the GPU.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleData {
    /// Eight numbers a rule.
    pub args: Vec<[u32; 8]>,
    /// All tables, one after the other: those that copies share, then those that were added since.
    shared: Arc<[u32]>,
    added: Vec<u32>,
    /// Tables among the latter, by identity.
    known: Vec<(Arc<[u32]>, u32)>,
}

impl RuleData {
    /// Adds a rule; returns its number.
    pub(crate) fn rule(&mut self, args: &[u32]) -> Result<usize> {
        if self.args.len() == MAX_RULES {
            return Err(Error::Limit(format!("mask: has more than {MAX_RULES} rules, which is all that is allowed")));
        }
        let mut padded = [0; 8];
        padded[..args.len()].copy_from_slice(args);
        self.args.push(padded);
        Ok(self.args.len() - 1)
    }

    /// Adds words; returns where they begin.
    pub(crate) fn append(&mut self, words: &[u32]) -> u32 {
        let at = self.len() as u32;
        self.added.extend_from_slice(words);
        at
    }

    /// Adds a table that several rules may share.
    pub(crate) fn table(&mut self, data: &Arc<[u32]>) -> u32 {
        if let Some((_, at)) = self.known.iter().find(|(known, _)| Arc::ptr_eq(known, data)) {
            return *at;
        }
        let at = self.append(data);
        self.known.push((data.clone(), at));
        at
    }

    /// Words of all tables.
    pub(crate) fn len(&self) -> usize {
        self.shared.len() + self.added.len()
    }

    /// Words that this copy does not share.
    pub(crate) fn own_len(&self) -> usize {
        self.added.len()
    }

    pub(crate) fn words(&self) -> Vec<u32> {
        [&*self.shared, &self.added].concat()
    }

    /// The same, to compare with; nothing is to be added.
    pub(crate) fn to_compare(&self) -> RuleData {
        RuleData { known: Vec::new(), ..self.clone() }
    }

    /// The same, for copies to share the tables that are there.
    pub(crate) fn to_share(&self) -> RuleData {
        RuleData { args: self.args.clone(), shared: self.words().into(), ..RuleData::default() }
    }

    /// Whether the same was added to two copies of one.
    pub(crate) fn is_same(&self, other: &RuleData) -> bool {
        debug_assert!(Arc::ptr_eq(&self.shared, &other.shared), "copies of one");
        self.added == other.added && self.args == other.args
    }
}
