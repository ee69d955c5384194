//! A mask to what the shaders need: the text of `mask_mod`, numbers and tables of its rules, and which heads share.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::expr::{Expr, Leaf, Table};
use super::{Mask, Node, Order, RuleData};
use crate::Result;
use crate::user_wgsl::Text;

/// A mask ready for the GPU.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// WGSL that defines `mask_mod`; it depends on what the mask is made of, not on its numbers.
    pub text: String,
    /// Shader files that the text calls.
    pub files: BTreeSet<&'static str>,
    /// The user's texts that it calls, in the order of their numbers.
    pub texts: Vec<Arc<Text>>,
    /// Tile lists of a batch: the head that stands for each, and the order of its tokens.
    pub instances: Vec<(usize, Option<Order>)>,
    /// Instance and pattern of every head.
    pub heads: Vec<[u32; 2]>,
    /// Whether tile lists differ from batch to batch.
    pub batched: bool,
    /// Whether it reads tensors, whose contents may change from call to call.
    pub dynamic: bool,
}

impl Compiled {
    /// Whether all heads share everything.
    pub(crate) fn one_head(&self) -> bool {
        self.instances.len() == 1
    }
}

/// Compiles a mask for a problem `[batch, heads, len_q, len_kv]`.
pub(crate) fn compile(mask: &Mask, shape: [usize; 4], data: &mut RuleData) -> Result<Compiled> {
    mask.check_heads(shape[1])?;
    let mut patterns: Vec<(Mask, Expr)> = Vec::new();
    let mut compiled = Compiled {
        text: String::new(),
        files: BTreeSet::new(),
        texts: Vec::new(),
        instances: Vec::new(),
        heads: Vec::new(),
        batched: false,
        dynamic: false,
    };
    // Which pattern and instance a head has; heads whose mask reads the head itself are instances of their own.
    let differs = mask.differs_by_head();
    for h in 0..shape[1] {
        let pattern = if h > 0 && !differs {
            0
        } else {
            let of_head = mask.of_head(h);
            match patterns.iter().position(|(known, _)| *known == of_head) {
                Some(pattern) => pattern,
                None => {
                    let expr = Expr::of(&of_head, shape)?;
                    patterns.push((of_head, expr));
                    patterns.len() - 1
                }
            }
        };
        let (of_head, expr) = &patterns[pattern];
        let alone = expr.leaves().iter().any(|leaf| leaf.is_headed());
        let shared = compiled.heads.iter().find(|head: &&[u32; 2]| head[1] as usize == pattern && !alone);
        let instance = match shared {
            Some(head) => head[0],
            None => {
                compiled.instances.push((h, of_head.order.clone().filter(|order| !order.is_sequence())));
                compiled.instances.len() as u32 - 1
            }
        };
        compiled.heads.push([instance, pattern as u32]);
    }
    let mut cases = Vec::new();
    for (_, expr) in &patterns {
        let (case, _) = compiled.expression(expr, data)?;
        cases.push(case);
        for leaf in expr.leaves() {
            compiled.batched |= shape[0] > 1 && leaf.is_batched();
            compiled.dynamic |= leaf.reads_tensors();
        }
    }
    compiled.text += &function(&cases);
    Ok(compiled)
}

fn function(cases: &[String]) -> String {
    let body = match cases {
        [one] => format!("    return {one};\n"),
        _ => format!("    var seen = false;\n    {}\n    return seen;\n", choice(cases)),
    };
    format!("fn mask_mod(at: QTile, q_idx: u32, kv_idx: u32) -> bool {{\n{body}}}\n")
}

/// Patterns that are told apart one after the other. More of them stand in groups of so many, each behind a test of the group.
const TOGETHER: usize = 8;

/// The case of the pattern. No branch is another's `else`: Mesa's software driver forgets branches that lie within 80 others, without a word, and
/// what SwiftShader takes doubles with each (ten patterns by halves of halves more than two minutes). Nor is it a switch, with which it doubles, too.
fn choice(cases: &[String]) -> String {
    let one = |(pattern, case): (usize, &String)| format!("if (at.pattern == {pattern}u) {{ seen = {case}; }}");
    let ifs: Vec<String> = cases.iter().enumerate().map(one).collect();
    if ifs.len() <= TOGETHER {
        return ifs.join("\n    ");
    }
    let group = |(n, ifs): (usize, &[String])| {
        format!("if (at.pattern / {TOGETHER}u == {n}u) {{\n        {}\n    }}", ifs.join("\n        "))
    };
    ifs.chunks(TOGETHER).enumerate().map(group).collect::<Vec<_>>().join("\n    ")
}

/// Expressions within one another, at most, in a function of the text: naga ends at less than a hundred.
const MOST_NESTED: usize = 24;

impl Compiled {
    /// The text of an expression, and how many lie within one another in it.
    fn expression(&mut self, expr: &Expr, data: &mut RuleData) -> Result<(String, usize)> {
        let (a, b, operation) = match expr {
            Expr::Constant(value) => return Ok((value.to_string(), 0)),
            Expr::Leaf(leaf) => return Ok((self.leaf(leaf, data)?, 0)),
            Expr::Not(a) => {
                let (a, nested) = self.expression(a, data)?;
                return Ok((format!("!{a}"), nested));
            }
            Expr::And(a, b) => (a, b, '&'),
            Expr::Or(a, b) => (a, b, '|'),
        };
        let ((a, in_a), (b, in_b)) = (self.expression(a, data)?, self.expression(b, data)?);
        let (text, nested) = (format!("({a} {operation} {b})"), 1 + in_a.max(in_b));
        if nested < MOST_NESTED {
            return Ok((text, nested));
        }
        // A function of its own, of which any number may call one another.
        let name = format!("mask_part_{}", self.text.lines().count());
        self.text += &format!("fn {name}(at: QTile, q_idx: u32, kv_idx: u32) -> bool {{ return {text}; }}\n");
        Ok((format!("{name}(at, q_idx, kv_idx)"), 0))
    }

