//! Repeats the bodies of marked loops, because WGSL has no unroll hint and drivers do not always unroll by themselves:
//! an array that stays indexed by a loop counter stays out of registers. And leaves out what a constant switches off, which drivers would
//! find out only after they had put every function in its place.

/// Replaces each loop of the form
///
/// ```wgsl
/// for (var i = 0u; i < BOUND; i++) { // unroll
///     ...
/// }
/// ```
///
/// by its body, once a turn, each in a block of its own that begins with `const i = 0u;` and so on. BOUND is a literal or
/// one of `constants`. `// unroll where SWITCH` leaves the loop as it is where that constant is 0. Other lines pass unchanged, so
/// the text means the same with or without this pass.
///
/// `for (var i = FIRST; ...) { // once where SWITCH` is a loop of one turn where that constant is not 0: its body in a block, without the
/// lines that end with `// loop`.
///
/// `if (SWITCH) {` or `if (!SWITCH) {`, where that is one of `constants`, with or without `} else {`, is the block that is taken, or nothing.
///
/// # Panics
/// When a marked loop is malformed or its bound is unknown, or a branch on a switch has an `else if`: shipped shaders only, and a test links
/// them all.
pub(crate) fn unroll(text: &str, constants: &[(&str, u32)]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::with_capacity(text.len() * 2);
    unroll_lines(&lines, constants, &mut out);
    out
}

fn unroll_lines(lines: &[&str], constants: &[(&str, u32)], out: &mut String) {
    let mut at = 0;
    while at < lines.len() {
        if let Some((counter, first)) = once(lines[at], constants) {
            let end = at + closing_brace(&lines[at..]);
            let body: Vec<&str> =
                lines[at + 1..end].iter().copied().filter(|line| !line.ends_with("// loop")).collect();
            out.push_str(&format!("{{ let {counter} = {first};\n"));
            unroll_lines(&body, constants, out);
            out.push_str("}\n");
            at = end + 1;
            continue;
        }
        if let Some((taken, length)) = settled(&lines[at..], constants) {
            if !taken.is_empty() {
                out.push_str("{\n");
                unroll_lines(taken, constants, out);
                out.push_str("}\n");
            }
            at += length;
            continue;
        }
        let Some((counter, bound)) = marked_loop(lines[at], constants) else {
            out.push_str(lines[at]);
            out.push('\n');
            at += 1;
            continue;
        };
        let end = at + closing_brace(&lines[at..]);
        for i in 0..bound {
            out.push_str(&format!("{{ const {counter} = {i}u;\n"));
            unroll_lines(&lines[at + 1..end], constants, out);
            out.push_str("}\n");
        }
        at = end + 1;
    }
}

/// Counter and first value of a loop that is to be a block.
fn once<'a>(line: &'a str, constants: &[(&str, u32)]) -> Option<(&'a str, &'a str)> {
    let (header, switch) = line.trim().split_once("// once where ")?;
    let on = constants.iter().find(|(known, _)| *known == switch.trim()).map(|&(_, n)| n > 0);
    let begin = header.strip_prefix("for (var ").and_then(|rest| rest.split_once(" = ")).zip(on);
    let Some(((counter, rest), on)) = begin else { panic!("not a loop that can be a block: {header}") };
    let (first, _) = rest.split_once(';')?;
    on.then_some((counter, first))
}

/// Of a branch on a switch, with which the lines begin, those that are taken, and how many lines it has in all.
fn settled<'a, 'b>(lines: &'b [&'a str], constants: &[(&str, u32)]) -> Option<(&'b [&'a str], usize)> {
    let condition = lines[0].trim().strip_prefix("if (")?.strip_suffix(") {")?;
    let (name, wanted) = condition.strip_prefix('!').map_or((condition, true), |name| (name, false));
    let on = constants.iter().find(|(known, _)| *known == name).map(|&(_, n)| n > 0)?;
    let middle = closing_brace(lines);
    let end = match lines[middle].trim() {
        "}" => middle,
        "} else {" => middle + closing_brace(&lines[middle..]),
        other => panic!("a branch on a switch goes on with {other}"),
    };
    let taken = if on == wanted { &lines[1..middle] } else { &lines[(middle + 1).min(end)..end] };
    Some((taken, end + 1))
}

