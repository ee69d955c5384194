//! WGSL that a user writes: checked by itself, so that an error is told at the user's own line, then linked by name.

mod words;

use std::sync::OnceLock;

use wgpu::naga;
use wgpu::naga::keywords::wgsl::BUILTIN_IDENTIFIERS;
use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};

use self::words::{declared, identifiers, tokens};

use crate::gpu::layout::DType;
use crate::gpu::tensor::Input;
use crate::{Error, Result};

/// Turns that a driver may count in all loops of a text for one pair of tokens; then its loops end. Mesa's software drivers end all loops of a
/// thread after 65535 turns, the kernel's own with them: two texts, for each of a thread's 16 pairs of a tile, stay below.
pub(crate) const TURNS: usize = 2000;

/// What counts them, once a module.
pub(crate) const TURNS_LEFT: &str = "var<private> turns_left: u32 = 0u;\n";

/// Bytes of variables that a text may take of a thread's memory: as many as WGSL promises everywhere.
const MAX_VARIABLES: u32 = 8192;

/// A text, and the tensors it reads.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub text: String,
    pub data: Vec<(String, Input)>,
    /// Its loops, as they stand in the text.
    loops: usize,
    /// What its one rule depends on, or what is wrong with it: found when first planned, kept for the plans after.
    checked: OnceLock<Result<Usage>>,
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.text == other.text && self.data == other.data
    }
}

const LOOPS: [&str; 3] = ["for", "while", "loop"];

/// What the rule of a text depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub b: bool,
    pub h: bool,
}

/// The rule of a mask or a score.
struct Signature {
    text: &'static str,
    args: usize,
    /// Where `b` stands among the arguments.
    first: usize,
}