    fn leaf(&mut self, leaf: &Leaf, data: &mut RuleData) -> Result<String> {
        let mut table = |table: &Table| [data.table(&table.data), table.per_batch];
        let (file, name, args) = match leaf {
            Leaf::Window { left, right } => {
                ("mods/mask_window.wgsl", "window", vec![left.cast_unsigned(), right.cast_unsigned()])
            }
            Leaf::Tokens { keys, queries } => ("mods/mask_tokens.wgsl", "tokens", [*keys, *queries].concat()),
            Leaf::BlockDiagonal(size) => ("mods/mask_blocks.wgsl", "blocks", vec![*size]),
            Leaf::Ranges { key, from, last, guard } => {
                let ([key, keys], [from, queries], [last, _]) = (table(key), table(from), table(last));
                ("mods/mask_ranges.wgsl", "ranges", vec![key, keys, from, last, queries, *guard])
            }
            Leaf::Groups { q, kv } => ("mods/mask_groups.wgsl", "groups", [table(q), table(kv)].concat()),
            Leaf::Distance { q, kv, widths } => {
                let args = vec![table(q)[0], table(kv)[0], data.table(widths)];
                ("mods/mask_distance.wgsl", "distance", args)
            }
            Leaf::Blocks { list, full_only } => {
                let (words, bits) = list.bits(*full_only);
                let a_head = if list.heads() == 1 { 0 } else { list.blocks()[0] * words };
                let tile = list.tile().map(|n| n as u32);
                let args = vec![data.append(&bits), tile[0], tile[1], words as u32, a_head as u32];
                ("mods/mask_tiles.wgsl", "tiles", args)
            }
            Leaf::Bits { .. } => ("mods/mask_bits.wgsl", "bits", vec![]),
            Leaf::Wgsl { text, .. } => {
                let known = self.texts.iter().position(|known| known == text);
                let number = known.unwrap_or_else(|| {
                    self.texts.push(text.clone());
                    self.texts.len() - 1
                });
                return Ok(format!("{}(at.b, at.h, q_idx, kv_idx)", user_mask(number)));
            }
        };
        self.files.insert(file);
        Ok(format!("mask_by_{name}({}u, at, q_idx, kv_idx)", data.rule(&args)?))
    }
}

/// What the n-th of the user's mask rules is called once linked.
pub(crate) fn user_mask(number: usize) -> String {
    format!("user_mask_{number}")
}

impl Leaf {
    /// Whether the rule reads the head.
    fn is_headed(&self) -> bool {
        match self {
            Leaf::Bits { headed, .. } => *headed,
            Leaf::Blocks { list, .. } => list.heads() > 1,
            Leaf::Wgsl { usage, .. } => usage.h,
            _ => false,
        }
    }

    /// Whether it differs from batch to batch.
    fn is_batched(&self) -> bool {
        match self {
            Leaf::Bits { batched, .. } => *batched,
            Leaf::Wgsl { usage, .. } => usage.b,
            Leaf::Ranges { key, from, last, .. } => [key, from, last].iter().any(|table| table.per_batch > 0),
            Leaf::Groups { q, kv } => q.per_batch > 0 || kv.per_batch > 0,
            _ => false,
        }
    }

    fn reads_tensors(&self) -> bool {
        match self {
            Leaf::Bits { .. } => true,
            Leaf::Wgsl { text, .. } => !text.data.is_empty(),
            _ => false,
        }
    }
}

impl Mask {
    /// Whether a list of masks, one a head, is within.
    fn differs_by_head(&self) -> bool {
        match &*self.node {
            Node::Constant(_) | Node::Rule(_) => false,
            Node::And(a, b) | Node::Or(a, b) => a.differs_by_head() || b.differs_by_head(),
            Node::Not(a) => a.differs_by_head(),
            Node::PerHead(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(mask: &Mask, heads: usize) -> Compiled {
        compile(mask, [1, heads, 8, 8], &mut RuleData::default()).unwrap()
    }

    #[test]
    fn text_depends_on_structure_alone() {
        let text = |left, size| compiled(&(Mask::window(left, 0) & !Mask::block_diagonal(size)), 1).text;
        assert_eq!(text(3, 2), text(5, 4));
        assert!(
            text(3, 2).contains("(mask_by_window(0u, at, q_idx, kv_idx) & !mask_by_blocks(1u, at, q_idx, kv_idx))")
        );
    }

    #[test]
    fn heads_of_equal_masks_share_lists() {
        let mask = Mask::per_head([Mask::causal(), Mask::window(2, 0), Mask::causal(), Mask::none()]);
        let compiled = compiled(&mask, 4);
        assert_eq!(compiled.heads, [[0, 0], [1, 1], [0, 0], [2, 2]]);
        assert_eq!(compiled.instances.iter().map(|(h, _)| *h).collect::<Vec<_>>(), [0, 1, 3]);
        assert!(!compiled.batched && !compiled.dynamic);
    }

    #[test]
    fn masks_that_read_the_head_are_classified_for_each() {
        let by_head =
            "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return kv_idx % (h + 1u) == 0u; }";
        assert_eq!(compiled(&Mask::wgsl(by_head), 3).heads, [[0, 0], [1, 0], [2, 0]]);
        let mut data = RuleData::default();
        let segments = Mask::segments(&[1; 16], &[1; 16]);
        assert!(compile(&segments, [2, 1, 8, 8], &mut data).unwrap().batched);
        assert_eq!(data.len(), 32, "from and last are the same table");
    }
}