fn marked_loop<'a>(line: &'a str, constants: &[(&str, u32)]) -> Option<(&'a str, u32)> {
    let (header, mark) = line.trim().split_once("// unroll")?;
    let header = header.trim();
    let constant = |name: &str| constants.iter().find(|(known, _)| *known == name).map(|&(_, n)| n);
    let malformed = || -> ! { panic!("not a loop that can be unrolled: {header}") };
    let Some(rest) = header.strip_prefix("for (var ") else { malformed() };
    let Some((counter, rest)) = rest.split_once(" = 0u; ") else { malformed() };
    let bound = rest.strip_prefix(&format!("{counter} < ")).and_then(|r| r.strip_suffix(&format!("; {counter}++) {{")));
    let Some(bound) = bound else { malformed() };
    let switch = match mark.trim().strip_prefix("where ") {
        Some(name) => constant(name),
        None if mark.is_empty() => Some(1),
        None => malformed(),
    };
    let value = bound.strip_suffix('u').and_then(|n| n.parse().ok()).or_else(|| constant(bound));
    match (switch, value) {
        (Some(0), Some(_)) => None,
        (Some(_), Some(value)) => Some((counter, value)),
        _ => malformed(),
    }
}

/// The line on which the brace that the first line opens last closes: one of a block, or `} else {` behind it.
fn closing_brace(lines: &[&str]) -> usize {
    let mut depth = 0i32;
    for (n, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for brace in code.matches(['{', '}']) {
            depth += if brace == "{" { 1 } else { -1 };
            // The first line of an else closes another block.
            if n > 0 && depth == 0 {
                return n;
            }
            depth = depth.max(0);
        }
    }
    panic!("a block does not close: {}", lines[0]);
}

#[cfg(test)]
mod tests {
    use super::unroll;

    #[test]
    fn nested_loops_repeat_their_bodies() {
        let text = "a\nfor (var i = 0u; i < N; i++) { // unroll\n  b;\n  for (var j = 0u; j < 2u; j++) { // unroll\n    \
                    c; // }\n  }\n}\nfor (var k = 0u; k < N; k++) { }\n";
        let inner = "{ const j = 0u;\n    c; // }\n}\n{ const j = 1u;\n    c; // }\n}\n";
        let turn = |i| format!("{{ const i = {i}u;\n  b;\n{inner}}}\n");
        let wanted = format!("a\n{}{}{}for (var k = 0u; k < N; k++) {{ }}\n", turn(0), turn(1), turn(2));
        assert_eq!(unroll(text, &[("N", 3)]), wanted);
    }

    #[test]
    fn a_switch_leaves_loops_as_they_are() {
        let text = "for (var i = 0u; i < 2u; i++) { // unroll where WIDE\n  b;\n}\n";
        assert_eq!(unroll(text, &[("WIDE", 0)]), text);
        assert_eq!(unroll(text, &[("WIDE", 1)]), "{ const i = 0u;\n  b;\n}\n{ const i = 1u;\n  b;\n}\n");
    }

    #[test]
    fn loops_of_one_turn_are_blocks() {
        let text = "for (var i = a; ; i += 2u) { // once where ALONE\n  b;\n  if (c) { break; } // loop\n}\n";
        assert_eq!(unroll(text, &[("ALONE", 0)]), text);
        assert_eq!(unroll(text, &[("ALONE", 1)]), "{ let i = a;\n  b;\n}\n");
    }

    #[test]
    fn branches_on_switches_are_settled() {
        let text = "a\nif (ON) {\n  b;\n} else {\n  c;\n}\nif (!ON) {\n  for (var i = 0u; i < 9u; i++) { // unroll\n    d;\n  }\n}\nif (x) {\n  e;\n}\n";
        let rest = "if (x) {\n  e;\n}\n";
        assert_eq!(unroll(text, &[("ON", 1)]), format!("a\n{{\n  b;\n}}\n{rest}"));
        let d: String = (0..9).map(|i| format!("{{ const i = {i}u;\n    d;\n}}\n")).collect();
        assert_eq!(unroll(text, &[("ON", 0)]), format!("a\n{{\n  c;\n}}\n{{\n{d}}}\n{rest}"));
    }

    #[test]
    #[should_panic(expected = "goes on with } else if (x) {")]
    fn branches_on_switches_have_no_third_way() {
        unroll("if (ON) {\n  a;\n} else if (x) {\n  b;\n}\n", &[("ON", 0)]);
    }

    #[test]
    #[should_panic(expected = "not a loop that can be unrolled")]
    fn an_unknown_bound_is_our_bug() {
        unroll("for (var i = 0u; i < M; i++) { // unroll\n}\n", &[("N", 3)]);
    }
}