impl Text {
    pub(crate) fn new<'a>(text: &str, data: impl IntoIterator<Item = (&'a str, Input)>) -> Text {
        let data = data.into_iter().map(|(name, input)| (name.to_string(), input)).collect();
        let loops = identifiers(text).filter(|word| LOOPS.contains(word)).count();
        Text { text: text.to_string(), data, loops, checked: OnceLock::new() }
    }

    /// Whether it has a loop, which could run for ever.
    pub(crate) fn loops(&self) -> bool {
        self.loops > 0
    }

    /// Turns of its loops for a pair. What is counted in the text are bodies, and a driver counts the turn, too, in which a loop ends: each body
    /// may enter every loop once.
    fn turns(&self) -> usize {
        TURNS / (1 + self.loops)
    }

    /// The text with its rule called by another name, so that several texts can be linked. With `bounded`, each loop counts
    /// its turns, and the rule begins to count: the driver's own bound, 2^64 turns, would end after the machine.
    pub(crate) fn linked(&self, rule: &str, name: &str, bounded: bool) -> String {
        let begin = format!(" turns_left = {}u;", self.turns());
        let turn = " if (turns_left == 0u) { break; } turns_left -= 1u;";
        let mut text = String::new();
        let mut copied = 0;
        // Between a keyword and the body it heads there is no brace.
        let (mut before, mut in_body) = ("", None);
        for token in tokens(&self.text) {
            if token.text == rule {
                text += &self.text[copied..token.at];
                text += name;
                copied = token.at + rule.len();
                in_body = (bounded && before == "fn").then_some(&*begin);
            } else if bounded && LOOPS.contains(&token.text) {
                in_body = Some(turn);
            } else if token.text == "{"
                && let Some(statements) = in_body.take()
            {
                text += &self.text[copied..=token.at];
                text += statements;
                copied = token.at + 1;
            }
            before = token.text;
        }
        text += &self.text[copied..];
        text.push('\n');
        text
    }

    /// The text linked under a name that kernels call. A rule that loops is called behind a test, which always holds: where it also
    /// returns early, SwiftShader would double time and memory with each of the calls, one a score of a thread, that follow one another.
    pub(crate) fn callable(&self, rule: &str, name: &str, bounded: bool) -> String {
        if !self.loops() {
            return self.linked(rule, name, bounded);
        }
        let own = format!("{name}_own");
        let head = signature(rule).text.replacen(rule, name, 1);
        let (nothing, score) = if rule == "mask_mod" { ("false", "") } else { ("0.0", "score, ") };
        self.linked(rule, &own, bounded)
            + &format!(
                "{head} {{\n    var x = {nothing};\n    \
                 if (kv_idx != NO_TOKEN) {{ x = {own}({score}b, h, q_idx, kv_idx); }}\n    return x;\n}}\n"
            )
    }

    /// Checks the text by itself, and its tensors; tells what its rule depends on. A text has one rule: it is always asked
    /// for the same.
    pub(crate) fn usage(&self, rule: &'static str) -> Result<Usage> {
        self.checked.get_or_init(|| self.check(rule)).clone()
    }

    fn check(&self, rule: &'static str) -> Result<Usage> {
        self.check_data(rule)?;
        let signature = signature(rule);
        let f16 = self.data.iter().any(|(_, input)| input.layout.dtype() == DType::F16);
        let declarations = if f16 { "enable f16;\n" } else { "" }.to_string()
            + &declarations(self.data.iter().map(|(name, input)| (&**name, input.layout.dtype())), 0);
        // Before the text, on lines of their own, so that lines can be counted back.
        let before = declarations.lines().count() as u32;
        let whole = declarations + &self.text;
        // Spans go from the expression to the function around it: the narrowest tells most. For a few errors naga knows no
        // place, and then none is told.
        let own_line = |spans: Vec<naga::Span>| {
            let narrowest = spans
                .into_iter()
                .filter(naga::Span::is_defined)
                .min_by_key(|span| span.to_range().map_or(usize::MAX, |range| range.len()));
            let line = |span: naga::Span| span.location(&whole).line_number.saturating_sub(before).max(1);
            narrowest.map_or(String::new(), |span| format!(":{}", line(span)))
        };
        let module = naga::front::wgsl::parse_str(&whole).map_err(|e| {
            Error::Shader(format!("{rule}{}: {}", own_line(e.labels().map(|(span, _)| span).collect()), e.message()))
        })?;
        let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).map_err(|e| {
            let sentence = innermost(e.as_inner());
            let spans = e.spans().map(|(span, _)| *span).collect();
            Error::Shader(format!("{rule}{}: {sentence}", own_line(spans)))
        })?;
        if module.functions.iter().any(|(f, _)| !info[f].available_stages.contains(naga::valid::ShaderStages::COMPUTE))
        {
            return Err(Error::Shader(format!("{rule}: does what only shaders of pixels may do, but is computed")));
        }
        if !module.overrides.is_empty() {
            return Err(Error::Shader(format!("{rule}: declares an override, but nobody sets it; take const")));
        }
        if !module.entry_points.is_empty() {
            return Err(Error::Shader(format!("{rule}: the text has an entry point, but must be functions alone")));
        }
        self.check_reach(rule, &module)?;
        check_variables(rule, &module)?;
        let wrong = || Error::Shader(format!("{rule}: the text must define `{}`", signature.text));
        let (handle, function) =
            module.functions.iter().find(|(_, f)| f.name.as_deref() == Some(rule)).ok_or_else(wrong)?;
        if !has_signature(&module, function, &signature) {
            return Err(wrong());
        }
        let used = |argument: usize| {
            let is = |e: &naga::Expression| *e == naga::Expression::FunctionArgument(argument as u32);
            function.expressions.iter().any(|(e, expression)| is(expression) && info[handle][e].ref_count > 0)
        };
        Ok(Usage { b: used(signature.first), h: used(signature.first + 1) })
    }

    /// Refuses what would reach beyond the text: bindings and memory of the kernel's, and waiting for its other threads.
    fn check_reach(&self, rule: &str, module: &naga::Module) -> Result<()> {
        for (_, variable) in module.global_variables.iter() {
            let name = variable.name.as_deref().unwrap_or_default();
            let given = self.data.iter().any(|(data, _)| data == name);
            if variable.space != naga::AddressSpace::Private && !given {
                return Err(Error::Shader(format!(
                    "{rule}: declares {name} outside of functions, but may do so with var<private> alone; give tensors as data"
                )));
            }
        }
        // What is called by WGSL's own names would be called so by the kernel around the text, too.
        let names = declared(&self.text).into_iter().chain(self.data.iter().map(|(name, _)| &**name));
        if let Some(name) = names.into_iter().find(|name| BUILTIN_IDENTIFIERS.contains(name)) {
            return Err(Error::Shader(format!("{rule}: declares {name}, but that is a name of WGSL's own")));
        }
        let waits = |word: &&str| word.ends_with("Barrier") || *word == "workgroupUniformLoad";
        match identifiers(&self.text).find(waits) {
            Some(word) => Err(Error::Shader(format!("{rule}: calls {word}, but may not wait for other threads"))),
            None => Ok(()),
        }
    }

    fn check_data(&self, rule: &str) -> Result<()> {
        for (n, (name, input)) in self.data.iter().enumerate() {
            let word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !word || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                return Err(Error::Shader(format!(
                    "{rule}: data is named {name:?}, but must be named like a variable"
                )));
            }
            if self.data[..n].iter().any(|(other, _)| other == name) {
                return Err(Error::Shader(format!("{rule}: data named {name} is given twice")));
            }
            if !input.layout.is_contiguous() {
                return Err(Error::Layout(format!(
                    "{name}: strides are {:?}, but data of WGSL rules must be contiguous",
                    input.layout.strides()
                )));
            }
        }
        Ok(())
    }
}

