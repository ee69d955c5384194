//! What modules that evaluate masks are specialised for, and the two that make tile lists.

use std::fmt;

use super::layout::DType;
use super::link::{Source, fragment};
use super::spec::FLAT_THREADS;
use crate::mask::MAX_RULES;
use crate::user_wgsl::{TURNS_LEFT, declarations};

/// Texts of the user's in a module: what each is called in errors, the text, and the tensors they all read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct UserSpec {
    pub texts: Vec<(&'static str, String)>,
    pub data: Vec<(String, DType)>,
    /// Whether a text loops.
    pub loops: bool,
    /// Whether the user vouches for the texts.
    pub trusted: bool,
}

/// The first binding of the user's tensors.
pub(crate) const USER_BINDINGS: u32 = 16;

impl UserSpec {
    pub(crate) fn sources(&self) -> Vec<Source> {
        let data = self.data.iter().map(|(name, dtype)| (&**name, *dtype));
        let mut before = declarations(data, USER_BINDINGS);
        if self.loops && !self.trusted {
            before += TURNS_LEFT;
        }
        let mut sources = vec![Source::generated("data", before)];
        sources.extend(self.texts.iter().map(|(name, text)| Source::users(name, text.clone())));
        sources
    }

    pub(crate) fn uses_f16(&self) -> bool {
        self.data.iter().any(|(_, dtype)| *dtype == DType::F16)
    }
}

/// A mask in a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct MaskSpec {
    /// WGSL that defines `mask_mod`; empty where every pair attends.
    pub text: String,
    pub files: Vec<&'static str>,
    /// Whether tokens are visited in another order.
    pub order: bool,
    /// Whether heads differ in mask, lists or order.
    pub heads_differ: bool,
}

impl MaskSpec {
    pub(crate) fn sources(&self) -> Vec<Source> {
        let pick = |yes: bool, a: &'static str, b: &'static str| fragment(if yes { a } else { b });
        let mut sources = vec![
            pick(self.order, "lib/order_table.wgsl", "lib/order_none.wgsl"),
            pick(self.heads_differ, "lib/heads_table.wgsl", "lib/heads_one.wgsl"),
        ];
        if self.text.is_empty() {
            sources.push(fragment("mods/mask_none.wgsl"));
        } else {
            sources.push(Source::generated("mask", self.text.clone()));
            sources.extend(self.files.iter().map(|file| fragment(file)));
        }
        sources
    }

    /// Of the same lists and order, where no pair is tested.
    pub(crate) fn untested(&self) -> MaskSpec {
        MaskSpec { text: String::new(), files: Vec::new(), ..*self }
    }

    /// Whether the numbers of rules are read.
    pub(crate) fn reads_args(&self) -> bool {
        !self.files.is_empty()
    }
}

/// Tile classes of a mask, or the lists made from them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ListsSpec {
    pub step: ListsStep,
    pub block_q: u32,
    pub block_kv: u32,
    /// Heads in a query tile.
    pub pack: u32,
    pub mask: MaskSpec,
    pub user: UserSpec,
}

/// The two dispatches that make tile lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ListsStep {
    Classify,
    Compact,
}

impl ListsSpec {
    pub(crate) fn prelude(&self) -> String {
        let f16 = if self.user.uses_f16() { "enable f16;\n" } else { "" };
        format!(
            "{f16}const BLOCK_Q: u32 = {}u;\nconst BLOCK_KV: u32 = {}u;\nconst PACK: u32 = {}u;\nconst THREADS: u32 = {FLAT_THREADS}u;\n\
             const MAX_RULE_ARGS: u32 = {}u;\n",
            self.block_q,
            self.block_kv,
            self.pack,
            2 * MAX_RULES
        )
    }

    pub(crate) fn sources(&self) -> Vec<Source> {
        let shared =
            ["lib/view.wgsl", "lib/bindings.wgsl", "lib/tables_write.wgsl", "lib/lists.wgsl", "lib/classes.wgsl"];
        let mut sources: Vec<Source> = shared.into_iter().map(fragment).collect();
        match self.step {
            ListsStep::Compact => sources.push(fragment("compact.wgsl")),
            ListsStep::Classify => {
                sources.extend([fragment("classify.wgsl"), fragment("lib/pack.wgsl")]);
                sources.extend(self.mask.sources());
                if self.mask.reads_args() {
                    sources.push(fragment("lib/rule_args.wgsl"));
                }
                sources.extend(self.user.sources());
            }
        }
        sources
    }
}

impl fmt::Display for ListsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.step {
            ListsStep::Classify => "classify the mask's",
            ListsStep::Compact => "list the mask's",
        };
        write!(f, "{what} tiles of {} x {}, {FLAT_THREADS} threads", self.block_q, self.block_kv)
    }
}
