//! WGSL of the user's that misbehaves: bounded, or refused in a sentence; what it has no part in stays right.

use wgpu_attention::reference::check;
use wgpu_attention::{Attention, DType, Input, Mask, Result, Score, Tensor, Visit};

use crate::masks::{SMALL, check as check_mask, small};
use crate::support::{Case, ctx, download};

const MASK: &str = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool";
const SCORE: &str = "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32";

fn described(case: &Case) -> Attention {
    let [q, k, v] = case.upload(ctx()).unwrap();
    Attention::new(&q, &k, &v).tile(SMALL)
}

/// Runs rules that do as they like for head 1 and change nothing for head 0, whose rows must be right.
fn head_0_is_intact(case: &Case, visit: Visit, change: &dyn Fn(Attention) -> Attention) {
    let (out, lse) = change(described(case).visit(visit)).run_with_lse(ctx()).unwrap();
    let ((out64, lse64), (out32, lse32)) = (case.oracle::<f64>(), case.oracle::<f32>());
    for (got, exact, plain) in [(out, out64, out32), (lse, lse64, lse32)] {
        let got = download(ctx(), &got).unwrap();
        let half = got.len() / 2;
        check(&got[..half], &exact[..half], &plain[..half], DType::F32).unwrap_or_else(|e| panic!("{visit:?}: {e}"));
    }
}

#[test]
fn indices_out_of_bounds() {
    let case = small(30, 40).heads(1, 2, 1);
    let few = Tensor::from_slice(ctx(), [1, 1, 1, 2], &[1u32, 0]).unwrap();
    // From far behind the end of the caller's data; arrays of the text's own, read and written; components of a vector.
    let wild = "var<private> own: array<u32, 4> = array<u32, 4>(1u, 2u, 3u, 4u);\n\
         fn written(i: u32) -> f32 { var a = array<f32, 4>(); a[i] = 1e30; own[i] = 77u; a[i + 9u] = 2.0; return a[1]; }\n\
         fn wild(i: u32) -> f32 {\n\
           let x = f32(few[i * 100000000u + 7u]) + f32(few[i - 1000u]) + f32(own[i * 1000u]) + written(i * 100000u - 50u);\n\
           return x + vec4<f32>(x)[i + 4u]; }\n";
    let given = || [("few", Input::from(&few))];
    let score = format!("{wild}{SCORE} {{ if (h == 0u) {{ return score; }} return score + wild(kv_idx); }}");
    head_0_is_intact(&case, Visit::Every, &|a| a.score(Score::wgsl_with(&score, given())));
    let mask = format!("{wild}{MASK} {{ if (h == 0u) {{ return true; }} return wild(kv_idx) != 7.0; }}");
    head_0_is_intact(&case, Visit::Listed, &|a| a.mask(Mask::wgsl_with(&mask, given())));
}

#[test]
fn loops_that_never_end() {
    let case = small(20, 24).heads(1, 2, 1);
    let bodies = [
        "loop { x += 1u; }",
        "while (x < 4u) { }",
        "for (; kv_idx < 100000u;) { continue; }",
        "loop { continuing { x += 1u; break if x == 0u; } }",
        "for (var i = 0u; i >= 0u; i++) { for (var j = 0u; j < 1u; j += 0u) { while (true) { x ^= 1u; } } }",
        "x = forever(x);",
    ];
    for body in bodies {
        let helper = "fn forever(x: u32) -> u32 { var y = x; while (y != 1u) { y = y * 2u; } return y; }\n";
        let score = format!("{helper}{SCORE} {{ var x = 0u; if (h == 1u) {{ {body} }} return score + 0.0 * f32(x); }}");
        head_0_is_intact(&case, Visit::Every, &|a| a.score(Score::wgsl(&score)));
        // Keys 3 and 7 of head 1 alone, and of those, it sees none.
        let mask = format!(
            "{helper}{MASK} {{ var x = 0u; if (h == 1u && kv_idx % 4u == 3u) {{ {body} return false; }} return true; }}"
        );
        head_0_is_intact(&case, Visit::Listed, &|a| a.mask(Mask::wgsl(&mask)));
    }
}