/// Refuses variables that a thread may not have the memory for.
fn check_variables(rule: &str, module: &naga::Module) -> Result<()> {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| Error::Shader(format!("{rule}: {e}")))?;
    let own = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::Private).map(|(_, v)| v.ty);
    let locals = module.functions.iter().flat_map(|(_, f)| f.local_variables.iter().map(|(_, v)| v.ty));
    let bytes = own.chain(locals).fold(0u32, |bytes, ty| bytes.saturating_add(layouter[ty].size));
    if bytes > MAX_VARIABLES {
        return Err(Error::Shader(format!(
            "{rule}: its variables take {bytes} bytes, but a thread has memory for {MAX_VARIABLES}"
        )));
    }
    Ok(())
}

/// The innermost sentence of an error: naga's outer ones only name the function.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// Storage variables by name, from a binding number on.
pub(crate) fn declarations<'a>(data: impl Iterator<Item = (&'a str, DType)>, first_binding: u32) -> String {
    let data: Vec<_> = data.collect();
    let mut text = String::new();
    for (binding, (name, dtype)) in (first_binding..).zip(data) {
        text += &format!("@group(0) @binding({binding}) var<storage, read> {name}: array<{dtype}>;\n");
    }
    text
}

fn signature(rule: &str) -> Signature {
    match rule {
        "mask_mod" => {
            Signature { text: "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool", args: 4, first: 0 }
        }
        _ => Signature {
            text: "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32",
            args: 5,
            first: 1,
        },
    }
}