/// A rule that runs out of turns for some pairs is as it was for the others, and so is one that needs many.
#[test]
fn turns_are_a_pairs_own() {
    let case = small(20, 24).heads(1, 2, 1);
    let spins = format!(
        "{MASK} {{ var n = 0u; if (kv_idx == 3u) {{ loop {{ n += 1u; }} return false; }}\n\
         for (var i = 0u; i < 600u; i++) {{ n += i & 1u; }} return n == 300u; }}"
    );
    check_mask(&case, &Mask::wgsl(&spins), &|_, _, _, j| j != 3);
    // Left by its return alone.
    let until =
        format!("{MASK} {{ var i = kv_idx; loop {{ if (i % 7u == 0u) {{ return i <= q_idx; }} i++; }} return true; }}");
    check_mask(&case, &Mask::wgsl(&until), &|_, _, i, j| j.next_multiple_of(7) <= i);
}

#[test]
fn numbers_without_a_meaning() {
    let case = small(20, 24).heads(1, 2, 1);
    let body = "f32(1u / (h - 1u)) + f32(5u % (h - 1u)) + f32(i32(f32(h) * 1e30)) + log(-score * score - 1.0)";
    let score = format!("{SCORE} {{ if (h == 0u) {{ return score; }} return score + {body}; }}");
    head_0_is_intact(&case, Visit::Every, &|a| a.score(Score::wgsl(&score)));
}

#[test]
fn names_that_clash() {
    let case = small(20, 24).heads(1, 2, 1);
    let told = |text: String| -> String {
        let result: Result<_> = described(&case).mask(Mask::wgsl(&text)).plan(ctx());
        result.map(|_| ()).unwrap_err().to_string()
    };
    for text in
        ["fn exp2(x: f32) -> f32 { return 1.0; }", "fn max(a: f32, b: f32) -> f32 { return a; }", "alias f32 = u32;"]
    {
        let sentence = told(format!("{text}\n{MASK} {{ return true; }}"));
        assert!(sentence.ends_with("but that is a name of WGSL's own"), "{sentence}");
    }
    for text in [
        "const NEG_INF = 0.0;",
        "fn qk() {}",
        "var<private> params: u32;",
        "struct QTile { a: u32 }",
        "var<private> turns_left: u32;",
    ] {
        let sentence = told(format!("{text}\n{MASK} {{ loop {{ break; }} return kv_idx < 9u; }}"));
        assert!(sentence.starts_with("mask_mod:1: redefinition of"), "{sentence}");
    }
    // Their own names, as local ones, are the text's to choose; marks of ours mean nothing in it.
    let text = format!(
        "fn base(tile_at: u32) -> u32 {{ let keep = tile_at; return keep; }}\n{MASK} {{ var tiles = 0u;\n\
         for (var i = 0u; i < q_idx; i++) {{ // unroll\n tiles += 1u; }}\n return tiles + base_of(kv_idx) < 30u; }}"
    )
    .replace("fn base(", "fn base_of(");
    check_mask(&case, &Mask::wgsl(&text), &|_, _, i, j| i + j < 30);
}

#[test]
fn what_no_kernel_may_have() {
    let case = small(20, 24).heads(1, 2, 1);
    let [q, k, v] = case.upload(ctx()).unwrap();
    for body in [
        "discard;",
        "return dpdx(f32(kv_idx)) > 0.0;",
        "return mask_mod(b, h, q_idx, kv_idx);",
        "return texture > 0u;",
        "storageBarrier(); return true;",
    ] {
        for before in
            ["", "override texture: u32;\n", "enable f16;\n", "@group(0) @binding(1) var texture: texture_2d<f32>;\n"]
        {
            let text = format!("{before}{MASK} {{ {body} }}");
            let told =
                Attention::new(&q, &k, &v).mask(Mask::wgsl(&text)).plan(ctx()).map(|_| ()).unwrap_err().to_string();
            assert!(told.starts_with("mask_mod") && !told.contains('\n'), "{text}: {told}");
        }
    }
}