fn has_signature(module: &naga::Module, function: &naga::Function, signature: &Signature) -> bool {
    use naga::{Scalar, TypeInner};
    let is = |ty: naga::Handle<naga::Type>, scalar: Scalar| module.types[ty].inner == TypeInner::Scalar(scalar);
    let result = if signature.first == 0 { Scalar::BOOL } else { Scalar::F32 };
    function.arguments.len() == signature.args
        && function.result.as_ref().is_some_and(|r| is(r.ty, result))
        && function
            .arguments
            .iter()
            .enumerate()
            .all(|(n, argument)| is(argument.ty, if n < signature.first { Scalar::F32 } else { Scalar::U32 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(text: &str) -> std::result::Result<Usage, String> {
        Text::new(text, []).usage("mask_mod").map_err(|e| e.to_string())
    }

    const HEAD: &str = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool";

    #[test]
    fn errors_are_told_at_the_users_line() {
        let text = format!("// a comment\n{HEAD} {{\n    return kv_idx < slope;\n}}");
        assert_eq!(usage(&text).unwrap_err(), "mask_mod:3: no definition in scope for identifier: `slope`");
        let data = Text::new(&text, [("other", Input::from(crate::Layout::new(DType::U32, [1, 1, 1, 4]).unwrap()))]);
        let told = data.usage("mask_mod").unwrap_err().to_string();
        assert_eq!(told, "mask_mod:3: no definition in scope for identifier: `slope`");
        // Found by the validator, not by the parser.
        let text = format!("{HEAD} {{\n    let x = 1u;\n    return kv_idx + x;\n}}");
        assert!(usage(&text).unwrap_err().starts_with("mask_mod:3: "), "{}", usage(&text).unwrap_err());
        let placeless = format!("{HEAD} {{\n    return kv_idx && q_idx;\n}}");
        assert_eq!(usage(&placeless).unwrap_err(), "mask_mod: Incompatible operands: LogicalAnd(u32, _)");
        let missing = usage("fn other() {}").unwrap_err();
        assert_eq!(missing, format!("mask_mod: the text must define `{HEAD}`"));
        assert!(usage("fn mask_mod(b: u32) -> bool { return true; }").is_err());
        let reaching = |text: &str| usage(&format!("{text}\n{HEAD} {{ return true; }}")).unwrap_err();
        let alone =
            "mask_mod: declares mine outside of functions, but may do so with var<private> alone; give tensors as data";
        assert_eq!(reaching("@group(0) @binding(3) var<storage, read_write> mine: array<u32>;"), alone);
        assert_eq!(reaching("var<workgroup> mine: u32;"), alone);
        assert!(usage(&format!("var<private> mine: u32 = 0u;\n{HEAD} {{ return true; }}")).is_ok());
        let waits = usage(&format!("{HEAD} {{ workgroupBarrier(); return true; }}")).unwrap_err();
        assert_eq!(waits, "mask_mod: calls workgroupBarrier, but may not wait for other threads");
        assert!(usage(&format!("{HEAD} {{ return true; }}\n@compute @workgroup_size(1) fn main() {{}}")).is_err());
    }

    #[test]
    fn what_a_rule_depends_on_is_seen() {
        let plain = usage(&format!("{HEAD} {{ return kv_idx <= q_idx; }}")).unwrap();
        assert_eq!(plain, Usage { b: false, h: false });
        let headed = usage(&format!("{HEAD} {{ return kv_idx <= q_idx + h; }}")).unwrap();
        assert_eq!(headed, Usage { b: false, h: true });
        let called = format!("fn even(x: u32) -> bool {{ return x % 2u == 0u; }}\n{HEAD} {{ return even(b); }}");
        assert_eq!(usage(&called).unwrap(), Usage { b: true, h: false });
    }

    #[test]
    fn rules_are_renamed_as_words() {
        let text = Text::new("fn mask_mod() {} fn my_mask_mod() {} // mask_mod", []);
        let renamed = text.linked("mask_mod", "user_mask_0", false);
        assert_eq!(renamed, "fn user_mask_0() {} fn my_mask_mod() {} // mask_mod\n");
        assert!(Text::new("for (;;) {}", []).loops() && !Text::new("let format = 1; // for", []).loops());
    }

    #[test]
    fn loops_count_their_turns() {
        let text = Text::new("fn m(a: u32) -> bool {\nfor (;;) { }\nwhile (a < 1u) // {\n { loop\n{ } } }", []);
        let turn = "if (turns_left == 0u) { break; } turns_left -= 1u;";
        let bounded = format!(
            "fn n(a: u32) -> bool {{ turns_left = 500u;\nfor (;;) {{ {turn} }}\nwhile (a < 1u) // {{\n {{ {turn} loop\n{{ {turn} }} }} }}\n"
        );
        assert_eq!(text.linked("m", "n", true), bounded);
    }

    #[test]
    fn rules_that_loop_are_called_behind_a_test() {
        let plain = Text::new(&format!("{HEAD} {{ return true; }}"), []);
        assert_eq!(plain.callable("mask_mod", "m", true), plain.linked("mask_mod", "m", true));
        let looping = Text::new(&format!("{HEAD} {{ loop {{ return true; }} }}"), []);
        let linked = looping.callable("mask_mod", "m", true);
        assert!(linked.starts_with(&looping.linked("mask_mod", "m_own", true)), "{linked}");
        let call = "if (kv_idx != NO_TOKEN) { x = m_own(b, h, q_idx, kv_idx); }";
        assert!(linked.contains(&HEAD.replace("mask_mod", "m")) && linked.contains(call), "{linked}");
    }

    #[test]
    fn names_of_wgsl_and_large_variables_are_refused() {
        let declares = |text: &str| usage(&format!("{text}\n{HEAD} {{ return true; }}")).unwrap_err();
        let own = |name: &str| format!("mask_mod: declares {name}, but that is a name of WGSL's own");
        assert_eq!(declares("fn exp2(x: f32) -> f32 { return 7.0; }"), own("exp2"));
        assert_eq!(declares("const max = 3u;"), own("max"));
        assert_eq!(declares("struct vec4 { x: f32 }"), own("vec4"));
        assert_eq!(declares("alias f32 = u32;"), own("f32"));
        assert_eq!(declares("var<private> select: u32 = 0u;"), own("select"));
        assert_eq!(
            declares("var<private> all_mine: array<u32, 4096>;"),
            "mask_mod: its variables take 16384 bytes, but a thread has memory for 8192"
        );
        assert!(usage(&format!("{HEAD} {{ let max = 3u; return kv_idx < max; }}")).is_ok());
    }
}
